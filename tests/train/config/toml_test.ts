import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../../train/config/problem.ts";
import { tomlEntries, tomlText } from "../../../train/config/toml.ts";
import { type Config, loadConfig, makeConfig, type PartialConfig } from "../../../train/config/config.ts";
import { type Key, vocabulary } from "../../../train/config/vocabulary.ts";

const places = (text: string) => Object.fromEntries(tomlEntries(text, "f").map(({ name, place }) => [name, place]));

Deno.test("each key remembers its line, however its table is written", () => {
  const text = '# first\n[training]\nsteps = 1\n"seq_len" = 2\n\n[ model ] # size\n  dim=3\n';
  assertEquals(places(text), { "training.steps": "f:3", "training.seq_len": "f:4", "model.dim": "f:7" });
  assertEquals(places("training.steps = 1\n[optimizer]\nlr = 2"), { "training.steps": "f:1", "optimizer.lr": "f:3" });
});

Deno.test("a key of an inline table has the line of the table", () => {
  assertEquals(places("\ntraining = { steps = 1 }"), { "training.steps": "f:2" });
});

Deno.test("text that looks like TOML within strings, comments and lists does not mislead", () => {
  const text = [
    '[job] # """',
    'description = """',
    "[model]",
    "dim = 3",
    '"""',
    "[parallelism]",
    "module_fqns_per_model_part = [",
    '  ["layers.0", "dim = 4"],',
    '  ["layers.1"]',
    "]",
    "tensor_parallel_degree = 1",
    "[model]",
    'name = "a # b"',
    "dim = 5",
  ];
  const found = places(text.join("\n"));
  assertEquals(found["parallelism.tensor_parallel_degree"], "f:11");
  assertEquals([found["job.description"], found["model.name"], found["model.dim"]], ["f:2", "f:13", "f:14"]);
});

Deno.test("text that is not TOML is shown with its line and column", () => {
  const error = assertThrows(() => tomlEntries("[training]\n  steps = = 3\nseq_len = 4", "my.toml"), ConfigError);
  assertEquals(
    error.message.replace(/TOML: .*/, "TOML: ..."), // the reason is the parser's wording
    [
      "my.toml:2:11 is not TOML: ...",
      "     1 | [training]",
      "     2 |   steps = = 3",
      "                   ^",
      "     3 | seq_len = 4",
      '  expected: lines such as [section], key = 1, key = "text", key = true',
      "  fix: correct line 2   (toml_syntax)",
    ].join("\n"),
  );
});

Deno.test("a key that is written twice is an error of the file", () => {
  const error = assertThrows(() => tomlEntries("[job]\na = 1\na = 2", "my.toml"), ConfigError);
  assertEquals(error.message.split(" ")[0].replace(/:\d+$/, ""), "my.toml:3");
});

/** Loads the text of a configuration. */
const reloaded = async (config: Config) =>
  (await loadConfig(["--config", "saved.toml"], () => tomlText(config))).config;

/** The same configuration, read from the file of {@linkcode reloaded}. */
const fromSaved = (config: Config): Config => ({ ...config, job: { ...config.job, config_file: "saved.toml" } });

Deno.test("a configuration is written as TOML that loads to the same, whatever its keys have", async (t) => {
  assertEquals(await reloaded(makeConfig()), fromSaved(makeConfig()));
  const own: Record<string, unknown[]> = {
    "model.flavor": ["8B"],
    "model.dim": [128],
    "training.global_batch_size": [16],
    "data.sources": [[{ dataset: "files", dataset_path: "a", weight: 0.5, name: null, text_field: null }]],
    "data.token_bytes": [4],
  };
  const values = (key: Key): unknown[] => [
    ...own[key.name] ?? [],
    ...(key.isNullable ? [null] : []),
    ...(key.kind === "boolean" ? [true, false] : []),
    ...(key.kind === "number" ? [0, 1, 2, -1, 0.1, 1e-8, 2 ** 52 + 1] : []),
    ...(key.kind === "string" ? ["", "plain", 'a "b"\n\\ # [c]\u007f\u0000 \u00e9', "2GiB", "config.json"] : []),
    ...(key.kind === "list" ? [[], ["model"], ["model", "optimizer"], ["quantize.linear.float8"]] : []),
    ...[...key.expected.matchAll(/"([^"]*)"/g)].map(([, text]) => text),
  ];
  // These have one value, with the others as they are.
  const single = new Set(["model.name", "model.converters", "optimizer.name"]);
  for (const key of vocabulary().keys.values()) {
    await t.step(key.name, async () => {
      let others = 0;
      for (const value of values(key)) {
        let config: Config;
        try {
          config = makeConfig(
            key.name.split(".").reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as PartialConfig,
          );
        } catch (error) {
          if (error instanceof ConfigError) continue; // a value that this key cannot have
          throw error;
        }
        assertEquals(await reloaded(config), fromSaved(config));
        if (JSON.stringify(value) !== JSON.stringify(key.default)) others++;
      }
      assertEquals(others === 0, single.has(key.name), `${others} values beside the default`);
    });
  }
});

Deno.test("None is written where a key is not set although it is by default, and read for keys that need not be set", async () => {
  const config = makeConfig({ parallelism: { context_parallel_load_balancer: null } });
  assertEquals(tomlText(config).match(/^.*"None"$/gm), ['context_parallel_load_balancer = "None"']);
  const load = async (text: string) => (await loadConfig(["--config", "f"], () => text)).config;
  const { job, training } = await load('[job]\ndescription = "None"\n[training]\ndataset_path = "None"');
  assertEquals([job.description, training.dataset_path], ["None", null]);
});
