/**
 * What other modules are given, made from a configuration: it turns `snake_case` and `null` into their vocabulary.
 * @module
 */
import { basename, normalize } from "@std/path";
import type { CommOptions } from "../../ffi/comm.ts";
import { ROPE_SCALING, type RopeScaling } from "../../model/attention.ts";
import { buildModel, flavorNamed, masksDocuments } from "../../model/families.ts";
import type { FamilyModel } from "../../model/family.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerOptions, TransformerSizes } from "../../model/sizes.ts";
import { BYTE_TOKENS, BYTES } from "../../data/byte_tokenizer.ts";
import { type DatasetSpec, isChat, isOwnText, type OneSpec } from "../../data/dataset.ts";
import type { Packing } from "../../data/packing.ts";
import { degreeOf } from "../../graph/layout.ts";
import { BATCH_AXES, type Mesh } from "../../parallel/mesh.ts";
import type { Precision } from "../../graph/passes/precision.ts";
import type { RematPolicy } from "../../graph/passes/remat.ts";
import type { RematBudget } from "../../graph/passes/remat_search.ts";
import { readWeightsConfig } from "../weights/open.ts";
import { hasTokenizer } from "../weights/tokenizer_files.ts";
import type { CheckpointOptions } from "../checkpoint/policy.ts";
import { type Float8Options, float8ProductsOf } from "../float8.ts";
import type { LrScheduleOptions } from "../lr_schedule.ts";
import type { MeshChoices } from "../ranks.ts";
import { bytesOf } from "./bytes.ts";
import type { TrainOptions } from "../options.ts";
import type { DecoderSizes } from "../step_plan.ts";
import { profileAction, type ProfileCycle } from "../report/profiler.ts";
import type { PipelineChoices } from "../pipeline.ts";
import { meshOf } from "./mesh.ts";
import { ConfigError } from "./problem.ts";
import { convertsToMx } from "./quantize_check.ts";
import type { Config, ModelConfig } from "./schema.ts";

/** The flavor whose sizes are those of a folder of weights. */
export const HUGGING_FACE = "hf";

/** The model that a configuration asks for.
 * @throws {CheckpointError} as {@linkcode modelSizes} does. */
export function modelOf(config: Config): FamilyModel {
  return buildModel(familyOf(config));
}

/** Its sizes: the flavor's, where `[model]` does not replace them. Of flavor `hf`, those of the folder that the run begins from.
 * @throws {CheckpointError} when that says none of a known family. */
export function modelSizes(config: Config): TransformerSizes {
  return familyOf(config).sizes;
}

function familyOf(config: Config): Family<TransformerSizes> {
  const { model, data } = config;
  if (model.flavor === HUGGING_FACE) return readWeightsConfig(initialFolder(config)!);
  const flavor = `${model.name}/${model.flavor}`;
  const options: TransformerOptions = {
    dim: model.dim ?? undefined,
    numLayers: model.n_layers ?? undefined,
    numHeads: model.n_heads ?? undefined,
    numKvHeads: model.n_kv_heads ?? undefined,
    headDim: model.head_dim ?? undefined,
    multipleOf: model.multiple_of ?? undefined,
    ffnDimMultiplier: model.ffn_dim_multiplier ?? undefined,
    ffnHiddenDim: model.ffn_hidden_dim ?? undefined,
    vocabSize: model.vocab_size ?? (data.tokenizer === BYTES ? BYTE_TOKENS : undefined),
    normEps: model.norm_eps ?? undefined,
    ropeTheta: model.rope_theta ?? undefined,
    tiedEmbeddings: model.enable_weight_tying ?? undefined,
    ropeScaling: ropeScaling(model, flavorNamed(flavor).sizes.ropeScaling),
  };
  return flavorNamed(flavor, options);
}

/** Scaling is off where its factor is 1, and where neither the flavor nor `[model]` asks for it. */
function ropeScaling(model: ModelConfig, flavor: RopeScaling | null): RopeScaling | null {
  const factor = model.rope_scaling_factor ?? flavor?.factor ?? 1;
  if (factor === 1) return null;
  const base = flavor ?? ROPE_SCALING;
  return {
    factor,
    lowFreqFactor: model.rope_low_freq_factor ?? base.lowFreqFactor,
    highFreqFactor: model.rope_high_freq_factor ?? base.highFreqFactor,
    originalContext: model.rope_original_max_position_embeddings ?? base.originalContext,
  };
}

/** What the training of a config is.
 * @param mesh of the ranks that run it. */
export function trainOptions(config: Config, mesh: Mesh = meshOf(config)): TrainOptions {
  const { training, optimizer, validation, model, data, debug, device, metrics } = config;
  const { local_batch_size: local, global_batch_size: global } = training;
  const runs = global < 0 ? 1 : global / (local * degreeOf(BATCH_AXES, mesh.degrees));
  const batch = microbatchSize(config);
  const cycle = profileCycle(config), built = modelOf(config), float8 = float8Options(config);
  return {
    model: built,
    data: trainingData(config),
    tokenizer: data.tokenizer ?? (hasStandIn(config) ? undefined : model.hf_assets_path ?? undefined),
    steps: training.steps,
    batch,
    accumulation: runs * local / batch,
    mesh: mesh.degrees,
    parallelism: meshChoices(config),
    seqLen: training.seq_len,
    lr: optimizer.lr,
    lrSchedule: lrSchedule(config),
    optimizer: {
      beta1: optimizer.beta1,
      beta2: optimizer.beta2,
      eps: optimizer.eps,
      weightDecay: optimizer.weight_decay,
      maxNorm: optimizer.early_step_in_backward ? NEVER_CLIPS : training.max_norm,
    },
    dtype: training.dtype === "float64" ? "f64" : "f32",
    precision: { ...askedPrecision(config), ...(float8 ? { float8: float8ProductsOf(built, float8) } : {}) },
    remat: rematPolicy(config),
    documents: model.attn_mask_type === null
      ? masksDocuments(model.flavor) || packingOf(config) !== "windows"
      : model.attn_mask_type === "block_causal",
    lanes: data.lanes ?? undefined,
    shuffle: data.shuffle,
    dataloader: {
      workers: Math.max(1, training.dataloader.num_workers),
      ahead: training.dataloader.prefetch_factor ?? undefined,
      shuffleWindow: data.shuffle_window ?? undefined,
      maxDocumentBytes: bytesOf(data.max_document_bytes),
      skipBad: data.on_error === "skip",
      packing: data.packing ?? undefined,
      chat: { maskPrompt: data.mask_prompt, tooLong: data.too_long },
    },
    seed: debug.seed,
    device: device.kind,
    threads: device.threads,
    validation: validation.enable
      ? {
        data: validationSpec(config),
        batch: validation.local_batch_size,
        seqLen: validation.seq_len ?? training.seq_len,
        steps: validation.steps,
      }
      : undefined,
    generate: metrics.sample_freq > 0 ? roomForTexts(config) : undefined,
    comm: commOptions(config),
    checkpoint: checkpointOptions(config),
    agreed: { ...config, job: { ...config.job, config_file: null } }, // hosts may keep it in different places
    profile: cycle && ((step) => profileAction(step, cycle) !== "wait"),
  };
}

/** A norm that no gradient has. */
const NEVER_CLIPS = 1e30;

/** Is the tokenizer torchtitan's own for tests, where that is not at hand? The sample's stands in for it. */
export function hasStandIn({ model: { hf_assets_path: path } }: Config): boolean {
  return path !== null && normalize(path) === "tests/assets/tokenizer" && !hasTokenizer(path);
}

/** Is a dataset of chats trained on? */
export function trainsOnChats({ training, data: { sources } }: Config): boolean {
  return (sources.length > 0 ? sources.map(({ dataset }) => dataset) : [training.dataset]).some((name) =>
    isChat({ name })
  );
}

/** How documents become rows. */
export function packingOf(config: Config): Packing {
  return config.data.packing ?? (trainsOnChats(config) ? "best-fit" : "windows");
}

/** What is trained on: a dataset, or a mixture. */
function trainingData(config: Config): DatasetSpec {
  const { training, data: { sources } } = config;
  if (sources.length === 0) return datasetSpec(config, training.dataset, training.dataset_path);
  return {
    mixture: sources.map(({ dataset, dataset_path, weight, name, text_field }) => ({
      name: name ?? dataset,
      data: datasetSpec(config, dataset, dataset_path, text_field),
      weight,
    })),
  };
}

function datasetSpec({ data }: Config, name: string, path: string | null, ownField?: string | null): OneSpec {
  const cache = { folder: data.cache_dir ?? undefined, bytes: bytesOf(data.cache_size) };
  if (isChat({ name })) return { name, path, field: ownField ?? data.messages_field, cache };
  const field = ownField ?? data.text_field;
  if (isOwnText({ name })) return { name, path, field };
  return name === "files" ? { name, path, field, tokenBytes: data.token_bytes, cache } : { name, path, cache };
}

/** Text that is named for validation; undefined: a share of the text that is trained on. */
function validationSpec(config: Config): DatasetSpec | undefined {
  const { training, validation: { dataset, dataset_path: path }, data: { sources } } = config;
  if (dataset !== null) return datasetSpec(config, dataset, path);
  if (sources.length > 0) return datasetSpec(config, "c4_validation", path);
  if (!isOwnText({ name: training.dataset })) {
    // Who trains on C4 of the hub validates on C4 of the hub.
    const c4 = /^c4(?:\/(.+))?$/i.exec(training.dataset),
      isHubs = c4 && training.dataset_path === null && path === null;
    return datasetSpec(config, isHubs ? `c4_validation/${c4[1] ?? "en"}` : "c4_validation", path);
  }
  return path === null ? undefined : datasetSpec(config, training.dataset, path);
}

/** Room for the texts that a run writes: a token of the prompt has a byte at least, and one may come before them. */
function roomForTexts({ metrics: { sample_prompt, sample_tokens }, training }: Config): DecoderSizes {
  const most = new TextEncoder().encode(sample_prompt).length + 1 + sample_tokens;
  return { sequences: 1, maxLength: Math.min(most, training.seq_len) };
}

/** What a configuration asks to be multiplied and stored in bf16. */
export function askedPrecision({ training, device: { tf32 } }: Config): Partial<Precision> {
  const { dtype, mixed_precision_param: param, mixed_precision_reduce: reduce } = training;
  const short = (name: string) => name === "bfloat16" ? "bf16" : "f32";
  return {
    ...(param === "auto" ? {} : { param: short(param) }),
    ...(reduce === "bfloat16" ? { reduce: "bf16" } : {}),
    ...(dtype === "bfloat16" ? { stored: "bf16" } : {}),
    ...(tf32 ? { tf32 } : {}),
  };
}

/** What a configuration has multiplied in float8; undefined: nothing. */
export function float8Options({ model, quantize: { linear: { float8, mx } } }: Config): Float8Options | undefined {
  if (model.converters.length === 0) return undefined;
  if (convertsToMx(model.converters)) return { recipe: "mxfp8", filter: mx.filter_fqns };
  return {
    recipe: float8.recipe_name ?? "tensorwise",
    filter: float8.filter_fqns,
    gathered: float8.enable_fsdp_float8_all_gather,
    precomputed: float8.precompute_float8_dynamic_scale_for_fsdp,
  };
}

/** What a configuration saves, and goes on from; undefined: nothing. */
export function checkpointOptions(config: Config): CheckpointOptions | undefined {
  const { checkpoint, job } = config;
  if (!checkpoint.enable) return undefined;
  return {
    folder: `${job.dump_folder}/${checkpoint.folder}`,
    interval: checkpoint.interval,
    keepLatestK: checkpoint.keep_latest_k,
    firstStep: checkpoint.enable_first_step_checkpoint,
    lastSaveModelOnly: checkpoint.last_save_model_only,
    lastSaveInHf: checkpoint.last_save_in_hf,
    exportDtype: exportDtype(config),
    async: checkpoint.async_mode !== "disabled",
    stagingBytes: bytesOf(checkpoint.staging_limit ?? "0B"),
    saveOnStop: checkpoint.save_on_stop,
    goOnUnsaved: checkpoint.save_error === "warn",
    loadOnly: checkpoint.load_only,
    loadStep: checkpoint.load_step,
    excludeFromLoading: checkpoint.exclude_from_loading,
    initialLoadPath: initialFolder(config),
    initialLoadInHf: checkpoint.initial_load_in_hf,
    initialLoadModelOnly: checkpoint.initial_load_model_only,
    verify: checkpoint.verify,
  };
}

/** Element type of parameters that the last step saves alone; undefined: that of the run. */
export function exportDtype({ checkpoint }: Config): "bf16" | "f16" | undefined {
  return ({ float32: undefined, bfloat16: "bf16", float16: "f16" } as const)[checkpoint.export_dtype];
}

/** The folder that a run begins from. */
function initialFolder({ checkpoint, model }: Pick<Config, "checkpoint" | "model">): string | undefined {
  return checkpoint.initial_load_path ??
    (checkpoint.initial_load_in_hf ? model.hf_assets_path ?? undefined : undefined);
}

/** Which steps a configuration has recorded; undefined: none. */
export function profileCycle({ profiling }: Config): ProfileCycle | undefined {
  if (!profiling.enable_profiling) return undefined;
  const { profile_freq: freq, profiler_warmup: warmup, profiler_active: active } = profiling;
  return { freq, warmup, active };
}

/** Sequences of a microbatch on each data rank: a pipeline cuts the local batch into several. */
export function microbatchSize({ training, parallelism }: Pick<Config, "training" | "parallelism">): number {
  return parallelism.pipeline_parallel_degree > 1
    ? parallelism.pipeline_parallel_microbatch_size
    : training.local_batch_size;
}

/** How a configuration cuts the model into stages; undefined: it does not.
 * @throws {ConfigError} when the file of a schedule cannot be read. */
function pipelineChoices(config: Config): PipelineChoices | undefined {
  const { parallelism: p, training } = config, file = p.pipeline_parallel_schedule_csv;
  if (p.pipeline_parallel_degree === 1) return undefined;
  return {
    schedule: file ? basename(file) : p.pipeline_parallel_schedule,
    csv: file ? readSchedule(file) : undefined,
    microbatches: training.local_batch_size / microbatchSize(config),
    layersPerStage: p.pipeline_parallel_layers_per_stage ?? undefined,
    firstLess: p.pipeline_parallel_first_stage_less_layers,
    lastLess: p.pipeline_parallel_last_stage_less_layers,
    modules: p.module_fqns_per_model_part ?? undefined,
  };
}

function readSchedule(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    throw new ConfigError([{
      code: "no_such_file",
      what: `parallelism.pipeline_parallel_schedule_csv: cannot read ${path}: ${(error as Error).message}`,
      expected: "a file with a line for each rank, of cells such as 0F0",
      fix: "correct the path, or name a schedule in parallelism.pipeline_parallel_schedule",
    }]);
  }
}

/** What a configuration leaves to choose within its mesh. */
export function meshChoices(config: Config): MeshChoices {
  const { parallelism } = config;
  return {
    pipeline: pipelineChoices(config),
    lossParallel: !parallelism.disable_loss_parallel,
    balancer: parallelism.context_parallel_load_balancer,
    rotateMethod: parallelism.context_parallel_rotate_method,
    asyncTensorParallel: parallelism.enable_async_tensor_parallel,
    reshard: { default: undefined, always: true, never: false }[parallelism.fsdp_reshard_after_forward],
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
