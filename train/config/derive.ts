/**
 * What other modules are given, made from a configuration: it turns `snake_case` and `null` into their vocabulary.
 * @module
 */
import type { CommOptions } from "../../ffi/comm.ts";
import { LLAMA3_ROPE_SCALING, type RopeScaling } from "../../model/attention.ts";
import { type LlamaConfig, llamaConfig, type LlamaOptions } from "../../model/llama.ts";
import type { Precision } from "../../graph/passes/precision.ts";
import type { RematPolicy } from "../../graph/passes/remat.ts";
import type { RematBudget } from "../../graph/passes/remat_search.ts";
import type { CheckpointOptions } from "../checkpoint/policy.ts";
import type { LrScheduleOptions } from "../lr_schedule.ts";
import type { ProfileCycle } from "../profiler.ts";
import type { MeshChoices } from "../ranks.ts";
import { bytesOf } from "./bytes.ts";
import type { Config, ModelConfig } from "./schema.ts";

/** The sizes of the model that a configuration asks for: the flavor's, where `[model]` does not replace them. */
export function modelSizes({ model }: Config): LlamaConfig {
  const flavor = `${model.name}/${model.flavor}`;
  const options: LlamaOptions = {
    dim: model.dim ?? undefined,
    numLayers: model.n_layers ?? undefined,
    numHeads: model.n_heads ?? undefined,
    numKvHeads: model.n_kv_heads ?? undefined,
    multipleOf: model.multiple_of ?? undefined,
    ffnDimMultiplier: model.ffn_dim_multiplier ?? undefined,
    ffnHiddenDim: model.ffn_hidden_dim ?? undefined,
    vocabSize: model.vocab_size ?? undefined,
    normEps: model.norm_eps ?? undefined,
    ropeTheta: model.rope_theta ?? undefined,
    ropeScaling: ropeScaling(model, llamaConfig(flavor).ropeScaling),
  };
  return llamaConfig(flavor, options);
}

/** Scaling is off where its factor is 1, and where neither the flavor nor `[model]` asks for it. */
function ropeScaling(model: ModelConfig, flavor: RopeScaling | null): RopeScaling | null {
  const factor = model.rope_scaling_factor ?? flavor?.factor ?? 1;
  if (factor === 1) return null;
  const base = flavor ?? LLAMA3_ROPE_SCALING;
  return {
    factor,
    lowFreqFactor: model.rope_low_freq_factor ?? base.lowFreqFactor,
    highFreqFactor: model.rope_high_freq_factor ?? base.highFreqFactor,
    originalContext: model.rope_original_max_position_embeddings ?? base.originalContext,
  };
}

/** What a configuration asks to be multiplied and stored in bf16. */
export function askedPrecision({ training }: Config): Partial<Precision> {
  const { dtype, mixed_precision_param: param, mixed_precision_reduce: reduce } = training;
  const short = (name: string) => name === "bfloat16" ? "bf16" : "f32";
  return {
    ...(param === "auto" ? {} : { param: short(param) }),
    ...(reduce === "bfloat16" ? { reduce: "bf16" } : {}),
    ...(dtype === "bfloat16" ? { stored: "bf16" } : {}),
  };
}

/** What a configuration saves, and goes on from; undefined: nothing. */
export function checkpointOptions({ checkpoint, job }: Config): CheckpointOptions | undefined {
  if (!checkpoint.enable) return undefined;
  return {
    folder: `${job.dump_folder}/${checkpoint.folder}`,
    interval: checkpoint.interval,
    keepLatestK: checkpoint.keep_latest_k,
    firstStep: checkpoint.enable_first_step_checkpoint,
    lastSaveModelOnly: checkpoint.last_save_model_only,
    saveOnStop: checkpoint.save_on_stop,
    goOnUnsaved: checkpoint.save_error === "warn",
    loadOnly: checkpoint.load_only,
    loadStep: checkpoint.load_step,
    excludeFromLoading: checkpoint.exclude_from_loading,
    initialLoadPath: checkpoint.initial_load_path ?? undefined,
    initialLoadModelOnly: checkpoint.initial_load_model_only,
    verify: checkpoint.verify,
  };
}

/** Which steps a configuration has recorded; undefined: none. */
export function profileCycle({ profiling }: Config): ProfileCycle | undefined {
  if (!profiling.enable_profiling) return undefined;
  const { profile_freq: freq, profiler_warmup: warmup, profiler_active: active } = profiling;
  return { freq, warmup, active };
}

/** What a configuration leaves to choose within its mesh. */
export function meshChoices({ parallelism }: Config): MeshChoices {
  return {
    lossParallel: !parallelism.disable_loss_parallel,
    balancer: parallelism.context_parallel_load_balancer,
    rotateMethod: parallelism.context_parallel_rotate_method,
    asyncTensorParallel: parallelism.enable_async_tensor_parallel,
    reshard: parallelism.fsdp_reshard_after_forward !== "never",
    prefetch: parallelism.fsdp_prefetch,
  };
}

/** How ranks exchange. */
export function commOptions({ comm }: Config): CommOptions {
  const ms = (seconds: number) => Math.max(1, Math.round(seconds * 1000));
  const [, bandwidth, latency, unit] = /^(.*)\/s, ?([\d.]+) ?(\w+)$/.exec(comm.simulate) ?? [];
  return {
    startTimeoutMs: ms(comm.init_timeout_seconds),
    timeoutMs: ms(comm.train_timeout_seconds),
    records: comm.trace_buf_size,
    ...(bandwidth === undefined ? {} : {
      link: { bytesPerSecond: bytesOf(bandwidth)!, latencyNs: Math.round(Number(latency) * NANOSECONDS[unit]) },
    }),
  };
}

const NANOSECONDS: Readonly<Record<string, number>> = { s: 1e9, ms: 1e6, us: 1e3, ns: 1 };

/** The schedule that a configuration asks for. */
export function lrSchedule({ lr_scheduler, training }: Config): LrScheduleOptions {
  return {
    warmupSteps: lr_scheduler.warmup_steps,
    totalSteps: lr_scheduler.total_steps ?? training.steps,
    decayRatio: lr_scheduler.decay_ratio,
    decayType: lr_scheduler.decay_type,
    minLrFactor: lr_scheduler.min_lr_factor,
  };
}

/** What backward makes again. */
export function rematPolicy({ activation_checkpoint }: Config): RematPolicy | RematBudget {
  const { mode, selective_ac_option: option, memory_budget: budget } = activation_checkpoint;
  if (mode === "selective") return { mode, option: option === "op" ? option : Number(option) };
  if (mode !== "memory_budget") return { mode };
  return typeof budget === "number" ? { mode, fraction: budget } : { mode, bytes: bytesOf(budget)! };
}
