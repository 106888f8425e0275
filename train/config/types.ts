/**
 * A configuration in TypeScript: `config.training.seq_len` is `seq_len` under `[training]`, and `null` means "not set".
 * `schema.ts` says what each key is, and does not compile where the two disagree.
 * @module
 */
import type { Part } from "../checkpoint/policy.ts";
import type { DataConfig, DataloaderConfig } from "./data_keys.ts";
import type { ParallelismConfig } from "./parallelism_keys.ts";
import type { Float8LinearConfig, MxLinearConfig } from "./quantize_keys.ts";

export type { DataConfig, DataloaderConfig, Float8LinearConfig, MxLinearConfig, ParallelismConfig };

/** `[job]`: the run as a whole. */
export interface JobConfig {
  config_file: string | null;
  dump_folder: string;
  description: string;
  print_config: boolean;
  save_config_file: string | null;
}

/** `[profiling]`: where the time of a step goes. */
export interface ProfilingConfig {
  enable_profiling: boolean;
  save_traces_folder: string;
  profile_freq: number;
  profiler_active: number;
  profiler_warmup: number;
}

/** `[metrics]`: what is reported, and where. */
export interface MetricsConfig {
  log_freq: number;
  disable_color_printing: boolean;
  jsonl_file: string;
  enable_tensorboard: boolean;
  save_tb_folder: string;
  save_for_all_ranks: boolean;
  live: boolean;
  live_port: number;
  sample_freq: number;
  sample_prompt: string;
  sample_tokens: number;
}

/** `[model]`: which model. Every size that is `null` comes from the flavor. */
export interface ModelConfig {
  name: string;
  flavor: string;
  converters: ("quantize.linear.float8" | "quantize.linear.mx" | "float8" | "mx")[];
  attn_mask_type: "causal" | "block_causal" | null;
  hf_assets_path: string | null;
  dim: number | null;
  n_layers: number | null;
  n_heads: number | null;
  n_kv_heads: number | null;
  head_dim: number | null;
  multiple_of: number | null;
  ffn_dim_multiplier: number | null;
  ffn_hidden_dim: number | null;
  vocab_size: number | null;
  norm_eps: number | null;
  rope_theta: number | null;
  enable_weight_tying: boolean | null;
  rope_scaling_factor: number | null;
  rope_low_freq_factor: number | null;
  rope_high_freq_factor: number | null;
  rope_original_max_position_embeddings: number | null;
}

/** `[optimizer]`: AdamW with decoupled weight decay on all parameters. */
export interface OptimizerConfig {
  name: "AdamW";
  lr: number;
  beta1: number;
  beta2: number;
  eps: number;
  weight_decay: number;
  early_step_in_backward: boolean;
}

/** `[lr_scheduler]`: warm-up, stable phase, decay; `train/lr_schedule.ts` has the formulas. */
export interface LrSchedulerConfig {
  warmup_steps: number;
  total_steps: number | null;
  decay_ratio: number | null;
  decay_type: "linear" | "sqrt" | "cosine";
  min_lr_factor: number;
}

/** `[training]`: data, batch and length of the run. */
export interface TrainingConfig {
  dataset: string;
  dataset_path: string | null;
  local_batch_size: number;
  global_batch_size: number;
  seq_len: number;
  max_norm: number;
  steps: number;
  dtype: "float32" | "bfloat16" | "float64";
  mixed_precision_param: "auto" | "float32" | "bfloat16";
  mixed_precision_reduce: "float32" | "bfloat16";
  dataloader: Readonly<DataloaderConfig>;
}

/** `[comm]`: how ranks exchange. */
export interface CommConfig {
  init_timeout_seconds: number;
  train_timeout_seconds: number;
  trace_buf_size: number;
  save_traces_folder: string;
  save_traces_file_prefix: string;
  simulate: string;
}

/** `[activation_checkpoint]`: what backward makes again to save memory. */
export interface ActivationCheckpointConfig {
  mode: "none" | "full" | "selective" | "memory_budget";
  selective_ac_option: string;
  memory_budget: number | string;
  visualize_memory_budget_pareto: boolean;
}

/** `[checkpoint]`: what is saved of a run, and from what it goes on. */
export interface CheckpointConfig {
  enable: boolean;
  folder: string;
  interval: number;
  keep_latest_k: number;
  enable_first_step_checkpoint: boolean;
  last_save_model_only: boolean;
  last_save_in_hf: boolean;
  export_dtype: "float32" | "bfloat16" | "float16";
  async_mode: "disabled" | "async" | "async_with_pinned_mem";
  staging_limit: string | null;
  save_on_stop: boolean;
  create_seed_checkpoint: boolean;
  save_error: "warn" | "stop";
  load_only: boolean;
  load_step: number;
  exclude_from_loading: Part[];
  initial_load_path: string | null;
  initial_load_in_hf: boolean;
  initial_load_model_only: boolean;
  verify: boolean;
}

/** `[validation]`: loss on held-out text during training. */
export interface ValidationConfig {
  enable: boolean;
  dataset: string | null;
  dataset_path: string | null;
  local_batch_size: number;
  seq_len: number | null;
  freq: number;
  steps: number;
}

/** `[debug]`: reproducibility. */
export interface DebugConfig {
  seed: number;
}

/** `[device]`: where the run computes. */
export interface DeviceConfig {
  kind: "auto" | "cpu" | "cuda";
  tf32: boolean;
  threads: number;
}

/** A complete, checked configuration: every key has a value. */
export interface Config {
  readonly job: Readonly<JobConfig>;
  readonly profiling: Readonly<ProfilingConfig>;
  readonly metrics: Readonly<MetricsConfig>;
  readonly model: Readonly<ModelConfig>;
  readonly optimizer: Readonly<OptimizerConfig>;
  readonly lr_scheduler: Readonly<LrSchedulerConfig>;
  readonly training: Readonly<TrainingConfig>;
  readonly parallelism: Readonly<ParallelismConfig>;
  readonly comm: Readonly<CommConfig>;
  readonly activation_checkpoint: Readonly<ActivationCheckpointConfig>;
  readonly checkpoint: Readonly<CheckpointConfig>;
  readonly data: Readonly<DataConfig>;
  readonly validation: Readonly<ValidationConfig>;
  readonly debug: Readonly<DebugConfig>;
  readonly device: Readonly<DeviceConfig>;
  readonly quantize: {
    readonly linear: { readonly float8: Readonly<Float8LinearConfig>; readonly mx: Readonly<MxLinearConfig> };
  };
}
