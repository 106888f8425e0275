/** What goes wrong with disks and files, while whole runs save and load: what is told, and what stays as it was. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { texts } from "../../../data/dataset.ts";
import { library } from "../../../ffi/library.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { damages } from "../../../train/checkpoint/inspect.ts";
import { MANIFEST } from "../../../train/checkpoint/manifest.ts";
import { findCheckpoints } from "../../../train/checkpoint/open.ts";
import type { CheckpointOptions } from "../../../train/checkpoint/policy.ts";
import type { TrainOptions } from "../../../train/options.ts";
import { Trainer } from "../../../train/trainer.ts";
import { run as inspect } from "../../../tools/checkpoint.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { assertRefused, command, ended, spawn, tinyRun } from "../command/command_line.ts";
import { testRanks } from "../../native/mpirun.ts";

library(); // opened once by a process, and never closed

const STEPS = 6;

/** A run of {@linkcode STEPS} steps, and a folder for its checkpoints: all that it goes on from has 0.6 MB. */
async function plannedRun() {
  const folder = await temporaryFolder(), text = "The quick brown fox jumps over the lazy dog, and sleeps on. ";
  for (const name of ["a", "b"]) await Deno.writeTextFile(`${folder.path}/${name}.txt`, text.repeat(40));
  const checkpoints = `${folder.path}/checkpoint`;
  await Deno.mkdir(checkpoints);
  const options: TrainOptions = {
    model: tinyLlama({ vocabSize: 2048 }),
    data: texts(`${folder.path}/*.txt`),
    ...{ steps: STEPS, batch: 2, seqLen: 16, lr: 2e-2, lanes: 2, threads: 1 },
  };
  return { checkpoints, options, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

/** Makes the steps of a run: its losses by step, the steps whose save failed and why, and how it ended.
 * @param faults what happens behind a step. */
async function outcome(
  options: TrainOptions,
  checkpoint?: CheckpointOptions,
  faults: Readonly<Record<number, () => Promise<void>>> = {},
) {
  const losses: Record<number, number> = {}, failures: Record<number, string> = {};
  await using trainer = await Trainer.open({ ...options, checkpoint });
  let error: unknown;
  try {
    for await (const { step, loss, saved } of trainer) {
      losses[step] = loss;
      for (const { failure } of saved) if (failure) failures[step] = failure.message;
      await faults[step]?.();
    }
  } catch (thrown) {
    error = thrown;
  }
  return { losses, failures, error, from: trainer.start?.step ?? 0 };
}

/** Losses of all steps but the last, whose save ends a run when it fails. */
const but6 = ({ [STEPS]: _, ...losses }: Readonly<Record<number, number>>) => losses;

/** Fails unless a folder's only checkpoints are these, with every byte that was written. */
async function assertWhole(folder: string, steps: readonly number[]): Promise<void> {
  const { complete, broken } = findCheckpoints(folder);
  assertEquals([complete.map((c) => c.manifest.step), broken], [steps, []]);
  for (const checkpoint of complete) assertEquals(await damages(checkpoint), []);
}

/** A small file system in memory at a folder, where this process may mount one. */
async function mounted(path: string, size: string): Promise<AsyncDisposable & { remount(how: string): Promise<void> }> {
  const mount = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command(args[0], { args: args.slice(1) }).output();
    assert(success, `${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  };
  await mount("mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path);
  return {
    remount: (how) => mount("mount", "-o", `remount,${how}`, path),
    [Symbol.asyncDispose]: () => mount("umount", path),
  };
}

/** May this process mount? */
async function canMount(): Promise<boolean> {
  if (Deno.build.os !== "linux") return false;
  const folder = await Deno.makeTempDir();
  try {
    await using _disk = await mounted(folder, "4k");
    return true;
  } catch {
    return false;
  } finally {
    await Deno.remove(folder);
  }
}

const disks = await canMount();
const onDisk = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name: disks ? name : `${name} (skipped: mounting a disk needs root)`, ignore: !disks, fn });

onDisk("on a disk without room a save is a warning, training goes on, and an older checkpoint stays", async () => {
  await using run = await plannedRun();
  const { losses } = await outcome(run.options), folder = { folder: run.checkpoints };
  await using disk = await mounted(run.checkpoints, "1m");
  const full = await outcome(run.options, { ...folder, interval: 2, lastSaveModelOnly: false });
  assertEquals([but6(full.losses), Object.keys(full.failures)], [but6(losses), ["4"]]);
  assertMatch(
    full.failures[4],
    /^Cannot save checkpoint .*\/step-4: .*[Nn]o space left.*\n {2}expected: .*\n {2}fix: /,
  );
  assert(full.error instanceof CheckpointError);
  assertStringIncludes(full.error.message, "step-6: ");
  await assertWhole(run.checkpoints, [2]);
  await disk.remount("size=8m");
  const more = await outcome(run.options, { ...folder, interval: 2, lastSaveModelOnly: false });
  assertEquals([more.from, more.losses[6], more.error], [2, losses[6], undefined]);
  await assertWhole(run.checkpoints, [6, 4, 2]);
});

onDisk(
  "a folder that becomes read-only is a warning, and what was saved before goes on when it no longer is",
  async () => {
    await using run = await plannedRun();
    const { losses } = await outcome(run.options), options = { folder: run.checkpoints, interval: 2 };
    await using disk = await mounted(run.checkpoints, "8m");
    const result = await outcome(run.options, options, { 3: () => disk.remount("ro") });
    assertEquals([but6(result.losses), Object.keys(result.failures)], [but6(losses), ["4"]]);
    assertMatch(result.failures[4], /step-4: .*[Rr]ead-only/);
    assertStringIncludes((result.error as Error).message, "step-6: ");
    await assertWhole(run.checkpoints, [2]);
    const later = await outcome(run.options, { ...options, loadOnly: true });
    assertEquals([later.from, later.losses[6], later.error], [2, losses[6], undefined]);
    await disk.remount("rw");
    assertEquals((await outcome(run.options, options)).error, undefined);
    await assertWhole(run.checkpoints, [6, 4, 2]);
  },
);

Deno.test("a folder that vanishes while the run goes on is made anew at the next save", async () => {
  await using run = await plannedRun();
  const { losses } = await outcome(run.options);
  const vanish = () => Deno.remove(run.checkpoints, { recursive: true });
  const result = await outcome(run.options, { folder: run.checkpoints, interval: 2 }, { 3: vanish });
  assertEquals(result, { losses, failures: {}, error: undefined, from: 0 });
  await assertWhole(run.checkpoints, [6, 4]);
});

/** The command line of a run with a checkpoint of steps 2 and 4, stopped behind the latter, and the bytes of all that it has written. */
async function commandRun() {
  const tiny = await tinyRun(), folder = `${tiny.folder}/out/checkpoint`;
  const args = [...tiny.config, "--checkpoint.enable", "--checkpoint.interval", "2"];
  args.push("--checkpoint.no_last_save_model_only", "--training.steps");
  assertEquals((await command(...args, "4")).errors, []);
  /** Every file of both checkpoints, by its path from their folder. */
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const step of ["step-2", "step-4"]) {
    for (const { name } of Deno.readDirSync(`${folder}/${step}`)) {
      files.set(`${step}/${name}`, await Deno.readFile(`${folder}/${step}/${name}`));
    }
  }
  return { ...tiny, folder, files, goOn: (...more: string[]) => command(...args, "6", ...more) };
}

/** Fails unless all files but one are as they were. */
async function assertUntouched({ folder, files }: Awaited<ReturnType<typeof commandRun>>, but: string) {
  for (const [name, bytes] of files) {
    if (name !== but) assertEquals(await Deno.readFile(`${folder}/${name}`), bytes, name);
  }
}

/** What `deno task checkpoint verify` says of a folder. */
async function verify(path: string): Promise<{ code: number; text: string }> {
  const lines: string[] = [];
  try {
    return { code: await inspect(["verify", path], (line) => lines.push(line)), text: lines.join("\n") };
  } catch (error) {
    if (!(error instanceof CheckpointError)) throw error;
    return { code: 1, text: error.message };
  }
}

/** The tensor that a damage of a file is told by. */
const tensorOf: Record<string, string> = {
  "model.safetensors": '"tok_embeddings.weight"',
  "optimizer.safetensors": '"moment1/tok_embeddings.weight"',
};

Deno.test("a flipped byte in any file ends a run at its start, with the file and the tensor; an older step still works", async () => {
  await using run = await commandRun();
  for (const name of [...Object.keys(tensorOf), "state.json"]) {
    const file = `step-4/${name}`, path = `${run.folder}/${file}`, bytes = run.files.get(file)!;
    for (const at of [5, bytes.length >> 1, bytes.length - 1]) {
      const flipped = bytes.slice();
      flipped[at] ^= 0x10;
      await Deno.writeFile(path, flipped);
      const place = tensorOf[name] ? [at === bytes.length - 1 ? "weight" : tensorOf[name]] : [];
      if (name === "model.safetensors" || at === 5) {
        assertRefused(await run.goOn(), `${path} is damaged`, ...place, "checkpoint.load_step", "(checkpoint)");
      }
      const { code, text } = await verify(`${run.folder}/step-4`);
      assertEquals(code, 1);
      for (const part of [name, ...place]) assertStringIncludes(text, part);
      await assertUntouched(run, file);
    }
    await Deno.writeFile(path, bytes);
  }
  await Deno.writeFile(
    `${run.folder}/step-4/model.safetensors`,
    new Uint8Array(run.files.get("step-4/model.safetensors")!.length),
  );
  const { errors, out } = await run.goOn("--checkpoint.load_step", "2");
  assertEquals(errors, []);
  assertStringIncludes(out, "step-2: step 2, ");
});

Deno.test("a file that misses a byte, is cut off, empty or gone is told, and the run goes on from the step before", async () => {
  await using run = await commandRun();
  const lefts = { "a byte less": -1, "the half": 0.5, "nothing": 0, "no file": undefined };
  for (const [i, name] of [...Object.keys(tensorOf), "state.json", MANIFEST].entries()) {
    const file = `step-4/${name}`, path = `${run.folder}/${file}`, bytes = run.files.get(file)!;
    for (const [k, left] of Object.values(lefts).entries()) {
      const rest = left === undefined ? undefined : left < 0 ? bytes.length - 1 : Math.floor(bytes.length * left);
      if (name === MANIFEST && left === -1) continue; // that is the end of its line
      if (rest === undefined) await Deno.remove(path);
      else await Deno.writeFile(path, bytes.subarray(0, rest));
      const says = (told: string) => {
        assertStringIncludes(told, "step-4");
        if (name !== MANIFEST) assertMatch(told, new RegExp(`${name} (is missing|has ${rest} bytes)`));
        assertStringIncludes(told, tensorOf[name] ?? "");
      };
      const { code, text } = await verify(`${run.folder}/step-4`);
      assertEquals(code, 1);
      says(text);
      if (i !== k) continue; // a run for each kind of damage, and for each file
      const { out, errors } = await run.goOn("--checkpoint.load_only");
      assertEquals(errors, []);
      assertStringIncludes(out, "step-2: step 2, ");
      says(/passed over: (.*)/.exec(out)![1]);
      await assertUntouched(run, file);
    }
    await Deno.writeFile(path, bytes);
  }
});

Deno.test("a file of another run or another model, put in place, is not taken for the one that was written", async () => {
  await using run = await commandRun();
  const other = await tinyRun(),
    save = ["--checkpoint.enable", "--checkpoint.no_last_save_model_only", "--training.steps=1"];
  await using _other = other;
  for (const [key, value] of [["debug.seed", "7"], ["model.dim", "32"]]) {
    assertEquals((await command(...other.config, ...save, `--${key}=${value}`)).errors, []);
    const theirs = `${other.folder}/out/checkpoint/step-1`;
    for (const [name, tensor] of Object.entries(tensorOf)) {
      const path = `${run.folder}/step-4/${name}`;
      await Deno.copyFile(`${theirs}/${name}`, path);
      const outcome = await run.goOn("--checkpoint.load_step", "4");
      assertRefused(outcome, `step-4`, name, tensor, key === "debug.seed" ? "is damaged" : " bytes", "(checkpoint)");
      assertEquals((await verify(`${run.folder}/step-4`)).code, 1);
      await assertUntouched(run, `step-4/${name}`);
      await Deno.writeFile(path, run.files.get(`step-4/${name}`)!);
    }
    await Deno.remove(`${other.folder}/out`, { recursive: true });
  }
});

testRanks(
  "a missing shard of several ranks is told with what it has, and the others are not read in its place",
  async () => {
    const tiny = await tinyRun();
    await using _tiny = tiny;
    const args = [...tiny.config, "--checkpoint.enable", "--checkpoint.no_last_save_model_only", "--training.steps"];
    const { code, error } = await ended(spawn([...args, "2", "--nproc", "2", "--mesh", "dp_shard=2"], library().path));
    assertEquals([code, error], [0, ""]);
    const path = `${tiny.folder}/out/checkpoint/step-2`, shard = "model-00002-of-00002.safetensors";
    const bytes = await Deno.readFile(`${path}/${shard}`);
    await Deno.remove(`${path}/${shard}`);
    const tensor = `, of "tok_embeddings.weight", `;
    assertRefused(await command(...args, "4"), `${shard} is missing${tensor}`, "its only checkpoint is not complete");
    assertRefused(await command(...args, "4", "--checkpoint.load_step=2"), `step-2: ${shard} is missing${tensor}`);
    assertEquals((await verify(path)).code, 1);
    await Deno.copyFile(`${path}/model-00001-of-00002.safetensors`, `${path}/${shard}`);
    assertRefused(await command(...args, "4"), `${shard} has `, tensor);
    await Deno.writeFile(`${path}/${shard}`, bytes);
    assertEquals((await command(...args, "4")).errors, []);
  },
);

onDisk("a save that failed leaves no remains, so that a smaller one fits", async () => {
  await using run = await plannedRun();
  await using _disk = await mounted(run.checkpoints, "1200k");
  const { failures, error } = await outcome(run.options, { folder: run.checkpoints, interval: 2 });
  assertEquals([Object.keys(failures), error], [["4"], undefined]);
  await assertWhole(run.checkpoints, [6, 2]);
});
