import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { ConfigError, loadConfig, meshChoices, rematPolicy, trainOptions } from "../../../train/config/config.ts";
import { foreignKey, foreignNames } from "../../../train/config/torchtitan.ts";
import { vocabulary } from "../../../train/config/vocabulary.ts";
import { TORCHTITAN_KEYS } from "./torchtitan/keys.ts";

const load = (text: string) => loadConfig(["--config", "my.toml"], () => text);
const set = (name: string, value: unknown) => {
  const [, section, key] = /^(.*)\.([^.]+)$/.exec(name)!;
  return load(`[${section}]\n${key} = ${JSON.stringify(value)}`);
};

/** Why a key is refused. */
const whyNot = (name: string) => {
  const key = foreignKey(name);
  return key?.is === "missing feature" ? key.why : undefined;
};

/** A file of torchtitan v0.2.2. */
const preset = (name: string) => Deno.readTextFileSync(new URL(`./torchtitan/${name}.toml`, import.meta.url));

Deno.test("every key of torchtitan works, or changes nothing and one notice says so, or is refused by its name; none is ignored", async (t) => {
  const page = Deno.readTextFileSync(new URL("../../../docs/config.md", import.meta.url));
  const rowsOf = new Map(
    page.split("\n## ").slice(1).map((
      part,
    ) => [part.split("\n")[0], part.split("\n").filter((l) => l.startsWith("| "))]),
  );
  for (const [name, usual, other] of TORCHTITAN_KEYS) {
    await t.step(name, async () => {
      const parts = name.split("."),
        key = parts.at(-1)!,
        section = parts.slice(0, -1).join("."),
        ours = vocabulary().keys.has(name),
        foreign = foreignKey(name);
      if (foreign?.is !== "renamed") {
        if (usual !== null) {
          assertEquals((await set(name, usual)).warnings.filter((w) => w.includes("without effect")), []);
        }
        const rows = rowsOf.get(ours ? `[${section}]` : "Other keys of torchtitan");
        const row = rows?.find((line) => line.startsWith(`| \`${ours ? key : name}\` `));
        assert(
          row?.includes(
            ours ? "torchtitan |" : foreign?.is === "tuning" ? `goes with ${foreign.feature}` : foreign!.why,
          ),
          `docs/config.md says of ${name}: ${row}`,
        );
      }
      try {
        const { config, warnings } = await set(name, other);
        if (ours) {
          assertEquals(parts.reduce<unknown>((table, part) => (table as Record<string, unknown>)[part], config), other);
        } else assertEquals(warnings.filter((w) => w.startsWith(`without effect here: ${name} = `)).length, 1);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        assertEquals([error.problems.length, error.problems[0].what.includes(name)], [1, true], error.message);
      }
    });
  }
});

Deno.test("what changes nothing is told in one notice, unless it says what torchtitan does without it", async () => {
  const text =
    "compile.enable = true\ntraining.gc_freq = 10\ntraining.enable_cpu_offload = true\ndebug.deterministic = false";
  assertEquals((await load(text)).warnings, [
    "without effect here: compile.enable = true (my.toml:1): every step is compiled, by this library; " +
    "training.gc_freq = 10 (my.toml:2): a step leaves nothing to collect; " +
    "training.enable_cpu_offload = true (my.toml:3): the device is the CPU, whose memory holds all states",
  ]);
});

Deno.test("torchtitan's debug model runs as it is, with the sample's tokenizer where its own is not at hand", async () => {
  const { config, warnings } = await load(preset("debug_model"));
  assertEquals(rematPolicy(config), { mode: "selective", option: 2 });
  assertEquals([config.training.steps, config.optimizer.lr, config.lr_scheduler.decay_ratio], [10, 8e-4, 0.8]);
  assertEquals([config.validation.freq, trainOptions(config).tokenizer], [5, undefined]);
  assertEquals(warnings, [
    'model.hf_assets_path = "./tests/assets/tokenizer" is not here: the tokenizer of the sample stands in',
  ]);
  const other = (await load('model.hf_assets_path = "./assets/tokenizer"')).config;
  assertEquals(trainOptions(other).tokenizer, "./assets/tokenizer");
});

Deno.test("an early step leaves gradients as long as they are, and says so", async () => {
  const { config, warnings } = await load("optimizer.early_step_in_backward = true\ntraining.max_norm = 0.1");
  assert(trainOptions(config).optimizer!.maxNorm! > 1e20);
  assertEquals(warnings, [
    "optimizer.early_step_in_backward: gradients are not clipped; all parameters are updated behind backward",
  ]);
});

Deno.test("flavors with flex and varlen attention keep attention within documents, unless that is said otherwise", async () => {
  for (const flavor of ["debugmodel_flex_attn", "debugmodel_varlen_attn", "8B_flex", "8B_varlen"]) {
    assertEquals(trainOptions((await set("model.flavor", flavor)).config).documents, true, flavor);
    const causal = await load(`[model]\nflavor = "${flavor}"\nattn_mask_type = "causal"`);
    assertEquals(trainOptions(causal.config).documents, false);
  }
  assertEquals(trainOptions((await set("model.flavor", "debugmodel")).config).documents, false);
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

Deno.test("whether parameters are gathered again for backward may be said, or left to the mesh", async () => {
  const choices = async (key: string, value: unknown) => meshChoices((await set(`parallelism.${key}`, value)).config);
  const reshard = (value: string) => choices("fsdp_reshard_after_forward", value).then((c) => c.reshard);
  assertEquals([await reshard("default"), await reshard("always"), await reshard("never")], [undefined, true, false]);
  assertEquals((await choices("fsdp_prefetch", 2)).prefetch, 2);
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
    assertStringIncludes(message, `checkpoint.${missing} (my.toml:1) is for weights in quantized blocks`);
  }
  await assertRejects(() => load('checkpoint.exclude_from_loading = ["data_loader"]'), ConfigError, "dataloader");
});

Deno.test("a key of checkpoints without checkpoints is told to have no effect, not taken in silence", async () => {
  const { warnings } = await loadConfig(["--checkpoint.load_step", "10"], () => "");
  assertEquals(warnings, ["checkpoint.load_step has no effect: it needs checkpoint.enable"]);
});

Deno.test("a feature that is on is refused once, and not again for each key that tunes it", async () => {
  const text = '[fault_tolerance]\nenable = true\nprocess_group = "nccl"\nreplica_id = 3';
  const { problems } = await assertRejects(() => load(text), ConfigError);
  assertEquals(problems.length, 1);
  assertMatch(problems[0].what, /fault_tolerance\.enable.*--restarts N .*--elastic/s);
});

Deno.test("a plan is made of what does not change it, and says that a run would be refused", async () => {
  const plan = (text: string) => loadConfig(["--config", "my.toml", "--dry-run"], () => text);
  const { warnings } = await plan(
    "metrics.enable_wandb = true\ncheckpoint.initial_load_in_hf_quantized = true",
  );
  assertEquals(warnings, [
    `metrics.enable_wandb = true (my.toml:1) ${whyNot("metrics.enable_wandb")}; a run is refused for it`,
    `checkpoint.initial_load_in_hf_quantized = true (my.toml:2) ${
      whyNot("checkpoint.initial_load_in_hf_quantized")
    }; a run is refused for it`,
  ]);
  for (const text of ['model.converters = ["float7"]', "comm.mode = 1", "training.stpes = 1"]) {
    await assertRejects(() => plan(text), ConfigError);
  }
});

Deno.test("torchtitan's files of 8B and 70B run as they are, with TensorBoard unless a flag turns it off", async () => {
  for (const [name, flavor, tp] of [["llama3_8b", "8B", 1], ["llama3_70b", "70B", 8]] as const) {
    const { config, warnings } = await load(preset(name));
    const { enable_tensorboard, save_tb_folder, save_for_all_ranks } = config.metrics;
    assertEquals([config.model.flavor, config.training.seq_len, warnings], [flavor, 8192, []]);
    assertEquals([enable_tensorboard, save_tb_folder, save_for_all_ranks], [true, "tb", false]);
    assertEquals(config.parallelism.tensor_parallel_degree, tp);
  }
  for (const off of ["--metrics.no_enable_tensorboard", "--metrics.enable_tensorboard=false"]) {
    const { config } = await loadConfig(["--config", "8b.toml", off], () => preset("llama3_8b"));
    assertEquals([config.metrics.enable_tensorboard, config.training.seq_len], [false, 8192]);
  }
});

Deno.test("a key that tunes what has no counterpart is accepted with any value", async () => {
  assertEquals((await set("compile.backend", "mine")).config, (await load("")).config);
  assertEquals((await set("optimizer.implementation", "for-loop")).config, (await load("")).config);
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
