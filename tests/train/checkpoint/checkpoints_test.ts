import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { texts } from "../../../data/dataset.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { findCheckpoints } from "../../../train/checkpoint/manifest.ts";
import type { CheckpointOptions } from "../../../train/checkpoint/policy.ts";
import { Trainer, type TrainOptions, type TrainStep } from "../../../train/trainer.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tinyLlama } from "../../model/tiny.ts";

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
    const checkpoint: CheckpointOptions = { folder: tiny.folder, interval: 5, lastSaveModelOnly: false };
    const first = await trained({ ...options, checkpoint }, 9); // stopped: saved at 5 and at 8
    assertEquals(first.steps.filter((s) => s.saved).map((s) => s.step), [5]);
    const second = await trained({ ...options, checkpoint });
    assertEquals(second.start?.path, `${tiny.folder}/step-8`);
    assertEquals([...first.losses, ...second.losses], whole.losses);
    assertEquals(second.states, whole.states);
    assertEquals(findCheckpoints(tiny.folder).complete.map((c) => c.manifest.step), [12, 10, 8, 5]);
  });
}
