/** The files of `configs/`. @module */
import { assert, assertEquals } from "@std/assert";
import { type Config, loadConfig, lrSchedule, modelSizes, trainOptions } from "../../../train/config/config.ts";

const text = (path: string) => Deno.readTextFileSync(new URL(path, import.meta.url));
const load = (path: string) => loadConfig(["--config", path], text);

const files = [...Deno.readDirSync(new URL("../../../configs/", import.meta.url))].map(({ name }) => name)
  .filter((name) => name.endsWith(".toml")).sort();

Deno.test("each file names the schema, says what it is for, is taken without a word, and writes into a folder of its own", async (t) => {
  assert(files.length > 5, files.join(" "));
  const folders = new Set<string>();
  for (const name of files) {
    await t.step(name, async () => {
      const [schema, what] = text(`../../../configs/${name}`).split("\n");
      assertEquals([schema, what.startsWith("# ")], ["#:schema ./schema.json", true]);
      const { config, warnings } = await load(`../../../configs/${name}`);
      assertEquals(warnings, []);
      folders.add(config.job.dump_folder);
    });
  }
  assertEquals(folders.size, files.length);
});

Deno.test("the files of larger models train as torchtitan's do", async () => {
  const trained = (config: Config) => {
    const { model, optimizer, training, parallelism, activation_checkpoint } = config;
    const path = { ...training, dataset_path: null }, { flavor, hf_assets_path } = model;
    return [flavor, hf_assets_path, optimizer, lrSchedule(config), path, parallelism, activation_checkpoint.mode];
  };
  for (const name of ["llama3_8b", "llama3_70b", "llama3_405b"]) {
    const own = await load(`../../../configs/${name}.toml`), args = ["--config", `./torchtitan/${name}.toml`];
    const theirs = await loadConfig(args, (path) => text(path).replace(/^converters.*|^.*_float8_.* = true$/gm, ""));
    assertEquals(trained(own.config), trained(theirs.config), name);
  }
});

Deno.test("the laptop's run is of the default model, keeps within documents, can be watched, and sees nine million tokens", async () => {
  const { config } = await load("../../../configs/laptop.toml"), { metrics, training, checkpoint } = config;
  assertEquals(modelSizes(config), modelSizes((await load("../../../configs/debug.toml")).config));
  assertEquals([trainOptions(config).documents, metrics.live, metrics.sample_freq > 0, checkpoint.enable], [
    true,
    true,
    true,
    true,
  ]);
  assertEquals(training.steps * training.local_batch_size * training.seq_len, 9_011_200);
});
