/**
 * Every configuration key: its type, range, default, unit and meaning, one line each. Names are torchtitan's, so its
 * TOML files can be read; `[data]`, `[device]`, `metrics.jsonl_file`, `parallelism.fsdp_prefetch` and the sizes in `[model]` are
 * additions, as are the switches of `[checkpoint]` that torchtitan lacks.
 * The interfaces give the same names to TypeScript: `config.training.seq_len` is `seq_len` under `[training]`.
 * `null` means "not set". `--help` and the error messages are made from this table.
 * @module
 */
import { z } from "zod";
import { DEFAULT_FLAVOR } from "../../model/families.ts";
import { PARTS } from "../checkpoint/policy.ts";
import { BYTES } from "./bytes.ts";
import { dataKeys, dataloaderKeys } from "./data_keys.ts";
import {
  belowOne,
  count,
  countOrMinusOne,
  countOrZero,
  flag,
  fraction,
  key,
  notNegative,
  positive,
  section,
  size,
  text,
  within,
} from "./key_types.ts";
import { parallelismKeys } from "./parallelism_keys.ts";
import { converters, float8Keys, mxKeys } from "./quantize_keys.ts";
import type { Config } from "./types.ts";

export type * from "./types.ts";

const schema = z.strictObject({
  job: section("The run as a whole.", {
    config_file: key(text.nullable(), null, "TOML file to read; `--config` is short for it."),
    dump_folder: key(text, "./outputs", "Folder that receives everything the run writes; one run at a time has it."),
    description: key(z.string(), "default job", "Printed at the start of the run."),
    print_config: key(flag, false, "Print the configuration, with defaults filled in, as JSON at the start."),
    save_config_file: key(
      z.string().regex(/^(?!\/)(?!(.*\/)?\.\.(\/|$)).*[^/]\.(toml|json)$/).nullable()
        .meta({ expected: 'a relative path without .. that ends in .toml or .json, such as "config.toml"' }),
      null,
      "Write the configuration, with defaults filled in, to this file under job.dump_folder; that of an earlier run gets a number.",
    ),
  }),
  profiling: section("Where the time of a step goes: every instruction of some steps, recorded.", {
    enable_profiling: key(
      flag,
      false,
      "Print a table of kernels and write a trace for ui.perfetto.dev, cycle by cycle.",
    ),
    save_traces_folder: key(
      within.min(1),
      "profile_traces",
      "Folder of the traces, under job.dump_folder; that of an earlier run gets a number.",
    ),
    profile_freq: key(count, 10, "Length of a cycle: steps that are not recorded, warm-up, recorded steps.", "steps"),
    profiler_active: key(count, 1, "Steps at the end of a cycle that are kept.", "steps"),
    profiler_warmup: key(countOrZero, 3, "Steps before those that are recorded and thrown away.", "steps"),
  }),
  metrics: section("What is reported, and where.", {
    log_freq: key(count, 10, "Report at step 1 and then every so many steps.", "steps"),
    disable_color_printing: key(flag, false, "No colors, also on a terminal."),
    jsonl_file: key(
      within,
      "metrics.jsonl",
      'One JSON object per report, under job.dump_folder; that of an earlier run gets a number. "" writes none.',
    ),
    enable_tensorboard: key(flag, false, "Write the same numbers into event files for TensorBoard."),
    save_tb_folder: key(
      within.min(1),
      "tb",
      "Folder of the event files, under job.dump_folder: in it each run has one that is named for its first minute.",
    ),
    save_for_all_ranks: key(
      flag,
      false,
      "Every rank writes event files, into rank_N of the run's folder; else rank 0.",
    ),
    live: key(
      flag,
      false,
      "Serve a page on this machine on which one watches the run; its address is printed, and deno task view shows it later.",
    ),
    live_port: key(countOrZero.max(65_535), 0, "Port of that page; 0: one that is free."),
    sample_freq: key(
      countOrZero,
      0,
      "The model writes a text every so many steps, and behind the last; 0: none.",
      "steps",
    ),
    sample_prompt: key(z.string(), "", 'Text that it continues; "" begins a document.'),
    sample_tokens: key(count, 40, "Length of such a text, unless it ends by itself.", "tokens"),
  }),
  model: section("Which model is trained. A size that is not set comes from the flavor.", {
    name: key(text, DEFAULT_FLAVOR.name, "Model family."),
    flavor: key(
      text,
      DEFAULT_FLAVOR.flavor,
      'Size within the family, such as debugmodel or 8B; "hf": that of config.json or params.json in the folder of checkpoint.initial_load_in_hf, or of the file of GGUF.',
    ),
    converters: key(
      converters,
      [],
      "What is changed in the model: quantize.linear.float8 multiplies linear layers in float8, quantize.linear.mx in MXFP8 (float8 and mx are old names).",
    ),
    attn_mask_type: size(
      z.enum(["causal", "block_causal"]),
      "What attention sees: all that came before in the row, or of that the own document alone; not set, the latter where data.packing is documents or best-fit, or the data chat, and for flavors with flex or varlen in their name.",
    ),
    hf_assets_path: key(
      text.nullable(),
      null,
      "Folder with tokenizer.json or tokenizer.model (SentencePiece's or tiktoken's), or a file of GGUF; not set, the tokenizer that comes along.",
    ),
    dim: size(count, "Width of the residual stream."),
    n_layers: size(count, "Number of transformer blocks."),
    n_heads: size(count, "Query heads; must divide dim into heads of even size, unless head_dim is set."),
    n_kv_heads: size(count, "Key and value heads; must divide n_heads."),
    head_dim: size(count, "Size of a head, even; not set, dim / n_heads."),
    multiple_of: size(count, "The feed-forward width is rounded up to a multiple of this."),
    ffn_dim_multiplier: size(positive, "Scales the feed-forward width, 8/3 dim, before rounding."),
    ffn_hidden_dim: size(count, "Feed-forward width itself, in place of the two keys above."),
    vocab_size: size(count, "Rows of the embedding and of the output layer.", "tokens"),
    norm_eps: size(positive, "Added to the mean square in RMSNorm."),
    rope_theta: size(positive, "Base of the rotary frequencies."),
    enable_weight_tying: size(flag, "The output layer's weight is the embedding's: one parameter has both uses."),
    rope_scaling_factor: size(z.number().min(1), "Low rotary frequencies are stretched by this; 1 is off."),
    rope_low_freq_factor: size(positive, "Wavelengths above original / this are stretched in full."),
    rope_high_freq_factor: size(positive, "Wavelengths below original / this are left alone."),
    rope_original_max_position_embeddings: size(count, "Context length that the scaling starts from.", "tokens"),
  }),
  optimizer: section("AdamW; weight decay applies to all parameters.", {
    name: key(z.enum(["AdamW"]), "AdamW", "Update rule; Adam, which decays by way of the gradient, is not there."),
    lr: key(positive, 8e-4, "Peak learning rate; the schedule multiplies it."),
    beta1: key(belowOne, 0.9, "Decay of the first moment per step."),
    beta2: key(belowOne, 0.95, "Decay of the second moment per step."),
    eps: key(positive, 1e-8, "Added to the root of the second moment."),
    weight_decay: key(notNegative, 0.1, "Each step shrinks parameters by lr times this."),
    early_step_in_backward: key(
      flag,
      false,
      "Gradients are not clipped, as with torchtitan's update of each parameter in backward; here all are updated behind it.",
    ),
  }),
  lr_scheduler: section("Learning rate over the run: linear warm-up, stable phase, decay.", {
    warmup_steps: key(countOrZero, 200, "Length of the linear warm-up.", "steps"),
    total_steps: key(count.nullable(), null, "Length of the schedule; not set, training.steps.", "steps"),
    decay_ratio: key(fraction.nullable(), null, "Share of the steps that decays; not set, all after the warm-up."),
    decay_type: key(z.enum(["linear", "sqrt", "cosine"]), "linear", "Shape of the decay."),
    min_lr_factor: key(fraction, 0, "Where the decay ends, as a fraction of optimizer.lr."),
  }),
  training: section("Data, batch and length of the run.", {
    dataset: key(
      text,
      "c4_test",
      "Dataset by name: c4_test is a sample that comes along, c4 shards of C4, which without a path are streamed from the hub, text one's own .txt, .md and .jsonl, files any number of .jsonl, .json, .parquet, .bin and .txt as shards.",
    ),
    dataset_path: key(
      text.nullable(),
      null,
      "Folder or file to read the dataset from, in place of its own address; of text and files also a pattern, such as notes/*.md; of c4 and files also hf://datasets/ORG/NAME.",
    ),
    local_batch_size: key(count, 8, "Sequences that go through the model at once.", "sequences"),
    global_batch_size: key(
      countOrMinusOne,
      -1,
      "Sequences per optimizer step, a multiple of local_batch_size (gradients are accumulated); -1: the same.",
      "sequences",
    ),
    seq_len: key(count, 2048, "Length of a sequence.", "tokens"),
    max_norm: key(positive, 1, "Gradients are scaled down to this norm; a large value such as 1e9 never clips."),
    steps: key(count, 10_000, "Optimizer steps of the run.", "steps"),
    dtype: key(
      z.enum(["float32", "bfloat16", "float64"]),
      "float32",
      "Type of parameters, gradient sums and moments; float64 is for tests: everything is then computed in it.",
    ),
    mixed_precision_param: key(
      z.enum(["auto", "float32", "bfloat16"]),
      "auto",
      "What products take; their sums are float32. auto: bfloat16 where the processor multiplies it faster, else float32.",
    ),
    mixed_precision_reduce: key(
      z.enum(["float32", "bfloat16"]),
      "float32",
      "What a microbatch's gradients are rounded to before they are summed.",
    ),
    dataloader: dataloaderKeys,
  }),
  parallelism: parallelismKeys,
  comm: section(
    "How ranks exchange. One that waits too long for another ends the run, and says for whom and what each did last.",
    {
      init_timeout_seconds: key(positive, 300, "For joining, loading programs, and the first step.", "seconds"),
      train_timeout_seconds: key(positive, 100, "For every collective after that.", "seconds"),
      trace_buf_size: key(
        z.int().min(0).max(1_000_000),
        32,
        "Last collectives that are remembered of each rank; 0: none.",
        "collectives",
      ),
      save_traces_folder: key(
        within.min(1),
        "comm_traces",
        "Folder that they are written to when a run ends so, under job.dump_folder.",
      ),
      save_traces_file_prefix: key(z.string(), "rank_", "Name of such a file, but for the rank."),
      simulate: key(
        z.string().regex(/^$|^\d+(\.\d+)? ?[KMGT]?i?B\/s, ?\d+(\.\d+)? ?(ns|us|ms|s)$/).meta({
          expected: '"" or bandwidth and latency such as "10GB/s,5us"',
        }),
        "",
        'A link such as "10GB/s,5us" to imitate: no collective is faster than messages over it would be. "": none.',
      ),
    },
  ),
  activation_checkpoint: section(
    "What is made again in backward instead of being kept since forward, to save memory.",
    {
      mode: key(
        z.enum(["none", "full", "selective", "memory_budget"]),
        "none",
        "What is made again: norms and element-wise work alone, whole blocks, some of it, or as much as the budget wants.",
      ),
      selective_ac_option: key(
        z.string().regex(/^(op|\d+)$/).meta({ expected: '"op" or a whole number in quotes' }),
        "2",
        'selective: "2" makes every second block again; "op" every second product of each block, but not attention.',
      ),
      memory_budget: key(
        z.union([fraction, z.string().regex(BYTES)]).meta({
          expected: 'a number >= 0 and <= 1 or bytes such as "3GiB"',
        }),
        0.5,
        "memory_budget: from 0, all is made again that can be, to 1, as mode none; or bytes of the arena, states and all.",
      ),
      visualize_memory_budget_pareto: key(flag, false, "--dry-run also prints what each memory budget costs."),
    },
  ),
  checkpoint: section("What is saved of a run, and from what it goes on: the same command goes on where it stopped.", {
    enable: key(flag, false, "Save the run, and go on from the latest checkpoint where there is one."),
    folder: key(
      within.min(1),
      "checkpoint",
      "Folder of the checkpoints, under job.dump_folder: step-N in it is that of step N.",
    ),
    interval: key(count, 500, "Save every so many steps; the last step is always saved.", "steps"),
    keep_latest_k: key(
      countOrZero,
      10,
      "Older checkpoints are deleted, but never the last that a run can go on from; 0 keeps all.",
    ),
    enable_first_step_checkpoint: key(
      flag,
      false,
      "Save the first step too: what is wrong with the disk shows at once.",
    ),
    last_save_model_only: key(flag, true, "The last step saves parameters alone, from which no longer run goes on."),
    last_save_in_hf: key(
      flag,
      false,
      "It saves them as a folder that transformers opens, with the files of the tokenizer (model.hf_assets_path).",
    ),
    export_dtype: key(
      z.enum(["float32", "bfloat16", "float16"]),
      "float32",
      "Element type of the parameters that the last step saves alone; the run's own where a value is beyond what float16 has.",
    ),
    async_mode: key(
      z.enum(["disabled", "async", "async_with_pinned_mem"]),
      "disabled",
      "async: training goes on while a checkpoint is written, but for the last one; async_with_pinned_mem is the same here.",
    ),
    staging_limit: key(
      z.string().regex(BYTES).nullable().meta({ expected: 'bytes such as "2GiB"' }),
      null,
      "async: the most of a rank's state that is copied ahead of the disk; not set, all of it, as far as memory allows.",
    ),
    save_on_stop: key(flag, true, "A run that is stopped by Ctrl-C or SIGTERM is saved first."),
    create_seed_checkpoint: key(
      flag,
      false,
      "Save the initial parameters as step-0, and end: other runs may begin with them (the same seed draws the same ones).",
    ),
    save_error: key(
      z.enum(["warn", "stop"]),
      "warn",
      "When a save fails, go on with a warning, or stop. The save of the last step, or of a run that is stopped, always stops.",
    ),
    load_only: key(flag, false, "Go on from a checkpoint, but save nothing."),
    load_step: key(
      z.union([z.literal(-1), countOrZero]),
      -1,
      "Go on from the checkpoint of this step; -1: the latest.",
      "steps",
    ),
    exclude_from_loading: key(
      z.array(z.enum(PARTS)).meta({ expected: `a list of ${PARTS.join(", ")}` }),
      [],
      "Parts that begin anew: model, optimizer, lr_scheduler, dataloader, train_state (steps and tokens seen).",
    ),
    initial_load_path: key(
      text.nullable(),
      null,
      "Checkpoint to begin from where checkpoint.folder has none: a folder step-N.",
    ),
    initial_load_in_hf: key(
      flag,
      false,
      "That is a folder of a model in safetensors, as transformers saves it or under Meta's names, or a file of GGUF; not set, it is model.hf_assets_path.",
    ),
    initial_load_model_only: key(flag, true, "Take parameters alone from there."),
    verify: key(flag, true, "Compare what is read with the hashes that it was written with."),
  }),
  data: dataKeys,
  validation: section("Loss on held-out text during training.", {
    enable: key(flag, false, "Validate at step 1, every validation.freq steps, and at the last step."),
    dataset: key(
      text.nullable(),
      null,
      "Dataset by name; not set, c4_validation, which is the hub's where C4 is streamed, or where text is trained on, that of validation.dataset_path, or else a share of 5 % of its documents, which is not trained on.",
    ),
    dataset_path: key(
      text.nullable(),
      null,
      "Folder or file to read the dataset from, in place of its own address; of text also a pattern.",
    ),
    local_batch_size: key(count, 8, "Sequences that go through the model at once.", "sequences"),
    seq_len: key(count.nullable(), null, "Length of a sequence; not set, that of training.seq_len.", "tokens"),
    freq: key(count, 10, "Steps between validations.", "steps"),
    steps: key(countOrMinusOne, -1, "Batches per validation; -1: the whole dataset.", "batches"),
  }),
  debug: section("Reproducibility.", {
    seed: key(countOrZero, 0, "Seed of the initial weights and of the order of text: the same seed, the same run."),
  }),
  device: section("Where the run computes.", {
    kind: key(z.enum(["auto", "cpu", "cuda"]), "auto", "cpu, cuda (an NVIDIA GPU), or auto: a GPU where one is found."),
    tf32: key(flag, false, "On a GPU, round what products of f32 take to TF32, which tensor cores multiply."),
    threads: key(
      countOrZero.max(4096),
      0,
      "CPU threads; 0: one per core, as far as the CPU quota keeps them busy, in equal shares for the ranks of a host.",
      "threads",
    ),
  }),
  quantize: section("What is multiplied in fewer bits.", {
    linear: section("Linear layers.", { float8: float8Keys, mx: mxKeys }),
  }),
});

/** Checks a nested object of values and fills in defaults. */
export const configSchema: z.ZodType<Config> = schema;

type Same<A, B> = [A, B] extends [B, A] ? true : never;
/** Does not compile when the interfaces above and the table disagree. */
const _interfaceMatchesSchema: Same<z.output<typeof schema>, Config> = true;
