/**
 * Keys of torchtitan (v0.2.2 and before) that are not in our schema. None is swallowed in silence: a feature that is
 * not there yet may only be off, what tunes it may be set where it is said to be off, and an old name is an error that
 * tells the new one.
 * @module
 */

/** How the command line reads a value. */
export type Kind = "boolean" | "number" | "string" | "list";

/** Keys that ask for a missing feature: the values that do not. An error proposes the first. */
const offValues: Readonly<Record<string, readonly unknown[]>> = {
  "job.custom_config_module": [""],
  "profiling.enable_memory_snapshot": [false],
  "metrics.enable_wandb": [false],
  "validation.dataloader.num_workers": [0],
  "parallelism.expert_tensor_parallel_degree": [1],
  "parallelism.expert_parallel_comm_backend": ["standard"],
  "checkpoint.initial_load_in_hf_quantized": [false],
  "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns": [["moe.router.gate"], []],
  "comm.mode": ["default"],
  "memory_estimation.enable": [false],
  "fault_tolerance.enable": [false],
  "experimental.custom_import": [""],
  "experimental.custom_args_module": [""],
  "debug.moe_force_load_balance": [false],
};

const OF_PYTHON = "names a module of Python, and none runs here: a program imports this package instead";
const OF_EXPERTS = "is for models with experts, and no flavor has any";

/** Why, where there is more to say than that this version does not have it: of a key, or of all keys of a section. */
const reasons: Readonly<Record<string, string>> = {
  "job.custom_config_module": OF_PYTHON,
  "profiling.enable_memory_snapshot":
    "makes no sense here: all memory is planned before the run, and none is allocated during it; --dry-run prints the plan",
  "metrics.enable_wandb":
    "needs the library of Weights & Biases, which is of Python: docs/watch.md tells how to send metrics.jsonl there",
  "parallelism.expert_tensor_parallel_degree": OF_EXPERTS,
  "parallelism.expert_parallel_comm_backend": OF_EXPERTS,
  "checkpoint.initial_load_in_hf_quantized":
    "is for weights in quantized blocks of safetensors, which no model here has; quantized weights are read from files of GGUF",
  "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns":
    'is not supported yet by this version; mode "memory_budget" finds what is cheapest to make again',
  "comm.mode": "imitates ranks for a test; --dry-run --nproc N plans a step for N ranks, and --nproc N starts them",
  "memory_estimation.enable": "ends before the first step; --dry-run prints what a run takes, to the byte",
  "fault_tolerance":
    "is of torchft; here --restarts N starts ranks that failed anew from the newest checkpoint, with --elastic fewer of them",
  "experimental.custom_import": OF_PYTHON,
  "experimental.custom_args_module": OF_PYTHON,
  "debug.moe_force_load_balance": OF_EXPERTS,
};

/** Keys and sections that change what a run writes or reads, but nothing of its plan. */
const notPlanned: readonly string[] = [
  ...["profiling", "metrics", "checkpoint", "memory_estimation"],
  "validation.dataloader",
];

/** Keys that tune a missing feature, by the key that would switch it on: the values of torchtitan's defaults and files. */
const tuning: Readonly<Record<string, Readonly<Record<string, readonly unknown[]>>>> = {
  "profiling.enable_memory_snapshot": { "profiling.save_memory_snapshot_folder": ["memory_snapshot"] },
  "validation.dataloader.num_workers": {
    "validation.dataloader.persistent_workers": [false],
    "validation.dataloader.prefetch_factor": [null],
  },
  "model.converters": {
    "quantize.grouped_mm.float8.fqns": [[]],
    "quantize.grouped_mm.mx.recipe_name": ["mxfp8"],
    "quantize.grouped_mm.mx.fqns": [[]],
  },
  "memory_estimation.enable": { "memory_estimation.disable_fake_mode": [false] },
  "fault_tolerance.enable": {
    "checkpoint.enable_ft_dataloader_checkpoints": [true],
    "fault_tolerance.process_group": ["gloo"],
    "fault_tolerance.process_group_timeout_ms": [10000],
    "fault_tolerance.replica_id": [0],
    "fault_tolerance.group_size": [0],
    "fault_tolerance.min_replica_size": [1],
    "fault_tolerance.semi_sync_method": [null],
  },
};

/** The same by the key that tunes. */
const tuned: ReadonlyMap<string, { readonly feature: string; readonly off: readonly unknown[] }> = new Map(
  Object.entries(tuning).flatMap(([feature, keys]) =>
    Object.entries(keys).map(([name, off]) => [name, { feature, off }] as const)
  ),
);

const COMPILED = "every step is compiled, by this library";
const REPEATS = "every run repeats, bit for bit";

/** Keys that change nothing here, whatever they say: torchtitan's default, and why. */
const withoutEffect: Readonly<Record<string, { readonly usual: unknown; readonly why: string }>> = {
  "model.print_after_conversion": { usual: false, why: "TITAN_PRINT shows graphs behind each pass" },
  "optimizer.implementation": { usual: "fused", why: "AdamW of all parameters is one kernel" },
  "training.enable_cpu_offload": { usual: false, why: "the device is the CPU, whose memory holds all states" },
  "training.gc_freq": { usual: 50, why: "a step leaves nothing to collect" },
  "training.gc_debug": { usual: false, why: "a step leaves nothing to collect" },
  "training.dataloader.persistent_workers": { usual: false, why: "workers stay for the whole run" },
  "training.dataloader.pin_memory": { usual: false, why: "the device reads batches where they are" },
  "validation.dataloader.pin_memory": { usual: false, why: "the device reads batches where they are" },
  "activation_checkpoint.early_stop": { usual: false, why: "no more is made again than is needed" },
  "activation_checkpoint.preserve_rng_state": { usual: true, why: "no op of a step draws random numbers" },
  "activation_checkpoint.determinism_check": { usual: "default", why: "what is made again has the same bits" },
  "activation_checkpoint.debug": { usual: false, why: "TITAN_PRINT shows what is made again" },
  "parallelism.pipeline_parallel_expert_parallel_overlap": {
    usual: true,
    why: "transfers go on beside all that does not need them",
  },
  "compile.enable": { usual: false, why: COMPILED },
  "compile.components": { usual: ["model", "loss"], why: COMPILED },
  "compile.backend": { usual: "inductor", why: COMPILED },
  "quantize.linear.mx.mxfp8_dim1_cast_kernel_choice": { usual: "triton", why: "kernels cast along any dim" },
  "debug.deterministic": { usual: false, why: REPEATS },
  "debug.deterministic_warn_only": { usual: false, why: REPEATS },
};

/** Old name -> what to do, in the imperative. */
const renamed: Readonly<Record<string, string>> = {
  "job.print_args": "write job.print_config",
  "job.use_for_integration_test": "delete it",
  "profiling.run_profiler": "write profiling.enable_profiling",
  "profiling.profile_every_x_iter": "write profiling.profile_freq",
  "metrics.enable_color_printing": "write metrics.disable_color_printing with the opposite value",
  "metrics.rank_0_only": "write metrics.save_for_all_ranks with the opposite value",
  "model.norm_type": "delete it: the norm is always RMSNorm",
  "model.tokenizer_path": "write model.hf_assets_path, the folder that holds tokenizer.json",
  "optimizer.fused": "write optimizer.implementation",
  "training.batch_size": "write training.local_batch_size",
  "training.warmup_steps": "write lr_scheduler.warmup_steps",
  "training.compile": "write compile.enable",
  "training.fp8_linear": "write model.converters",
  "training.data_parallel_type": "write parallelism.data_parallel_shard_degree or data_parallel_replicate_degree",
  "training.data_parallel_degree": "write parallelism.data_parallel_shard_degree",
  "training.sequence_parallel_degree": "write parallelism.tensor_parallel_degree",
  "training.checkpoint_interval": "write checkpoint.interval",
  "training.checkpoint_interval_type": "delete it: intervals are counted in steps",
  "training.checkpoint_folder": "write checkpoint.folder",
  "lr_scheduler.lr_min": "write lr_scheduler.min_lr_factor",
  "experimental.custom_model_path": "write experimental.custom_import",
  "float8.enable_float8_linear": "write model.converters",
  "checkpoint.enable_checkpoint": "write checkpoint.enable",
  "checkpoint.model_weights_only": "write checkpoint.last_save_model_only",
  "checkpoint.last_save_model_weights_only": "write checkpoint.last_save_model_only",
  "checkpoint.initial_load_model_weights_only": "write checkpoint.initial_load_model_only",
  "checkpoint.interval_type": "delete it: intervals are counted in steps",
  "memory_estimation.enabled": "write memory_estimation.enable",
  ...moved("training", "debug", ["seed", "deterministic"]),
  ...moved("training", "parallelism", [
    ...["data_parallel_shard_degree", "data_parallel_replicate_degree", "fsdp_reshard_after_forward"],
    ...["tensor_parallel_degree", "pipeline_parallel_degree", "disable_loss_parallel"],
  ]),
  ...moved("experimental", "parallelism", [
    ...["pipeline_parallel_degree", "pipeline_parallel_schedule", "pipeline_parallel_schedule_csv"],
    ...["context_parallel_degree", "context_parallel_rotate_method", "enable_async_tensor_parallel"],
  ]),
  ...Object.fromEntries(["experimental", "parallelism"].flatMap((section) => [
    [`${section}.pipeline_parallel_microbatches`, "write parallelism.pipeline_parallel_microbatch_size, in sequences"],
    [`${section}.pipeline_parallel_split_points`, "write parallelism.module_fqns_per_model_part"],
    [`${section}.enable_compiled_autograd`, `delete it: ${COMPILED}`],
  ])),
  ...moved("float8", "quantize.linear.float8", [
    ...["enable_fsdp_float8_all_gather", "precompute_float8_dynamic_scale_for_fsdp", "recipe_name", "filter_fqns"],
    "emulate",
  ]),
  ...Object.fromEntries(
    ["force_recompute_fp8_weight_in_bwd", "scaling_type_input", "scaling_type_weight", "scaling_type_grad_output"]
      .map((key) => [`float8.${key}`, "delete it: scales follow from each tensor, and weights are rounded anew"]),
  ),
  ...moved("mx", "quantize.linear.mx", ["mxfp8_dim1_cast_kernel_choice", "recipe_name", "filter_fqns"]),
};

/** Keys that went from one section to another under the same name. */
function moved(from: string, to: string, keys: readonly string[]): Record<string, string> {
  return Object.fromEntries(keys.map((key) => [`${from}.${key}`, `write ${to}.${key}`]));
}

/** What we make of a key that is torchtitan's and not ours. */
export type ForeignKey =
  | {
    /** `tuning` is of a missing feature too, but for one whose key says that it is off. */
    readonly is: "missing feature" | "tuning";
    /** The key that switches the feature on: of `tuning` another one than this. */
    readonly feature: string;
    /** Values that ask for nothing. */
    readonly off: readonly unknown[];
    readonly why: string;
    /** Would it change the plan of a step? */
    readonly planned: boolean;
  }
  | { readonly is: "without effect"; /** torchtitan's default. */ readonly usual: unknown; readonly why: string }
  | { readonly is: "renamed"; readonly fix: string };

/** Our keys and sections that torchtitan does not have. */
const additions: readonly string[] = [
  ...["data", "device"],
  ...[
    "metrics.jsonl_file",
    "metrics.live",
    "metrics.live_port",
    "metrics.sample_freq",
    "metrics.sample_prompt",
    "metrics.sample_tokens",
  ],
  ...["attn_mask_type", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "multiple_of", "ffn_dim_multiplier"]
    .map((key) => `model.${key}`),
  ...["ffn_hidden_dim", "vocab_size", "norm_eps", "rope_theta", "enable_weight_tying"].map((key) => `model.${key}`),
  ...["scaling_factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
    .map((key) => `model.rope_${key}`),
  ...["parallelism.fsdp_prefetch", "comm.simulate"],
  ...["staging_limit", "save_on_stop", "save_error", "verify"].map((key) => `checkpoint.${key}`),
];

/** Is a key of our schema ours alone, and not torchtitan's? */
export function isAddition(name: string): boolean {
  return additions.some((place) => name === place || name.startsWith(`${place}.`));
}

/** Looks a dotted name up; undefined when torchtitan does not know it either. */
export function foreignKey(name: string): ForeignKey | undefined {
  const isIn = (place: string) => name === place || name.startsWith(`${place}.`);
  const reason = Object.keys(reasons).find(isIn), planned = !notPlanned.some(isIn);
  const why = reason === undefined ? "is not supported yet by this version" : reasons[reason];
  const tunes = tuned.get(name);
  if (tunes) return { is: "tuning", ...tunes, why, planned };
  if (Object.hasOwn(offValues, name)) {
    return { is: "missing feature", feature: name, off: offValues[name], why, planned };
  }
  if (Object.hasOwn(withoutEffect, name)) return { is: "without effect", ...withoutEffect[name] };
  if (Object.hasOwn(renamed, name)) return { is: "renamed", fix: renamed[name] };
  return undefined;
}

/** How the command line reads the value of such a key. */
export function foreignKind(name: string): Kind {
  const example = (tuned.get(name)?.off ?? offValues[name] ?? [withoutEffect[name]?.usual])[0];
  if (Array.isArray(example)) return "list";
  return typeof example === "boolean" || typeof example === "number" ? typeof example as Kind : "string";
}

/** The names that a configuration may hold although our schema does not. */
export function foreignNames(): string[] {
  return [...Object.keys(offValues), ...tuned.keys(), ...Object.keys(withoutEffect)];
}
