import { assertEquals, assertStringIncludes } from "@std/assert";
import { vocabulary } from "../../../train/config/vocabulary.ts";
import { assertRefused, command, ended, spawn, tinyRun } from "./command_line.ts";

Deno.test("help lists every key, and needs no library", async () => {
  const { code, out, error } = await ended(spawn(["--help"], "/nowhere/libtitan.so"));
  assertEquals([code, error], [0, ""]);
  for (const name of vocabulary().keys.keys()) assertStringIncludes(out, `  --${name} `);
});

Deno.test("the configuration is printed where that is asked for", async () => {
  const { code, out } = await command("--job.print_config", "--dry-run", "--training.seq_len", "64");
  assertEquals(code, 0);
  assertEquals(JSON.parse(out.slice(0, out.indexOf("\n}\n") + 2)).training.seq_len, 64);
});

Deno.test("the configuration is printed as TOML that loads to the same, with warnings kept apart, and nothing is started", async () => {
  await using tiny = await tinyRun();
  const asked = [...tiny.config, "--mesh", "dp_shard=2", "--nproc", "2", "--lr_scheduler.warmup_steps", "500"];
  const { code, out, errors } = await command(...asked, "--print-config");
  assertEquals([code, errors.length], [0, 1]);
  assertStringIncludes(errors[0], "warning: lr_scheduler.warmup_steps = 500 is cut to the 3 steps");
  await Deno.writeTextFile(`${tiny.folder}/printed.toml`, out);
  assertEquals(await command("--config", `${tiny.folder}/printed.toml`, "--print-config"), { code, out, errors });
  for (const line of ["data_parallel_shard_degree = 2", "warmup_steps = 500", "dim = 16", "eps = 1e-8"]) {
    assertStringIncludes(out, `\n${line}\n`);
  }
  assertEquals([...Deno.readDirSync(tiny.folder)].map(({ name }) => name).sort(), ["printed.toml", "tiny.toml"]);
});

Deno.test("surprising settings are warned of", async () => {
  const { out } = await command("--dry-run", "--training.steps", "40", "--lr_scheduler.warmup_steps", "500");
  assertStringIncludes(out, "warning: lr_scheduler.warmup_steps = 500 is cut to the 40 steps of the schedule");
});

Deno.test("an unknown key is refused with the nearest one", async () => {
  await using tiny = await tinyRun();
  await Deno.writeTextFile(tiny.config[1], "[training]\nsequence_len = 8\n");
  assertRefused(await command(...tiny.config), "sequence_len", "tiny.toml", "training.seq_len");
});

Deno.test("a value of another type is refused with what is expected", async () => {
  await using tiny = await tinyRun();
  await Deno.writeTextFile(tiny.config[1], '[training]\nsteps = "many"\n');
  assertRefused(await command(...tiny.config), `training.steps = "many"`, "a whole number");
});

Deno.test("a config file that is missing is named", async () => {
  assertRefused(await command("--config", "nowhere.toml"), `Cannot read the config file "nowhere.toml"`);
});

Deno.test("a global batch that local batches do not fill is refused with its neighbours", async () => {
  await using tiny = await tinyRun();
  const outcome = await command(...tiny.config, "--training.global_batch_size", "5");
  assertRefused(outcome, "training.global_batch_size = 5", "write global_batch_size = 4", "6");
});
