import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { texts } from "../../../data/dataset.ts";
import { library } from "../../../ffi/library.ts";
import { Llama, type LlamaOptions } from "../../../model/llama.ts";
import type { Batch, LossSum, TrainableModel } from "../../../model/loss.ts";
import { Module } from "../../../model/module.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { exportHuggingFace } from "../../../train/weights/export.ts";
import { load } from "../../../train/checkpoint/load.ts";
import { readTensor } from "../../../train/checkpoint/inspect.ts";
import { findCheckpoints, openCheckpoint } from "../../../train/checkpoint/open.ts";
import type { CheckpointOptions, Part } from "../../../train/checkpoint/policy.ts";
import type { TrainOptions, TrainStep } from "../../../train/options.ts";
import { StepProgram } from "../../../train/step_program.ts";
import { numbersOf, setNumbers } from "../../../train/typed_array.ts";
import { train, Trainer } from "../../../train/trainer.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tinyLlama } from "../../model/tiny.ts";

library(); // opened once by a process, and never closed

const sentence = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ";

/** A folder with two texts, options to train on them in a moment, and a folder for checkpoints. */
async function tinyRun(): Promise<AsyncDisposable & { readonly options: TrainOptions; readonly folder: string }> {
  const folder = await temporaryFolder();
  for (const name of ["a", "b"]) await Deno.writeTextFile(`${folder.path}/${name}.txt`, sentence.repeat(40));
  const options: TrainOptions = {
    model: tinyLlama({ vocabSize: 2048 }),
    data: texts(`${folder.path}/*.txt`),
    ...{ steps: 12, batch: 2, seqLen: 16, lr: 2e-2, lanes: 2, threads: 1 },
  };
  return { options, folder: `${folder.path}/checkpoint`, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

/** What a run leaves: losses by step, all lasting states, and what was said. */
async function trained(options: TrainOptions, until = Infinity) {
  await using trainer = await Trainer.open(options);
  const steps: TrainStep[] = [];
  for await (const step of trainer) {
    steps.push(step);
    if (step.step === until - 1) trainer.stop();
  }
  const names = trainer.program.lasting().states.map((s) => s.name), states: Record<string, number[]> = {};
  for (const name of names) states[name] = [...await trainer.program.readState(name)];
  return {
    saves: trainer.saves,
    steps,
    losses: steps.map((s) => [s.step, s.loss, s.gradNorm, s.lr, s.tokensSeen]),
    states,
    start: trainer.start,
  };
}

const variants: Readonly<Record<string, Partial<TrainOptions>>> = {
  "plain": {},
  "in f64": { dtype: "f64" },
  "with accumulation": { accumulation: 2 },
  "with documents and activation checkpointing": { documents: true, remat: { mode: "full" } },
  "with bf16 in products": { precision: { param: "bf16" } },
  "with bf16 in everything that is stored": { precision: { param: "bf16", reduce: "bf16", stored: "bf16" } },
};
for (const [name, variant] of Object.entries(variants)) {
  Deno.test(`a run that is stopped and resumed is the one that was not, bit for bit: ${name}`, async () => {
    await using tiny = await tinyRun();
    const options = { ...tiny.options, ...variant }, whole = await trained(options);
    for (const async of [false, true]) {
      const folder = `${tiny.folder}-${async}`, last = { lastSaveModelOnly: false };
      const checkpoint: CheckpointOptions = { folder, interval: 5, async, ...last };
      const first = await trained({ ...options, checkpoint }, 9); // stopped: saved at 5 and at 8
      assertEquals(first.saves.map((s) => s.path), [5, 8].map((n) => `${folder}/step-${n}`));
      const second = await trained({ ...options, checkpoint });
      assertEquals(second.start?.path, `${folder}/step-8`);
      assertEquals([...first.losses, ...second.losses], whole.losses);
      assertEquals(differing(second.states, whole.states), []);
      assertEquals(findCheckpoints(folder).complete.map((c) => c.manifest.step), [12, 10, 8, 5]);
    }
  });
}

/** The names under which two records have other numbers. */
function differing(a: Readonly<Record<string, number[]>>, b: typeof a): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => `${a[name]}` !== `${b[name]}`);
}

/** Has all states be copied slowly, as long as the result is not disposed of: steps of a tiny model come to their update long before. */
function slowCopies(ms: number): Disposable {
  const { lasting } = StepProgram.prototype;
  StepProgram.prototype.lasting = function (...kinds) {
    const own = lasting.apply(this, kinds), { memory } = own;
    const read = async (offset: number, into: Uint8Array<ArrayBuffer>) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
      await memory.read(offset, into);
    };
    return { ...own, memory: { read, write: memory.write.bind(memory) } };
  };
  return { [Symbol.dispose]: () => void (StepProgram.prototype.lasting = lasting) };
}

Deno.test("what is saved beside training are the values of its step, though the next update would come before they are copied", async () => {
  await using tiny = await tinyRun();
  const tensors = async (async: boolean) => {
    const folder = `${tiny.folder}-${async}`, checkpoint: CheckpointOptions = { folder, interval: 4, async };
    const run = await trained({ ...tiny.options, checkpoint });
    const saved = openCheckpoint(`${folder}/step-4`), values: Record<string, number[]> = {};
    for (const name of Object.keys(saved.manifest.tensors)) values[name] = [...await readTensor(saved, name)];
    return { values, run };
  };
  const expected = await tensors(false);
  using _slow = slowCopies(20);
  const { values, run } = await tensors(true);
  assertEquals(differing(values, expected.values), []);
  assertEquals(run.losses, expected.run.losses);
  assertEquals(differing(run.states, expected.run.states), []);
  const [first] = run.saves;
  assert(first.stallMs > 100, `the update of step 5 waited ${first.stallMs} ms`);
});

Deno.test("a checkpoint that is due while another is written waits for that, and none is lost", async () => {
  await using tiny = await tinyRun();
  using _slow = slowCopies(10);
  const folder = tiny.folder,
    run = await trained({ ...tiny.options, checkpoint: { folder, interval: 1, async: true } });
  assertEquals(run.saves.map((s) => s.path), run.steps.map((s) => `${folder}/step-${s.step}`));
  assertEquals(findCheckpoints(folder).complete.map((c) => c.manifest.step), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
});

Deno.test("a loop that is left while a checkpoint is written waits for it", async () => {
  await using tiny = await tinyRun();
  using _slow = slowCopies(10);
  const checkpoint = { folder: tiny.folder, interval: 4, async: true };
  for await (const { step } of train({ ...tiny.options, checkpoint })) if (step === 4) break;
  assertEquals(findCheckpoints(tiny.folder).complete.map((c) => c.manifest.step), [4]);
});

Deno.test("a save that fails is a warning while training can go on, and an error at the end", async () => {
  await using tiny = await tinyRun();
  const checkpoint: CheckpointOptions = { folder: tiny.folder, interval: 2 };
  await using trainer = await Trainer.open({ ...tiny.options, steps: 5, checkpoint });
  await Deno.writeTextFile(tiny.folder, "a file where the folder should be");
  const seen: string[] = [];
  const error = await Array.fromAsync(trainer, ({ step, saved }) => {
    seen.push(`${step}${saved[0]?.failure ? " unsaved" : ""}`);
  }).catch((error) => error);
  assertEquals(seen, ["1", "2 unsaved", "3", "4 unsaved", "5"]);
  assert(error instanceof CheckpointError);
  assertStringIncludes(error.message, `Cannot save checkpoint ${tiny.folder}/step-5`);
  assertEquals(trainer.step, 5);
  await Deno.remove(tiny.folder);
  await using strict = await Trainer.open({ ...tiny.options, checkpoint: { ...checkpoint, goOnUnsaved: false } });
  await Deno.writeTextFile(tiny.folder, "again");
  const first = await Array.fromAsync(strict).catch((error) => error);
  assert(first instanceof CheckpointError);
  assertEquals(strict.step, 2);
});

Deno.test("parts that are excluded begin anew: fine-tuning takes parameters, and its own data, steps and optimizer", async () => {
  await using tiny = await tinyRun();
  const folder = { folder: tiny.folder, interval: 100 },
    trainedOn = await trained({ ...tiny.options, checkpoint: folder });
  const other = {
    ...tiny.options,
    checkpoint: { folder: `${tiny.folder}2`, initialLoadPath: `${tiny.folder}/step-12` },
  };
  await using tuned = await Trainer.open(other);
  assertEquals([tuned.start?.parts, tuned.step], [["model"], 0]);
  const states = tuned.program.lasting().states.map((s) => s.name);
  for (const name of states) {
    const values = [...await tuned.program.readState(name)];
    assertEquals(values, name.startsWith("moment") ? values.map(() => 0) : trainedOn.states[name], name);
  }
});

for (const tiedEmbeddings of [false, true]) {
  Deno.test(`weights go out as transformers has them, and come back into another run${tiedEmbeddings ? ", tied ones too" : ""}`, async () => {
    await using tiny = await tinyRun();
    const model = tinyLlama({ vocabSize: 2048, tiedEmbeddings }), exported = `${tiny.folder}/exported`;
    const first = await trained({ ...tiny.options, model, checkpoint: { folder: tiny.folder, interval: 100 } });
    const [checkpoint] = findCheckpoints(tiny.folder).complete;
    const { llama } = JSON.parse(await Deno.readTextFile(`${checkpoint.path}/state.json`));
    await exportHuggingFace(checkpoint, { name: "llama", sizes: llama }, exported);
    const folder = { folder: `${tiny.folder}2`, initialLoadPath: exported, initialLoadInHf: true };
    await using tuned = await Trainer.open({ ...tiny.options, model: new Llama(llama), checkpoint: folder });
    assertEquals(tuned.start?.parts, ["model"]);
    for (const { name } of tuned.program.lasting(["parameter"]).states) {
      assertEquals([...await tuned.program.readState(name)], first.states[name], name);
    }
  });
}

Deno.test("a learning rate's schedule that is excluded begins anew, and all else goes on", async () => {
  await using tiny = await tinyRun();
  const checkpoint: CheckpointOptions = { folder: tiny.folder, interval: 100, lastSaveModelOnly: false };
  const [first] = (await trained({ ...tiny.options, checkpoint }, 6)).steps;
  const anew = await trained(
    { ...tiny.options, checkpoint: { ...checkpoint, excludeFromLoading: ["lr_scheduler"] } },
    8,
  );
  assertEquals([anew.steps[0].step, anew.steps[0].lr], [6, first.lr]);
  assertEquals((await trained({ ...tiny.options, checkpoint })).steps[0].lr === first.lr, false);
});

Deno.test("the last save may be in f16, and is made in the run's own type where a weight is beyond that", async () => {
  await using tiny = await tinyRun();
  for (const [name, weight, dtype] of [["within", 1, "f16"], ["beyond", 1e6, "f32"]] as const) {
    const folder = `${tiny.folder}-${name}`, options = { ...tiny.options, steps: 1, lr: 1e-6 };
    await using trainer = await Trainer.open({ ...options, checkpoint: { folder, exportDtype: "f16" } });
    await trainer.program.writeState("norm.weight", new Float32Array(16).fill(1).with(3, weight));
    for await (const _ of trainer);
    const [checkpoint, ...others] = findCheckpoints(folder).complete;
    assertEquals([checkpoint.manifest.tensors["norm.weight"].dtype, others], [dtype, []]);
    const [saved, now] = [await readTensor(checkpoint, "norm.weight"), await trainer.program.readState("norm.weight")];
    assertEquals([...saved], dtype === "f16" ? Array.from(now, Math.f16round) : [...now]);
    const failures = trainer.saves.flatMap(({ failure }) => failure ? [failure.message] : []);
    assertEquals(failures.length, dtype === "f16" ? 0 : 1);
    for (const message of failures) {
      assertStringIncludes(message, 'Cannot write "norm.weight": ');
      assertStringIncludes(message, "expected: values from -65504 to 65504\n  fix: write bf16");
    }
  }
});

Deno.test("a program saves when it likes, under any name", async () => {
  await using tiny = await tinyRun();
  await using trainer = await Trainer.open(tiny.options);
  for await (const { step } of trainer) if (step === 3) trainer.stop();
  const saved = await trainer.save(`${tiny.folder}/step-3`, "model");
  assertEquals([saved.path, saved.content], [`${tiny.folder}/step-3`, "model"]);
  const [found] = findCheckpoints(tiny.folder).complete;
  assertEquals([found.manifest.step, found.manifest.content], [3, "model"]);
  assertEquals(Object.keys(found.manifest.files), ["model.safetensors", "state.json"]);
  const loaded = load(saved.path), parameters = await Array.fromAsync(trainer.parameters());
  assertEquals(parameters.map((p) => p.name), Object.keys(found.manifest.tensors));
  for (const { name, shape, values } of parameters) {
    assertEquals([shape, `${values}`], [loaded.tensors.get(name)?.shape, `${await loaded.read(name)}`], name);
  }
});

Deno.test("a part that is excluded begins anew, and every other goes on where it was", async () => {
  await using tiny = await tinyRun();
  const lrSchedule = {
    warmupSteps: 20,
    totalSteps: 40,
    decayRatio: null,
    decayType: "linear",
    minLrFactor: 0,
  } as const;
  const options = { ...tiny.options, lrSchedule, steps: 20 }, { steps: whole } = await trained(options, 13);
  const checkpoint: CheckpointOptions = { folder: tiny.folder, interval: 4, lastSaveModelOnly: false };
  const resumed = async (until: number, ...excludeFromLoading: Part[]) =>
    (await trained({ ...options, checkpoint: { ...checkpoint, excludeFromLoading } }, until)).steps;
  const numbers = (steps: readonly TrainStep[]) => steps.map((s) => [s.lr, s.loss, s.gradNorm]);
  await resumed(5);
  const anew = await resumed(9, "train_state");
  assertEquals(anew.map((s) => s.step), [1, 2, 3, 4, 5, 6, 7, 8]);
  assertEquals(numbers(anew), numbers(whole.slice(4, 12)));
  const further = await resumed(11);
  assertEquals(further.map((s) => [s.step, (s.lr / whole[0].lr).toFixed(6)]), [[9, "13.000000"], [10, "14.000000"]]);
  const norm = async (step: number) => await readTensor(openCheckpoint(`${tiny.folder}/step-${step}`), "norm.weight");
  const before = await norm(10), [step] = await resumed(12, "optimizer"), after = await norm(11);
  const moved = Math.max(...after.map((x, i) => Math.abs(x - before[i] * (1 - 0.1 * step.lr))));
  assert(Math.abs(moved / step.lr - 1) < 0.01, `it moves by ${moved / step.lr} of the learning rate`);
});

Deno.test("a run that goes back to a step puts later ones aside before it saves, and the next goes on from its own", async () => {
  await using tiny = await tinyRun();
  const all: CheckpointOptions = { folder: tiny.folder, interval: 2, lastSaveModelOnly: false };
  const names = () => [...Deno.readDirSync(tiny.folder)].map((e) => e.name).sort();
  await trained({ ...tiny.options, steps: 6, checkpoint: all });
  await trained({ ...tiny.options, steps: 3, checkpoint: { ...all, loadStep: 2 } });
  assertEquals(names(), ["step-2", "step-3", "step-4.aside", "step-6.aside"]);
  const last = await trained({ ...tiny.options, steps: 6, checkpoint: all });
  assertEquals(last.start?.path, `${tiny.folder}/step-3`);
  assertEquals(names(), ["step-2", "step-3", "step-4", "step-4.aside", "step-6", "step-6.aside"]);
});

Deno.test("the last step is saved as a folder that transformers opens, and another run begins with it", async () => {
  await using tiny = await tinyRun();
  const last: CheckpointOptions = { folder: tiny.folder, interval: 100, lastSaveInHf: true, exportDtype: "bf16" };
  const first = await trained({ ...tiny.options, steps: 3, checkpoint: last }), path = `${tiny.folder}/step-3`;
  const names = [...Deno.readDirSync(path)].map((e) => e.name).sort();
  assertEquals(names.filter((n) => /model|^config/.test(n)), ["config.json", "model.safetensors"]);
  assert(names.includes("tokenizer.json"), `${names}`);
  const loaded = load(path);
  assertEquals([...loaded.tensors.values()].every(({ dtype }) => dtype === "bf16"), true);
  const name = "layers.0.attention.wq.weight", nearest = new Uint16Array(first.states[name].length);
  setNumbers(nearest, "bf16", first.states[name]);
  assertEquals(`${await loaded.read(name)}`, `${numbersOf(nearest, "bf16")}`);
  const again = Trainer.open({ ...tiny.options, checkpoint: { folder: tiny.folder } });
  assertStringIncludes((await assertRejects(() => again, CheckpointError)).message, "has parameters alone");
  await using tuned = await Trainer.open({ ...tiny.options, checkpoint: { folder: tiny.folder, loadStep: 3 } });
  assertEquals(tuned.start?.parts, ["model"]);
});

Deno.test("a last save that cannot become such a folder keeps the weights, and says how to make one", async () => {
  await using tiny = await tinyRun();
  const last: CheckpointOptions = { folder: tiny.folder, interval: 100, lastSaveInHf: true };
  const run = trained({ ...tiny.options, steps: 3, checkpoint: last, model: new Named({ vocabSize: 2048 }) });
  const { message } = await assertRejects(() => run, CheckpointError);
  assertMatch(message, /^Cannot save [^:]+ as transformers has it: its model is of no known family\n/);
  assertEquals(findCheckpoints(tiny.folder).complete.map((c) => c.manifest.content), ["model"]);
});

/** A model of one's own that happens to compute as a Llama. */
class Named extends Module implements TrainableModel {
  readonly inner: Llama;
  constructor(sizes: LlamaOptions) {
    super();
    this.inner = tinyLlama(sizes);
  }
  loss(batch: Batch): LossSum {
    return this.inner.loss(batch);
  }
}
