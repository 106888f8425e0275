import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ConfigError, loadConfig, meshChoices, rematPolicy } from "../../../train/config/config.ts";
import { foreignKey, foreignNames } from "../../../train/config/torchtitan.ts";
import { vocabulary } from "../../../train/config/vocabulary.ts";

const load = (text: string) => loadConfig(["--config", "my.toml"], () => text);
const set = (name: string, value: unknown) => {
  const [, section, key] = /^(.*)\.([^.]+)$/.exec(name)!;
  return load(`[${section}]\n${key} = ${JSON.stringify(value)}`);
};

/** What torchtitan v0.2.2 sets in the file of its debug model. */
const debugModel = `
[job]
dump_folder = "./outputs"
description = "Llama 3 debug training"
print_config = false
[profiling]
enable_profiling = false
save_traces_folder = "profile_trace"
profile_freq = 10
enable_memory_snapshot = false
save_memory_snapshot_folder = "memory_snapshot"
[metrics]
log_freq = 1
disable_color_printing = false
enable_tensorboard = false
save_tb_folder = "tb"
enable_wandb = false
[model]
name = "llama3"
flavor = "debugmodel"
hf_assets_path = "./tests/assets/tokenizer"
[optimizer]
name = "AdamW"
lr = 8e-4
eps = 1e-8
[lr_scheduler]
warmup_steps = 2
decay_ratio = 0.8
decay_type = "linear"
min_lr_factor = 0.0
[training]
local_batch_size = 8
seq_len = 2048
max_norm = 1.0
steps = 10
dataset = "c4_test"
[parallelism]
data_parallel_replicate_degree = 1
data_parallel_shard_degree = -1
fsdp_reshard_after_forward = "default"
tensor_parallel_degree = 1
enable_async_tensor_parallel = false
pipeline_parallel_degree = 1
pipeline_parallel_schedule = "Interleaved1F1B"
context_parallel_degree = 1
[checkpoint]
enable = false
folder = "checkpoint"
interval = 10
last_save_model_only = false
export_dtype = "float32"
async_mode = "disabled"
[activation_checkpoint]
mode = "selective"
selective_ac_option = '2'
[compile]
enable = false
components = ["model", "loss"]
[quantize.linear.float8]
enable_fsdp_float8_all_gather = false
precompute_float8_dynamic_scale_for_fsdp = false
filter_fqns = ["output"]
[validation]
enable = false
dataset = "c4_validation"
freq = 5
steps = 10
`;

Deno.test("torchtitan's debug model runs as it is", async () => {
  const { config, warnings } = await load(debugModel);
  assertEquals(rematPolicy(config), { mode: "selective", option: 2 });
  assertEquals([config.training.steps, config.optimizer.lr, config.lr_scheduler.decay_ratio], [10, 8e-4, 0.8]);
  assertEquals([config.validation.freq, config.model.hf_assets_path], [5, "./tests/assets/tokenizer"]);
  assertEquals(warnings, []);
});

Deno.test("a feature that is missing may be off, and nothing else", async (t) => {
  for (const name of foreignNames()) {
    const key = foreignKey(name)!;
    if (key.is !== "missing feature") continue;
    await t.step(name, async () => {
      for (const value of key.off) if (value !== null) await set(name, value);
      const error = await assertRejects(() => set(name, "on"), ConfigError);
      assertStringIncludes(error.message, `${name} = "on" (my.toml:2) ${key.why}\n`);
    });
  }
});

Deno.test("parameters are gathered again for backward unless that is never to be, and CPU offload has nowhere to go", async () => {
  const choices = async (key: string, value: unknown) => meshChoices((await set(`parallelism.${key}`, value)).config);
  const reshard = (value: string) => choices("fsdp_reshard_after_forward", value).then((c) => c.reshard);
  assertEquals([await reshard("default"), await reshard("always"), await reshard("never")], [true, true, false]);
  assertEquals((await choices("fsdp_prefetch", 2)).prefetch, 2);
  const error = await assertRejects(() => set("training.enable_cpu_offload", true), ConfigError);
  assertStringIncludes(error.message, "makes no sense here: the device is the CPU");
});

Deno.test("memory snapshots are refused with the reason", async () => {
  const error = await assertRejects(() => set("profiling.enable_memory_snapshot", true), ConfigError);
  assertEquals(
    error.message,
    "profiling.enable_memory_snapshot = true (my.toml:2) makes no sense here: all memory is planned before the run, and none is " +
      "allocated during it; --dry-run prints the plan\n" +
      "  expected: false\n" +
      "  fix: write false, or leave the key out   (not_supported_yet)",
  );
});

Deno.test("a key that tunes what there is not is refused, unless its feature is said to be off", async (t) => {
  for (const name of foreignNames()) {
    const key = foreignKey(name)!;
    if (key.is !== "tuning") continue;
    await t.step(name, async () => {
      for (const value of key.off) if (value !== null) await set(name, value);
      const error = await assertRejects(() => set(name, "mine"), ConfigError);
      assertStringIncludes(error.message, `${name} = "mine" (my.toml:2) ${key.why}\n`);
      const ours = vocabulary().keys.get(key.feature), feature = foreignKey(key.feature);
      const off = ours?.default ?? (feature?.is === "missing feature" ? feature.off[0] : undefined);
      await load(`${key.feature} = ${JSON.stringify(off)}\n${name} = "mine"`);
    });
  }
});

Deno.test("keys of checkpoints are torchtitan's, with its defaults; what is not there yet is refused by name", async () => {
  const text = '[checkpoint]\nenable = true\nexclude_from_loading = ["lr_scheduler", "dataloader", "optimizer"]';
  const { config: { checkpoint } } = await load(text);
  const { enable, interval, keep_latest_k, last_save_model_only, exclude_from_loading } = checkpoint;
  assertEquals(
    { enable, interval, keep_latest_k, last_save_model_only, exclude_from_loading },
    {
      ...{ enable: true, interval: 500, keep_latest_k: 10, last_save_model_only: true },
      exclude_from_loading: ["lr_scheduler", "dataloader", "optimizer"],
    },
  );
  const typed = await loadConfig(
    ["--checkpoint.enable", "--checkpoint.exclude_from_loading", "optimizer,model"],
    () => "",
  );
  assertEquals(typed.config.checkpoint.exclude_from_loading, ["optimizer", "model"]);
  for (
    const missing of [
      "initial_load_in_hf_quantized = true",
    ]
  ) {
    const { message } = await assertRejects(() => load(`checkpoint.${missing}`), ConfigError);
    assertStringIncludes(message, `checkpoint.${missing} (my.toml:1) is not supported yet`);
  }
  await assertRejects(() => load('checkpoint.exclude_from_loading = ["data_loader"]'), ConfigError, "dataloader");
});

Deno.test("a key of checkpoints without checkpoints is told to have no effect, not taken in silence", async () => {
  const { warnings } = await loadConfig(["--checkpoint.load_step", "10"], () => "");
  assertEquals(warnings, ["checkpoint.load_step has no effect: it needs checkpoint.enable"]);
});

Deno.test("a feature that is on is refused once, and not again for each key that tunes it", async () => {
  const text = '[fault_tolerance]\nenable = true\nprocess_group = "nccl"\nreplica_id = 3';
  assertEquals((await assertRejects(() => load(text), ConfigError)).problems.length, 1);
});

Deno.test("a plan is made of what does not change it, and says that a run would be refused", async () => {
  const plan = (text: string) => loadConfig(["--config", "my.toml", "--dry-run"], () => text);
  const { warnings } = await plan(
    "metrics.enable_wandb = true\ncheckpoint.initial_load_in_hf_quantized = true",
  );
  assertEquals(warnings, [
    "metrics.enable_wandb = true (my.toml:1) is not supported yet by this version; a run is refused for it",
    "checkpoint.initial_load_in_hf_quantized = true (my.toml:2) is not supported yet by this version; a run is refused for it",
  ]);
  for (const text of ['model.converters = ["float8"]', "training.enable_cpu_offload = true", "training.stpes = 1"]) {
    await assertRejects(() => plan(text), ConfigError);
  }
});

/** What torchtitan's files of larger models have beside the debug model's keys, of 8B here. */
const large = `
[profiling]
enable_profiling = true
save_traces_folder = "profile_trace"
profile_freq = 100
[metrics]
log_freq = 10
enable_tensorboard = true
save_tb_folder = "tb"
[model]
name = "llama3"
flavor = "8B"
hf_assets_path = "./assets/hf/Llama-3.1-8B"
[training]
local_batch_size = 1
seq_len = 8192
steps = 1000
dataset = "c4"
[parallelism]
data_parallel_replicate_degree = 1
data_parallel_shard_degree = -1
tensor_parallel_degree = 1
pipeline_parallel_degree = 1
context_parallel_degree = 1
[checkpoint]
enable = false
folder = "checkpoint"
interval = 500
last_save_model_only = true
export_dtype = "float32"
async_mode = "disabled"
[compile]
enable = false
components = ["model", "loss"]
[activation_checkpoint]
mode = "selective"
selective_ac_option = "op"
[quantize.linear.float8]
enable_fsdp_float8_all_gather = false
precompute_float8_dynamic_scale_for_fsdp = false
filter_fqns = ["output"]
[validation]
enable = false
dataset = "c4_validation"
freq = 500
steps = 1200
`;

Deno.test("torchtitan's files of larger models run as they are, with TensorBoard unless a flag turns it off", async () => {
  const { config, warnings } = await load(large);
  const { enable_tensorboard, save_tb_folder, save_for_all_ranks } = config.metrics;
  assertEquals([config.model.flavor, config.training.seq_len, warnings], ["8B", 8192, []]);
  assertEquals([enable_tensorboard, save_tb_folder, save_for_all_ranks], [true, "tb", false]);
  for (const off of ["--metrics.no_enable_tensorboard", "--metrics.enable_tensorboard=false"]) {
    const { config } = await loadConfig(["--config", "8b.toml", off], () => large);
    assertEquals([config.metrics.enable_tensorboard, config.training.seq_len], [false, 8192]);
  }
});

Deno.test("a key that tunes what has no counterpart is accepted with any value", async () => {
  assertEquals(foreignKey("compile.enable"), { is: "without effect" });
  assertEquals((await set("compile.enable", true)).warnings, []);
  assertEquals((await set("optimizer.implementation", "foreach")).warnings, []);
});

Deno.test("a misspelled key of a missing feature is an unknown key", async () => {
  const error = await assertRejects(() => set("checkpoint.intervall", 5), ConfigError);
  assertEquals(
    error.message,
    "checkpoint.intervall (my.toml:2) is not a known key\n" +
      "  expected: a key of [checkpoint]\n" +
      "  fix: write checkpoint.interval   (unknown_key)",
  );
});

Deno.test("an old name is an error that tells the new one", async () => {
  const error = await assertRejects(() => set("training.batch_size", 8), ConfigError);
  assertEquals(
    error.message,
    "training.batch_size (my.toml:2) is an old name\n" +
      "  expected: a name of torchtitan v0.2.2\n" +
      "  fix: write training.local_batch_size   (renamed_key)",
  );
  const fixes = {
    "job.print_args": "write job.print_config",
    "metrics.enable_color_printing": "write metrics.disable_color_printing with the opposite value",
    "model.tokenizer_path": "write model.hf_assets_path, the folder that holds tokenizer.json",
    "lr_scheduler.lr_min": "write lr_scheduler.min_lr_factor",
    "training.warmup_steps": "write lr_scheduler.warmup_steps",
    "training.seed": "write debug.seed",
  };
  for (const [name, fix] of Object.entries(fixes)) assertEquals(foreignKey(name), { is: "renamed", fix });
});

Deno.test("no key is both ours and missing", () => {
  assertEquals([...vocabulary().keys.keys()].filter((name) => foreignKey(name) !== undefined), []);
});
