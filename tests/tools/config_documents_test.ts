import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parse } from "@std/toml";
import { z } from "zod";
import { makeConfig, tomlText } from "../../train/config/config.ts";
import { foreignNames, isAddition } from "../../train/config/torchtitan.ts";
import { vocabulary } from "../../train/config/vocabulary.ts";
import { configPageText, configSchemaText } from "../../tools/config_documents.ts";

const schema = z.fromJSONSchema(JSON.parse(configSchemaText()));
const isTaken = (text: string) => schema.safeParse(parse(text)).success;

Deno.test("the schema takes the file of the default run, and any configuration that is written as TOML", async () => {
  const file = await Deno.readTextFile(new URL("../../configs/debug.toml", import.meta.url));
  assertStringIncludes(file, "#:schema ./schema.json\n");
  assert(isTaken(file));
  assert(isTaken(tomlText(makeConfig())));
  assert(isTaken(tomlText(makeConfig({ parallelism: { context_parallel_load_balancer: null } }))));
});

Deno.test("the schema refuses what a run refuses: keys and sections that are not known, types, ranges, features that are missing", () => {
  for (
    const text of [
      "[training]\nstpes = 1",
      "[trianing]\nsteps = 1",
      "[training]\nsteps = 0",
      '[training]\nsteps = "many"',
      '[model]\nenable_weight_tying = "yes"',
      '[training]\ndtype = "float16"',
      '[job]\nsave_config_file = "../config.toml"',
      "[metrics]\nenable_wandb = true",
      '[model]\nconverters = ["float7"]',
      "[quantize.linear.float9]\nemulate = false",
    ]
  ) assert(!isTaken(text), text);
});

Deno.test("the schema takes torchtitan's keys where they ask for nothing that is missing", () => {
  for (
    const text of [
      "[metrics]\nenable_wandb = false",
      "[compile]\nenable = true",
      '[model]\nconverters = []\n[quantize.linear.float8]\nfilter_fqns = ["output"]',
      '[parallelism]\npipeline_parallel_schedule = "Interleaved1F1B"',
      "[model]\nenable_weight_tying = true",
      '[lr_scheduler]\ntotal_steps = "None"',
    ]
  ) assert(isTaken(text), text);
});

Deno.test("the page has a row for every key, ours and torchtitan's, and says whose it is", () => {
  const page = configPageText();
  for (const { name, section, description } of vocabulary().keys.values()) {
    const of = page.slice(page.indexOf(`\n## [${section}]\n`)), end = of.indexOf("\n## ", 1);
    const row = of.slice(0, end).split("\n").find((line) =>
      line.startsWith(`| \`${name.slice(section.length + 1)}\` `)
    );
    assertStringIncludes(row ?? `no row of ${name}`, description);
    assertEquals(/ (\w+) +\|$/.exec(row!)![1], isAddition(name) ? "libtitan" : "torchtitan");
  }
  for (const name of foreignNames()) assertStringIncludes(page, `\n| \`${name}\` `);
});

Deno.test("what is ours alone is a key of ours, and no name of torchtitan's", () => {
  const names = [...vocabulary().keys.keys()].filter(isAddition);
  assertEquals(["model.dim", "data.lanes", "checkpoint.verify"].filter((name) => !names.includes(name)), []);
  for (const name of ["model.name", "model.flavor", "training.steps", "checkpoint.enable", "metrics.save_tb_folder"]) {
    assert(!names.includes(name), name);
  }
});
