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
  "model.converters": [[]],
  "model.print_after_conversion": [false],
  "optimizer.early_step_in_backward": [false],
  "training.enable_cpu_offload": [false],
  "training.dataloader.num_workers": [0],
  "validation.dataloader.num_workers": [0],
  "parallelism.expert_tensor_parallel_degree": [1],
  "parallelism.expert_parallel_comm_backend": ["standard"],
  "checkpoint.initial_load_in_hf_quantized": [false],
  "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns": [["moe.router.gate"], []],
  "activation_checkpoint.debug": [false],
  "comm.mode": ["default"],
  "memory_estimation.enable": [false],
  "fault_tolerance.enable": [false],
  "experimental.custom_import": [""],
  "experimental.custom_args_module": [""],
  "debug.moe_force_load_balance": [false],
};

/** Why, where there is more to say than that this version does not have it: of a key, or of all keys of a section. */
const reasons: Readonly<Record<string, string>> = {
  "profiling.enable_memory_snapshot":
    "makes no sense here: all memory is planned before the run, and none is allocated during it; --dry-run prints the plan",
  "training.enable_cpu_offload":
    "makes no sense here: the device is the CPU, and its memory holds parameters and moments already",
};

/** Keys and sections that change what a run writes or reads, but nothing of its plan. */
const notPlanned: readonly string[] = [
  ...["profiling", "metrics", "checkpoint", "memory_estimation"],
  ...["training.dataloader", "validation.dataloader"],
];

/** Keys that tune a missing feature, by the key that would switch it on: the values of torchtitan's defaults and files. */
const tuning: Readonly<Record<string, Readonly<Record<string, readonly unknown[]>>>> = {
  "profiling.enable_memory_snapshot": { "profiling.save_memory_snapshot_folder": ["memory_snapshot"] },
  "training.dataloader.num_workers": {
    "training.dataloader.persistent_workers": [false],
    "training.dataloader.prefetch_factor": [null],
  },
  "validation.dataloader.num_workers": {
    "validation.dataloader.persistent_workers": [false],
    "validation.dataloader.prefetch_factor": [null],
  },
  "parallelism.pipeline_parallel_degree": {
    "parallelism.module_fqns_per_model_part": [null],
    "parallelism.pipeline_parallel_first_stage_less_layers": [1],
    "parallelism.pipeline_parallel_last_stage_less_layers": [1],
    "parallelism.pipeline_parallel_layers_per_stage": [null],
    "parallelism.pipeline_parallel_schedule": ["1F1B", "Interleaved1F1B"],
    "parallelism.pipeline_parallel_schedule_csv": ["", null],
    "parallelism.pipeline_parallel_microbatch_size": [1],
    "parallelism.pipeline_parallel_expert_parallel_overlap": [true],
  },
  "model.converters": {
    "quantize.linear.float8.enable_fsdp_float8_all_gather": [false],
    "quantize.linear.float8.precompute_float8_dynamic_scale_for_fsdp": [false],
    "quantize.linear.float8.recipe_name": [null],
    "quantize.linear.float8.filter_fqns": [[], ["output"]],
    "quantize.linear.float8.emulate": [false],
    "quantize.linear.mx.mxfp8_dim1_cast_kernel_choice": ["triton"],
    "quantize.linear.mx.recipe_name": ["mxfp8_cublas"],
    "quantize.linear.mx.filter_fqns": [["output"]],
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

/**
 * Keys that change nothing here whatever they say, with torchtitan's defaults: they tune what has no counterpart (a step
 * is always compiled and always repeatable, it makes no garbage, and its host memory is that of the device).
 */
const withoutEffect: Readonly<Record<string, unknown>> = {
  "optimizer.implementation": "fused",
  "training.gc_freq": 50,
  "training.gc_debug": false,
  "training.dataloader.pin_memory": false,
  "validation.dataloader.pin_memory": false,
  "activation_checkpoint.early_stop": false,
  "activation_checkpoint.preserve_rng_state": true,
  "activation_checkpoint.determinism_check": "default",
  "compile.enable": false,
  "compile.components": ["model", "loss"],
  "compile.backend": "inductor",
  "debug.deterministic": false,
  "debug.deterministic_warn_only": false,
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
  "training.seed": "write debug.seed",
  "training.deterministic": "write debug.deterministic",
  "training.compile": "write compile.enable",
  "training.fp8_linear": "write model.converters",
  "training.data_parallel_type": "write parallelism.data_parallel_shard_degree or data_parallel_replicate_degree",
  "training.data_parallel_degree": "write parallelism.data_parallel_shard_degree",
  "training.data_parallel_shard_degree": "write parallelism.data_parallel_shard_degree",
  "training.fsdp_reshard_after_forward": "write parallelism.fsdp_reshard_after_forward",
  "training.data_parallel_replicate_degree": "write parallelism.data_parallel_replicate_degree",
  "training.sequence_parallel_degree": "write parallelism.tensor_parallel_degree",
  "training.tensor_parallel_degree": "write parallelism.tensor_parallel_degree",
  "training.pipeline_parallel_degree": "write parallelism.pipeline_parallel_degree",
  "training.checkpoint_interval": "write checkpoint.interval",
  "training.checkpoint_folder": "write checkpoint.folder",
  "lr_scheduler.lr_min": "write lr_scheduler.min_lr_factor",
  "experimental.pipeline_parallel_degree": "write parallelism.pipeline_parallel_degree",
  "experimental.context_parallel_degree": "write parallelism.context_parallel_degree",
  "experimental.enable_async_tensor_parallel": "write parallelism.enable_async_tensor_parallel",
  "experimental.custom_model_path": "write experimental.custom_import",
  "checkpoint.enable_checkpoint": "write checkpoint.enable",
  "checkpoint.model_weights_only": "write checkpoint.last_save_model_only",
  "checkpoint.interval_type": "delete it: intervals are counted in steps",
  "memory_estimation.enabled": "write memory_estimation.enable",
};

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
  | { readonly is: "without effect" }
  | { readonly is: "renamed"; readonly fix: string };

/** Our keys and sections that torchtitan does not have. */
const additions: readonly string[] = [
  ...["data", "device"],
  ...["metrics.jsonl_file", "metrics.sample_freq", "metrics.sample_prompt", "metrics.sample_tokens"],
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
  if (Object.hasOwn(withoutEffect, name)) return { is: "without effect" };
  if (Object.hasOwn(renamed, name)) return { is: "renamed", fix: renamed[name] };
  return undefined;
}

/** How the command line reads the value of such a key. */
export function foreignKind(name: string): Kind {
  const example = (tuned.get(name)?.off ?? offValues[name] ?? [withoutEffect[name]])[0];
  if (Array.isArray(example)) return "list";
  return typeof example === "boolean" || typeof example === "number" ? typeof example as Kind : "string";
}

/** The names that a configuration may hold although our schema does not. */
export function foreignNames(): string[] {
  return [...Object.keys(offValues), ...tuned.keys(), ...Object.keys(withoutEffect)];
}
