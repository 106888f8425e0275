/** A small model that trains a few steps, for tests of what may go wrong meanwhile.
 * @module */
import { makeBatch } from "../../data/batch.ts";
import type { Device } from "../../ffi/device.ts";
import { targetOf } from "../../graph/target/by_kind.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { BatchPart } from "../../train/batch_part.ts";
import { compileStep, type StepOptions } from "../../train/step_plan.ts";
import { StepProgram } from "../../train/step_program.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { KIND } from "./native.ts";

const seqLen = 8;

/** Losses of three steps, in the second of which actions become graphs. Several ranks share the parameters out.
 * @param before is called before each. */
export async function train(
  device: Device,
  place?: { readonly rank: number; readonly size: number },
  before: (step: number) => void = () => {},
): Promise<number[]> {
  const model = tinyLlama();
  const ranks = place && { mesh: new Mesh({ dp_shard: place.size }, place.size), rank: place.rank };
  const options: StepOptions = {
    model,
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    ...{ dtype: "f32", batch: 1, seqLen, accumulation: 1, threads: 1, target: targetOf({ kind: KIND }), ranks },
  };
  const { tokens, targets: next } = someRows(1, seqLen, model.vocabSize!), batch = makeBatch(1, seqLen);
  batch.tokens.set(tokens);
  batch.targets.set(next);
  using program = await StepProgram.load(device, compileStep(options), 1);
  await program.initialize(42);
  const losses: number[] = [];
  for (let step = 1; step <= 3; step++) {
    for (const views of program.microbatches) new BatchPart(seqLen, ranks).put(views, batch);
    before(step);
    losses.push((await program.step(step, 0.01)).loss);
  }
  return losses;
}
