import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import {
  checkpointOptions,
  commOptions,
  type Config,
  ConfigError,
  helpText,
  loadConfig,
  lrSchedule,
  makeConfig,
  meshChoices,
  modelSizes,
  type PartialConfig,
  rematPolicy,
  trainOptions,
} from "../../train/config/config.ts";
import { vocabulary } from "../../train/config/vocabulary.ts";
import { temporaryFolder } from "../data/fixture.ts";

const load = (text: string, ...args: string[]) => loadConfig(["--config", "my.toml", ...args], () => text);
const problem = async (text: string, ...args: string[]) =>
  (await assertRejects(() => load(text, ...args), ConfigError)).message;

Deno.test("the command line wins over the file, and the file over the defaults", async () => {
  const { config } = await load("[training]\nsteps = 100\nseq_len = 256", "--training.steps", "20");
  assertEquals([config.training.steps, config.training.seq_len, config.training.local_batch_size], [20, 256, 8]);
  assertEquals(config.job.config_file, "my.toml");
});

Deno.test("without a file every key has torchtitan's default", () => {
  const config = makeConfig();
  assertEquals(config.optimizer, {
    ...{ name: "AdamW", lr: 8e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 },
    early_step_in_backward: false,
  });
  assertEquals(config.lr_scheduler, {
    warmup_steps: 200,
    total_steps: null,
    decay_ratio: null,
    decay_type: "linear",
    min_lr_factor: 0,
  });
  assertEquals(config.training, {
    dataset: "c4_test",
    dataset_path: null,
    local_batch_size: 8,
    global_batch_size: -1,
    seq_len: 2048,
    max_norm: 1,
    steps: 10000,
    dtype: "float32",
    mixed_precision_param: "auto",
    mixed_precision_reduce: "float32",
    dataloader: { num_workers: 0, prefetch_factor: null },
  });
  assertEquals([config.model.name, config.model.flavor, config.model.dim], ["llama3", "debugmodel", null]);
  assertEquals(config.job.dump_folder, "./outputs");
});

Deno.test("an unknown key names the nearest one, and its line", async () => {
  assertEquals(
    await problem("# a comment\n[training]\nsteps = 3\nstpes = 4"),
    "training.stpes (my.toml:4) is not a known key\n" +
      "  expected: a key of [training]\n" +
      "  fix: write training.steps   (unknown_key)",
  );
});

Deno.test("a key in the wrong section is sent to its own", async () => {
  assertStringIncludes(await problem("[training]\nlr = 1"), "fix: write optimizer.lr ");
  assertStringIncludes(await problem("steps = 1"), "fix: write training.steps ");
});

Deno.test("a name that resembles no other gets no wild guess", async () => {
  assertStringIncludes(await problem("[training]\nzzzzzzzzzzzz = 1"), "fix: see --help for the keys there are ");
});

Deno.test("an unknown section is reported once, with the nearest one", async () => {
  const message = await problem("[trainin]\nsteps = 3\nseq_len = 4");
  assertStringIncludes(
    message,
    "[trainin] (my.toml:2) is not a known section\n  expected: job, profiling, metrics, model,",
  );
  assertStringIncludes(message, "\n  fix: write training   (unknown_key)");
  assertEquals(message.split("unknown_key").length, 2);
});

Deno.test("a value in place of a section is an error", async () => {
  assertEquals(
    await problem("training = 3"),
    "training = 3 (my.toml:1) is not a section\n" +
      "  expected: [training] with keys under it\n" +
      "  fix: write [training] on a line of its own   (bad_value)",
  );
});

Deno.test("a wrong type names key, line, value, what was expected and the default", async () => {
  assertEquals(
    await problem('[training]\nsteps = "many"'),
    'training.steps = "many" (my.toml:2)\n' +
      "  expected: a whole number >= 1, in steps\n" +
      "  fix: write such a value; the default is 10000   (bad_value)",
  );
  assertStringIncludes(await problem("", "--training.steps", "1.5"), "training.steps = 1.5 (command line)\n");
  assertStringIncludes(await problem("[job]\nprint_config = 1"), "expected: true or false\n");
  assertStringIncludes(
    await problem('[training]\ndtype = "float16"'),
    'expected: "float32" or "bfloat16" or "float64"\n',
  );
  assertStringIncludes(
    await problem("[training]\nglobal_batch_size = 0"),
    "expected: -1 or a whole number >= 1, in seq",
  );
  assertStringIncludes(await problem("[optimizer]\nlr = nan"), "optimizer.lr = NaN (my.toml:2)\n");
});

Deno.test("the last save is in the type that checkpoint.export_dtype says", () => {
  const types = (["float32", "bfloat16", "float16"] as const).map((export_dtype) => {
    return checkpointOptions(makeConfig({ checkpoint: { enable: true, export_dtype } }))!.exportDtype;
  });
  assertEquals(types, [undefined, "bf16", "f16"]);
});

Deno.test("bfloat16 does not go with float64", async () => {
  assertEquals(
    await problem('[training]\ndtype = "float64"\nmixed_precision_reduce = "bfloat16"'),
    'training.mixed_precision_reduce = "bfloat16" (my.toml:3) with training.dtype = "float64" (my.toml:2)\n' +
      "  expected: with float64 everything is computed in float64\n" +
      '  fix: write dtype = "float32", or leave mixed_precision_reduce out   (precision_of_float64)',
  );
});

Deno.test("a profile's cycle holds its warm-up and its recorded steps", async () => {
  const short = "[profiling]\nenable_profiling = true\nprofile_freq = 4\nprofiler_active = 2";
  assertEquals(
    await problem(short),
    "profiling.profile_freq = 4 (my.toml:3) is shorter than profiler_warmup = 3 and profiler_active = 2 (my.toml:4) together\n" +
      "  expected: a cycle that holds both\n" +
      "  fix: write profile_freq = 5 or more   (profile_cycle)",
  );
  assertEquals((await load(`${short}\nprofiler_warmup = 2`)).warnings, []);
  assertEquals((await load("[profiling]\nprofile_freq = 1")).warnings, []);
});

Deno.test("a profile's cycle that the run does not reach the end of is announced", async () => {
  const cycle = ["--profiling.enable_profiling", "--profiling.profile_freq=300", "--training.steps=299"];
  assertEquals((await load("", ...cycle)).warnings, [
    "profiling.profile_freq = 300 is beyond the 299 steps of the run: none is recorded",
  ]);
  assertEquals((await load("", ...cycle, "--training.steps=300")).warnings, []);
});

Deno.test("values outside of their range are errors", async (t) => {
  const outside = ["optimizer.lr 0", "optimizer.beta1 1", "optimizer.beta2 -0.1", "optimizer.eps 0"].concat(
    ["optimizer.weight_decay -1", "optimizer.name Adam", "lr_scheduler.warmup_steps -1", "lr_scheduler.total_steps 0"],
    ["lr_scheduler.decay_ratio 1.1", "lr_scheduler.decay_type exp", "lr_scheduler.min_lr_factor 2"],
    ["training.local_batch_size 0", "training.seq_len 0", "training.max_norm 0", "training.steps 0", "data.lanes 0"],
    ["profiling.profile_freq 0", "profiling.profiler_active 0", "profiling.profiler_warmup -1"],
    [
      "validation.freq 0",
      "validation.steps 0",
      "metrics.log_freq 0",
      "metrics.sample_freq -1",
      "device.threads -1",
      "debug.seed -1",
    ],
    [
      "device.threads 4097",
      "metrics.jsonl_file ../m.jsonl",
      "metrics.jsonl_file /tmp/m.jsonl",
      "metrics.jsonl_file a/..",
    ],
    ["profiling.save_traces_folder ..", "comm.save_traces_folder a/../../b"],
    ["model.dim 0", "model.rope_scaling_factor 0.5", "model.norm_eps 0"],
  );
  for (const [name, value] of outside.map((line) => line.split(" "))) {
    await t.step(`${name} = ${value}`, async () => {
      assertStringIncludes(await problem("", `--${name}`, value), `${name} = `);
    });
  }
});

Deno.test("files may lie in folders of the dump folder, whatever dots are in their names", async () => {
  for (const name of ["a/b.jsonl", "..a/b..jsonl", "a..b", ""]) {
    assertEquals((await load("", `--metrics.jsonl_file=${name}`)).config.metrics.jsonl_file, name);
  }
});

Deno.test("a global batch that is no multiple of the local one names its neighbours", async () => {
  assertEquals(
    await problem("[training]\nlocal_batch_size = 8\nglobal_batch_size = 20"),
    "training.global_batch_size = 20 (my.toml:3) is not a multiple of training.local_batch_size = 8 (my.toml:2)\n" +
      "  expected: gradients accumulate over global_batch_size / local_batch_size equal micro-batches\n" +
      "  fix: write global_batch_size = 16 (accumulates over 2) or 24 (accumulates over 3), or change local_batch_size" +
      "   (batch_not_a_multiple)",
  );
  assertStringIncludes(
    await problem("", "--training.global_batch_size=4"),
    "global_batch_size = 8 (accumulates over 1),",
  );
  assertEquals((await load("", "--training.global_batch_size=24")).config.training.global_batch_size, 24);
});

Deno.test("heads must have an even size, and key heads divide the query heads, also those of the flavor", async () => {
  assertEquals(
    await problem("[model]\ndim = 100\nn_heads = 16"),
    "model.dim = 100 (my.toml:2) over model.n_heads = 16 (my.toml:3) makes heads of size 6.25\n" +
      "  expected: a whole and even size, since rotary embeddings turn pairs\n" +
      "  fix: write dim = 96, change n_heads, or set head_dim   (model_shape)",
  );
  assertEquals(
    await problem("[model]\ndim = 48"),
    "model.dim = 48 (my.toml:2) over model.n_heads = 16 (flavor debugmodel) makes heads of size 3\n" +
      "  expected: a whole and even size, since rotary embeddings turn pairs\n" +
      "  fix: write dim = 64, change n_heads, or set head_dim   (model_shape)",
  );
  assertEquals(
    await problem('[model]\nflavor = "8B"\nn_kv_heads = 5'),
    "model.n_kv_heads = 5 (my.toml:3) does not divide model.n_heads = 32 (flavor 8B)\n" +
      "  expected: as many query heads to each key and value head\n" +
      "  fix: write n_kv_heads = 4; the divisors are 1, 2, 4, 8, 16, 32   (model_shape)",
  );
  assertEquals((await load("[model]\nn_heads = 8")).config.model.n_heads, 8);
  assertEquals(modelSizes((await load("[model]\ndim = 100\nhead_dim = 32")).config).headDim, 32);
  assertEquals(
    await problem("[model]\nhead_dim = 7"),
    "model.head_dim = 7 (my.toml:2) is odd\n" +
      "  expected: an even size, since rotary embeddings turn pairs\n" +
      "  fix: write head_dim = 8, or leave it out for dim / n_heads   (model_shape)",
  );
});

Deno.test("an unknown model names the nearest one", async () => {
  assertStringIncludes(
    await problem('[model]\nflavor = "debug"'),
    "  fix: write llama3 as name, debugmodel as flavor ",
  );
  assertStringIncludes(await problem('[model]\nflavor = "1b"'), "  fix: write llama2 as name, 1B as flavor ");
  const message = await problem('[model]\nname = "llama2"\nflavor = "8B"');
  assertStringIncludes(
    message,
    'model.flavor = "8B" (my.toml:3) of model.name = "llama2" (my.toml:2) is not a known model\n' +
      "  expected: llama3/debugmodel, llama3/8B, ",
  );
});

Deno.test("sizes are the flavor's but for those that [model] gives", () => {
  const debug = modelSizes(makeConfig());
  assertEquals([debug.dim, debug.numLayers, debug.numHeads, debug.numKvHeads], [256, 6, 16, 16]);
  assertEquals([debug.ffnHiddenDim, debug.vocabSize, debug.ropeTheta, debug.normEps], [768, 2048, 500000, 1e-5]);
  const given = { dim: 64, n_layers: 2, n_heads: 4, n_kv_heads: 2, vocab_size: 100, norm_eps: 1e-6, rope_theta: 1e4 };
  const small = modelSizes(makeConfig({ model: { ...given, multiple_of: 32, ffn_dim_multiplier: 1.5 } }));
  assertEquals([small.dim, small.numLayers, small.numHeads, small.numKvHeads], [64, 2, 4, 2]);
  assertEquals([small.ffnHiddenDim, small.vocabSize, small.ropeTheta, small.normEps], [256, 100, 1e4, 1e-6]);
  assertEquals(modelSizes(makeConfig({ model: { ffn_hidden_dim: 99 } })).ffnHiddenDim, 99);
});

Deno.test("rotary scaling is the flavor's, off at factor 1, and each of its numbers can be given", () => {
  const scaling = (model: Partial<Config["model"]>) => modelSizes(makeConfig({ model })).ropeScaling;
  const llama3 = { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 };
  assertEquals(scaling({}), llama3);
  assertEquals(scaling({ rope_scaling_factor: 1 }), null);
  assertEquals(scaling({ rope_low_freq_factor: 2 }), { ...llama3, lowFreqFactor: 2 });
  const all = { rope_scaling_factor: 4, rope_high_freq_factor: 8, rope_original_max_position_embeddings: 64 };
  assertEquals(scaling(all), { factor: 4, lowFreqFactor: 1, highFreqFactor: 8, originalContext: 64 });
  const llama2 = { name: "llama2", flavor: "7B" };
  assertEquals([scaling(llama2), scaling({ ...llama2, rope_scaling_factor: 8 })], [null, llama3]);
});

Deno.test("all problems are listed at once", async () => {
  const error = await assertRejects(
    () => load("[training]\nstpes = 1\nseq_len = 0\n[memory_estimation]\nenable = true", "--optimizer.lr=-1"),
    ConfigError,
  );
  assertEquals(error.problems.map(({ code }) => code), ["unknown_key", "not_supported_yet", "bad_value", "bad_value"]);
  assert(
    error.message.startsWith("The configuration has 4 problems\n\ntraining.stpes (my.toml:2) is not a known key\n"),
  );
});

Deno.test("a config file that cannot be read is an error with its path", async () => {
  const read = () => Promise.reject(new Error("No such file"));
  const error = await assertRejects(() => loadConfig(["--config=nowhere.toml"], read), ConfigError);
  assertEquals(
    error.message,
    'Cannot read the config file "nowhere.toml": No such file\n' +
      "  expected: a TOML file; a relative path starts at the working directory\n" +
      "  fix: correct the path after --config   (no_such_file)",
  );
});

Deno.test("--help reads no file and describes every key by its section, values, default and unit", async () => {
  const { help } = await loadConfig(["--config", "nowhere.toml", "--help"], () => Promise.reject(new Error("read")));
  assert(help);
  const text = helpText();
  for (const { name, description } of vocabulary().keys.values()) {
    assertStringIncludes(text, `\n  --${name} `);
    assert(/^\S.{10,}[.]$/.test(description), `${name} has the description "${description}"`);
  }
  assertStringIncludes(
    text,
    "[training] Data, batch and length of the run.\n" +
      '  --training.dataset a non-empty string (default "c4_test")\n',
  );
  assertStringIncludes(
    text,
    "  --training.seq_len a whole number >= 1 (default 2048, in tokens)\n      Length of a seq",
  );
  assertStringIncludes(text, "  --validation.enable or --validation.no_enable (default off)\n");
  assertStringIncludes(text, "  --optimizer.beta1 a number >= 0 and < 1 (default 0.9)\n");
  assertStringIncludes(text, "  --lr_scheduler.decay_ratio a number >= 0 and <= 1 (default not set)\n");
});

Deno.test("--help names the file of the default run, and the values that it has", () => {
  const text = helpText({ name: "configs/my.toml", text: "[training]\nsteps = 100\n[validation]\nenable = true\n" });
  assertStringIncludes(text, "\nWithout --config, FILE is configs/my.toml: its values are those of the default run.\n");
  assertStringIncludes(
    text,
    "  --training.steps a whole number >= 1 (default 10000, in steps, configs/my.toml: 100)\n",
  );
  assertStringIncludes(text, " or --validation.no_enable (default off, configs/my.toml: on)\n");
  assertStringIncludes(text, "  --training.seq_len a whole number >= 1 (default 2048, in tokens)\n");
});

Deno.test("a bad flag over a file is told what the file has, and a file of the package is named by the end of its URL", async () => {
  assertStringIncludes(
    await problem("[training]\nsteps = 100", "--training.steps", "many"),
    "fix: write such a value; without it, my.toml:2 has 100   (bad_value)",
  );
  const args = ["--config", "file:///somewhere/titan/configs/debug.toml", "--training.steps", "many"];
  const error = await assertRejects(() => loadConfig(args, () => "[training]\nsteps = 100"), ConfigError);
  assertStringIncludes(error.message, "; without it, configs/debug.toml:2 has 100 ");
});

Deno.test("a flag wins over a value of the file that is refused", async () => {
  const file = '[metrics]\nenable_wandb = true\n[training]\nseq_len = 0\n[model]\nconverters = ["float7"]';
  for (const off of ["--metrics.no_enable_wandb", "--metrics.enable_wandb=false"]) {
    assertEquals((await load(file, off, "--training.seq_len=8", "--model.converters=")).config.training.seq_len, 8);
  }
  const message = await problem(file, "--metrics.no_enable_wandb");
  assert(
    message.startsWith(
      'The configuration has 2 problems\n\nmodel.converters = ["float7"] (my.toml:6)\n  expected: a list of',
    ),
  );
});

Deno.test("a key of the command line that needs another is told so, one of a file is not", async () => {
  const warnings = async (...args: string[]) => (await load("", "--lr_scheduler.warmup_steps=0", ...args)).warnings;
  const cases = {
    "--validation.freq=5": "validation.freq has no effect: it needs validation.enable",
    "--metrics.save_for_all_ranks": "metrics.save_for_all_ranks has no effect: it needs metrics.enable_tensorboard",
    "--metrics.sample_prompt=a": "metrics.sample_prompt has no effect: it needs metrics.sample_freq above 0",
    "--profiling.profile_freq=5": "profiling.profile_freq has no effect: it needs profiling.enable_profiling",
    "--activation_checkpoint.memory_budget=0.3":
      'activation_checkpoint.memory_budget has no effect: it needs activation_checkpoint.mode = "memory_budget"',
    "--activation_checkpoint.selective_ac_option=op":
      'activation_checkpoint.selective_ac_option has no effect: it needs activation_checkpoint.mode = "selective"',
    "--activation_checkpoint.visualize_memory_budget_pareto":
      "activation_checkpoint.visualize_memory_budget_pareto has no effect: it needs --dry-run",
    "--parallelism.enable_async_tensor_parallel":
      "parallelism.enable_async_tensor_parallel has no effect: it needs parallelism.tensor_parallel_degree above 1",
    "--parallelism.context_parallel_rotate_method=alltoall":
      "parallelism.context_parallel_rotate_method has no effect: it needs parallelism.context_parallel_degree above 1",
  };
  for (const [flag, warning] of Object.entries(cases)) assertEquals(await warnings(flag), [warning]);
  assertEquals(await warnings("--model.rope_scaling_factor=1", "--model.rope_low_freq_factor=2"), [
    "model.rope_low_freq_factor has no effect: it needs model.rope_scaling_factor above 1",
  ]);
  assertEquals(await warnings("--model.ffn_hidden_dim=64", "--model.multiple_of=2"), [
    "model.multiple_of has no effect: it needs model.ffn_hidden_dim to be left out",
  ]);
  assertEquals(await warnings("--validation.freq=5", "--validation.enable"), []);
  assertEquals(await warnings("--activation_checkpoint.visualize_memory_budget_pareto", "--dry-run"), []);
  assertEquals((await load("[validation]\nfreq = 5\n[lr_scheduler]\nwarmup_steps = 0")).warnings, []);
});

Deno.test("a schedule that is cut, or that the run outlasts, is announced", async () => {
  assertEquals((await load("", "--training.steps=50")).warnings, [
    "lr_scheduler.warmup_steps = 200 is cut to the 50 steps of the schedule",
  ]);
  const [one] = (await load("", "--training.steps=1")).warnings;
  assertEquals(one, "lr_scheduler.warmup_steps = 200 is cut to the 1 step of the schedule");
  const decay = ["--lr_scheduler.warmup_steps=5", "--lr_scheduler.decay_ratio=0.8", "--training.steps=10"];
  assertEquals((await load("", ...decay)).warnings, [
    "lr_scheduler.decay_ratio = 0.8 asks for a decay of 8 steps, which is cut to the 5 after the warm-up",
  ]);
  const long = ["--lr_scheduler.warmup_steps=5", "--lr_scheduler.total_steps=10", "--training.steps=11"];
  assertEquals((await load("", ...long)).warnings, [
    "training.steps = 11 goes past lr_scheduler.total_steps = 10: the learning rate stays at min_lr_factor = 0 of its peak",
  ]);
  assertEquals((await load("")).warnings, []);
});

Deno.test("text is validated on a share of it, unless a name or a path says otherwise; other data on its own", async () => {
  const specs = async (...args: string[]) => {
    const { config } = await load("", "--validation.enable", ...args), { data, validation } = trainOptions(config);
    return [data, validation?.data];
  };
  const text = ["--training.dataset=text", "--training.dataset_path=notes/", "--data.text_field=body"];
  const notes = { name: "text", path: "notes/", field: "body" };
  assertEquals(await specs(...text), [notes, undefined]);
  assertEquals(await specs(...text, "--validation.dataset_path=b"), [notes, { ...notes, path: "b" }]);
  const named = (name: string) => ({ name, path: null, cache: { folder: undefined, bytes: 20 * 2 ** 30 } });
  assertEquals(await specs(...text, "--validation.dataset=c4_validation"), [notes, named("c4_validation")]);
  assertEquals(await specs(), [named("c4_test"), named("c4_validation")]);
});

Deno.test("the tokenizer of bytes needs no folder, and makes the vocabulary its own; two tokenizers are refused", async () => {
  const { config } = await load("", "--data.tokenizer=bytes");
  assertEquals([trainOptions(config).tokenizer, modelSizes(config).vocabSize], ["bytes", 258]);
  assertEquals(modelSizes((await load("", "--data.tokenizer=bytes", "--model.vocab_size=512")).config).vocabSize, 512);
  assertEquals(
    await problem("", "--data.tokenizer=bytes", "--model.hf_assets_path=data/sample"),
    'data.tokenizer = "bytes" (command line) with model.hf_assets_path = "data/sample" (command line)\n' +
      "  expected: one tokenizer\n" +
      "  fix: leave one of them out; weights to begin from are checkpoint.initial_load_path   (two_tokenizers)",
  );
});

Deno.test("chats are packed whole, with attention that stays inside of each; other packing is refused", async () => {
  const chat = ["--training.dataset=chat", "--training.dataset_path=c.jsonl"];
  const causal = "--model.attn_mask_type=causal";
  const options = trainOptions((await load("", ...chat, "--data.no_mask_prompt", "--data.too_long=drop")).config);
  const cache = { folder: undefined, bytes: 20 * 2 ** 30 };
  assertEquals(options.data, { name: "chat", path: "c.jsonl", field: "messages", cache });
  assertEquals([options.dataloader?.packing, options.documents], [undefined, true]);
  assertEquals(options.dataloader?.chat, { maskPrompt: false, tooLong: "drop" });
  assertEquals(
    await problem("", ...chat, causal),
    'training.dataset = "chat" (command line) with model.attn_mask_type = "causal" (command line)\n' +
      "  expected: attention that stays inside of a document, as positions restart in each\n" +
      "  fix: leave model.attn_mask_type out   (packing_without_mask)",
  );
  assertStringIncludes(
    await problem("", "--data.packing=documents", causal),
    'data.packing = "documents" (command line) with model',
  );
  assertStringIncludes(
    await problem("", ...chat, "--data.packing=windows"),
    "leave data.packing out   (chat_packing)",
  );
  assertEquals(trainOptions((await load("", "--data.packing=best-fit")).config).dataloader?.packing, "best-fit");
});

Deno.test("keys of chats that are not read are announced", async () => {
  const { warnings } = await load("", "--data.too_long=drop", "--data.messages_field=talk");
  assertEquals(warnings.map((line) => line.split(" has")[0]), ["data.too_long", "data.messages_field"]);
});

Deno.test("order and key of text that is not read are announced", async () => {
  const keys = ["--data.no_shuffle", "--data.text_field=body"], text = ["--training.dataset=text"];
  assertEquals(
    (await load("", ...keys)).warnings,
    ["shuffle", "text_field"].map((key) => `data.${key} has no effect: it needs training.dataset = "text"`),
  );
  assertEquals((await load("", ...keys, ...text)).warnings, []);
});

Deno.test("C4 that is validated on the sample is announced", async () => {
  const c4 = ["--training.dataset=c4", "--training.dataset_path=c4", "--validation.enable"];
  const mixed = "validation reads held-out text of the sample, not of C4: set validation.dataset_path";
  assertEquals((await load("", ...c4)).warnings, [mixed]);
  assertEquals((await load("", ...c4, "--validation.dataset_path=c4")).warnings, []);
});

Deno.test("the schedule is as long as the run unless total_steps says otherwise", () => {
  assertEquals(lrSchedule(makeConfig({ training: { steps: 70 } })).totalSteps, 70);
  assertEquals(lrSchedule(makeConfig({ lr_scheduler: { total_steps: 90 } })).totalSteps, 90);
});

Deno.test("a program can give values, and its mistakes are found as well", () => {
  const config: Config = makeConfig({ model: { dim: 64 }, training: { steps: 5 } });
  assertEquals([config.model.dim, config.training.steps, config.debug.seed], [64, 5, 0]);
  const error = assertThrows(() => makeConfig({ training: { steps: 0 } }), ConfigError);
  assertEquals(error.message.split("\n")[0], "training.steps = 0");
});

Deno.test("the default run trains the debug model and validates at its end, and each of its lines is explained", async () => {
  const path = new URL("../../configs/debug.toml", import.meta.url);
  const { config, warnings } = await loadConfig(["--config", "configs/debug.toml"], () => Deno.readTextFile(path));
  assertEquals(warnings, []);
  assertEquals([config.model.name, config.model.flavor, config.training.dataset], ["llama3", "debugmodel", "c4_test"]);
  assert(config.validation.enable && config.training.steps % config.validation.freq === 0);
  const keys = (await Deno.readTextFile(path)).split("\n").filter((line) => /^\w/.test(line));
  assertEquals(keys.filter((line) => !/ # \S.{10}/.test(line)), []);
});

Deno.test("activation checkpointing is a policy, and a memory budget a fraction or bytes", () => {
  const policy = (given: PartialConfig["activation_checkpoint"]) =>
    rematPolicy(makeConfig({ activation_checkpoint: given }));
  const mode = "memory_budget";
  assertEquals(policy({}), { mode: "none" });
  assertEquals(policy({ mode: "full" }), { mode: "full" });
  assertEquals(policy({ mode: "selective" }), { mode: "selective", option: 2 });
  assertEquals(policy({ mode: "selective", selective_ac_option: "op" }), { mode: "selective", option: "op" });
  assertEquals(policy({ mode, memory_budget: 0.25 }), { mode, fraction: 0.25 });
  const bytes = { "3GiB": 3 * 2 ** 30, "2.5 GB": 2.5e9, "512 KiB": 2 ** 19, "77B": 77, "1TB": 1e12 };
  for (const [text, n] of Object.entries(bytes)) {
    assertEquals(policy({ mode, memory_budget: text }), { mode, bytes: n });
  }
});

Deno.test("a memory budget that is neither fraction nor bytes is refused, and so is an unknown selective option", async () => {
  const message = await problem(
    '[activation_checkpoint]\nmemory_budget = "3 gigs"\nselective_ac_option = "ops"',
    "--activation_checkpoint.mode",
    "some",
  );
  for (const expected of ['a number >= 0 and <= 1 or bytes such as "3GiB"', '"op" or a whole number in quotes']) {
    assertStringIncludes(message, `expected: ${expected}`);
  }
  assertStringIncludes(message, '"none" or "full" or "selective" or "memory_budget"');
  await assertRejects(() => load("[activation_checkpoint]\nmemory_budget = 1.5"), ConfigError);
  const { config } = await load("", "--activation_checkpoint.memory_budget", "40MiB");
  assertEquals(config.activation_checkpoint.memory_budget, "40MiB");
});

Deno.test("torchtitan's keys of context parallelism choose the order of tokens and how keys travel", async () => {
  const { balancer, rotateMethod } = meshChoices(makeConfig());
  assertEquals({ balancer, rotateMethod }, { balancer: "headtail", rotateMethod: "allgather" });
  const keys = [
    "--parallelism.context_parallel_load_balancer=None",
    "--parallelism.context_parallel_rotate_method=alltoall",
  ];
  const chosen = meshChoices((await load("", ...keys)).config);
  assertEquals([chosen.balancer, chosen.rotateMethod], [null, "alltoall"]);
  const flexible = await problem('[parallelism]\ncontext_parallel_load_balancer = "ptrr"');
  assertStringIncludes(flexible, '"headtail" or None');
});

Deno.test("asynchronous tensor parallelism is a key of its own, and needs no compile", async () => {
  assertEquals(meshChoices(makeConfig()).asyncTensorParallel, false);
  const { config } = await load("[parallelism]\nenable_async_tensor_parallel = true\n[compile]\nenable = false");
  assertEquals(meshChoices(config).asyncTensorParallel, true);
});

Deno.test("ranks wait, record and imitate a link as [comm] says", async () => {
  assertEquals(commOptions(makeConfig()), { startTimeoutMs: 300_000, timeoutMs: 100_000, records: 32 });
  const text =
    '[comm]\ninit_timeout_seconds = 2\ntrain_timeout_seconds = 0.5\ntrace_buf_size = 20000\nsimulate = "10GB/s,5us"';
  const { link, ...rest } = commOptions((await load(text)).config);
  assertEquals(rest, { startTimeoutMs: 2000, timeoutMs: 500, records: 20_000 });
  assertEquals(link, { bytesPerSecond: 1e10, latencyNs: 5000 });
  const linkOf = (simulate: string) => commOptions(makeConfig({ comm: { simulate } })).link;
  assertEquals(linkOf("1.5 MiB/s, 2ms"), { bytesPerSecond: 1.5 * 2 ** 20, latencyNs: 2e6 });
  assertEquals(linkOf("800B/s,0ns"), { bytesPerSecond: 800, latencyNs: 0 });
  for (const wrong of ["10GB/s", "10GB,5us", "fast", "10Gb/s,5us"]) {
    assertStringIncludes(await problem("", "--comm.simulate", wrong), 'bandwidth and latency such as "10GB/s,5us"');
  }
});

Deno.test("the flavor hf takes its sizes from the folder that the run begins from, and needs one", async () => {
  const folder = new URL("../goldens/hf/tied", import.meta.url).pathname;
  const keys = ["--checkpoint.enable", "--checkpoint.initial_load_in_hf", "--model.flavor", "hf"];
  const { config } = await loadConfig([...keys, "--checkpoint.initial_load_path", folder], () => "");
  const { dim, vocabSize, tiedEmbeddings } = modelSizes(config);
  assertEquals([dim, vocabSize, tiedEmbeddings], [16, 32, true]);
  const assets = await loadConfig([...keys, "--model.hf_assets_path", folder], () => "");
  assertEquals(modelSizes(assets.config).dim, 16);
  await using meta = await temporaryFolder();
  const params = { dim: 24, n_layers: 1, n_heads: 2, vocab_size: 5, multiple_of: 8 };
  await Deno.writeTextFile(`${meta.path}/params.json`, JSON.stringify(params));
  await Deno.copyFile(`${folder}/model.safetensors`, `${meta.path}/consolidated.safetensors`);
  const own = await loadConfig([...keys, "--checkpoint.initial_load_path", meta.path], () => "");
  assertEquals(modelSizes(own.config).dim, 24);
  for (const args of [["--model.flavor", "hf"], keys]) {
    await assertRejects(
      () => loadConfig(args, () => ""),
      ConfigError,
      'model.flavor = "hf" (command line) without a folder',
    );
  }
});

Deno.test("a mixture is trained on in place of a dataset, each source with its weight, name and field", async () => {
  const sources =
    '[data]\ntext_field = "body"\ntoken_bytes = 4\n[[data.sources]]\ndataset = "files"\ndataset_path = "wiki"\nweight = 3\n' +
    '[[data.sources]]\ndataset = "text"\ndataset_path = "notes"\nweight = 1\nname = "mine"\ntext_field = "t"\n';
  const { data, dataloader } = trainOptions((await load(sources, "--training.dataloader.num_workers=2")).config);
  const cache = { folder: undefined, bytes: 20 * 2 ** 30 };
  assertEquals(data, {
    mixture: [
      { name: "files", data: { name: "files", path: "wiki", field: "body", tokenBytes: 4, cache }, weight: 3 },
      { name: "mine", data: { name: "text", path: "notes", field: "t" }, weight: 1 },
    ],
  });
  assertEquals([dataloader?.workers, dataloader?.ahead], [2, undefined]);
  assertStringIncludes(await problem("[[data.sources]]\nweight = -1"), "data.sources = ");
  assertStringIncludes(
    await problem("[training.dataloader]\nnum_workers = -1"),
    "training.dataloader.num_workers = -1 (my.toml:2)",
  );
  assertStringIncludes(
    await problem("[training.dataloader]\nnum_wrokers = 1"),
    "write training.dataloader.num_workers",
  );
});
