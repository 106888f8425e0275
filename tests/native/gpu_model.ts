/** A small model that trains a few steps, for tests of what may go wrong meanwhile.
 * @module */
import { makeBatch } from "../../data/batch.ts";
import { Actions } from "../../ffi/buffer.ts";
import type { Device } from "../../ffi/device.ts";
import { Flag } from "../../ffi/symbols.ts";
import { numel } from "../../graph/ir.ts";
import type { EncodedSection } from "../../graph/passes/encode.ts";
import type { HostSlot } from "../../graph/passes/memory.ts";
import { targetOf } from "../../graph/target/cuda.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { BatchPart } from "../../train/batch_part.ts";
import type { MeshLayout } from "../../train/ranks.ts";
import { type CompiledStep, compileStep } from "../../train/step_plan.ts";
import { StepProgram } from "../../train/step_program.ts";
import { typedArray } from "../../train/typed_array.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { KIND } from "./native.ts";

const seqLen = 8, STEPS = 3, SEED = 42, LR = 0.01;
const model = tinyLlama({ numLayers: 1, numHeads: 2 });

function compiled(ranks?: MeshLayout): CompiledStep {
  return compileStep({
    model,
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    ...{ dtype: "f32", batch: 1, seqLen, accumulation: 1, threads: 1, target: targetOf({ kind: KIND }), ranks },
  });
}

function someBatch() {
  const { tokens, targets: next } = someRows(1, seqLen, model.vocabSize!), batch = makeBatch(1, seqLen);
  batch.tokens.set(tokens);
  batch.targets.set(next);
  return batch;
}

/** Losses of three steps, in the second of which actions become graphs. Several ranks share the parameters out.
 * @param before is called before each. */
export async function train(
  device: Device,
  place?: { readonly rank: number; readonly size: number },
  before: (step: number) => void = () => {},
): Promise<number[]> {
  const ranks = place && { mesh: new Mesh({ dp_shard: place.size }, place.size), rank: place.rank };
  const batch = someBatch(), losses: number[] = [];
  using program = await StepProgram.load(device, compiled(ranks), 1);
  await program.initialize(SEED);
  for (let step = 1; step <= STEPS; step++) {
    for (const views of program.microbatches) new BatchPart(seqLen, ranks).put(views, batch);
    before(step);
    losses.push((await program.step(step, LR)).loss);
  }
  return losses;
}

/** What a rank gives the native library for these steps, and where it then finds a step's loss. */
export interface Encoded {
  readonly program: Uint8Array;
  /** The parameters' first values, then each step. */
  readonly runs: readonly { readonly actions: Uint8Array; readonly input: Uint8Array }[];
  readonly lossOf: (output: Uint8Array<ArrayBuffer>) => number;
}

/** The same steps for who runs them without Deno. */
export function encoded(ranks: MeshLayout): Encoded {
  const { program: { bytes, sections } } = compiled(ranks);
  const [initialize, microbatch, update] = ["initialize", "microbatch", "update"].map((name) =>
    sections.find((section) => section.name === name)!
  );
  const view = (buffer: ArrayBuffer, base: number, slots: readonly HostSlot[], name: string) => {
    const { value, offset } = slots.find((slot) => slot.name === name)!;
    return typedArray(value.dtype, buffer, base + offset, numel(value.shape));
  };
  const last = microbatch.inputBytes, after = microbatch.outputBytes;
  const { index, inputs, inputBytes } = initialize, seed = new Uint8Array(inputBytes);
  view(seed.buffer, 0, inputs, "seed")[0] = SEED;
  const { FIRST, LAST } = Flag;
  const step = (number: number) => {
    const input = new Uint8Array(last + update.inputBytes);
    const place = (section: EncodedSection, base: number, name: string) =>
      view(input.buffer, base, section.inputs, name);
    const [tokens, targets, positions] = ["tokens", "targets", "positions"].map((name) => place(microbatch, 0, name));
    new BatchPart(seqLen, ranks).put({ tokens, targets, positions }, someBatch());
    place(update, last, "lr")[0] = LR;
    place(update, last, "step")[0] = number;
    const actions = [{ section: microbatch.index, flags: FIRST | LAST }, {
      ...{ section: update.index, inputBase: last, outputBase: after },
    }];
    return { actions: new Actions(actions).bytes, input };
  };
  return {
    program: bytes,
    runs: [
      { actions: new Actions([{ section: index, flags: FIRST }]).bytes, input: seed },
      ...Array.from({ length: STEPS }, (_, i) => step(i + 1)),
    ],
    lossOf: (output) => view(output.buffer, after, update.outputs, "loss")[0],
  };
}
