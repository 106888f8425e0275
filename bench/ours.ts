/** This library's training step, timed on synthetic tokens: the contestant `ours` of bench.ts, with the options and the
 * output line of pytorch_llama.py. The same model, batch, clip and optimizer; a step is one call of the native program.
 * @module */

import process from "node:process";
import { parseArgs } from "node:util";
import { Actions } from "../ffi/buffer.ts";
import { Device } from "../ffi/device.ts";
import { Program } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import type { EncodedSection } from "../graph/passes/encode.ts";
import { llama } from "../model/llama.ts";
import { compileGraphs } from "../train/compile.ts";
import { traceInitialize, traceUpdate } from "../train/optimizer.ts";
import { traceMicrobatch } from "../train/step.ts";
import { median, sizeNamed } from "./report.ts";

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "debug" },
    steps: { type: "string", default: "5" },
    warmup: { type: "string", default: "2" },
    threads: { type: "string", default: "0" },
    dtype: { type: "string", default: "f32" },
  },
});
if (values.dtype !== "f32") {
  throw new Error(
    `Cannot train in ${values.dtype}\n  expected: f32, the one dtype of this version\n  fix: drop --dtype`,
  );
}
const dtype = values.dtype;
const size = sizeNamed(values.size);
const { batch, seqLen, vocabSize } = size;
const globalTokens = batch * seqLen;
const adamw = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

using device = new Device({ threads: Number(values.threads) });
const model = llama("debug", size);
const graphs = [
  traceInitialize(model, dtype),
  traceMicrobatch(model, { batch, seqLen, dtype, globalTokens }),
  traceUpdate(model, { dtype, globalTokens, ...adamw }),
];
const { program: { bytes, sections } } = compileGraphs(graphs, { threads: device.info.threads });
const [initialize, microbatch, update] = sections;

// The update's inputs and outputs lie behind the microbatch's; the initialisation runs alone.
const inputBase = microbatch.inputBytes, outputBase = microbatch.outputBytes;
using program = await Program.create(device, bytes, {
  inputBytes: inputBase + Math.max(update.inputBytes, initialize.inputBytes),
  outputBytes: outputBase + update.outputBytes,
});
const at = (slots: EncodedSection["inputs"], name: string): number => slots.find((slot) => slot.name === name)!.offset;
const integers = (name: string): Int32Array<ArrayBuffer> =>
  new Int32Array(program.input.buffer, at(microbatch.inputs, name), globalTokens);
const scalar = (buffer: ArrayBuffer, offset: number): Float32Array => new Float32Array(buffer, offset, 1);

await program.run(new Actions([{ section: initialize.index }]));

const [tokens, targets, positions] = ["tokens", "targets", "positions"].map(integers);
positions.forEach((_, i) => positions[i] = i % seqLen);
scalar(program.input.buffer, inputBase + at(update.inputs, "lr"))[0] = 3e-4;
const stepNumber = scalar(program.input.buffer, inputBase + at(update.inputs, "step"));
const loss = scalar(program.output.buffer, outputBase + at(update.outputs, "loss"));
const actions = new Actions([
  { section: microbatch.index, flags: Flag.FIRST },
  { section: update.index, inputBase, outputBase },
]);

const [steps, warmup] = [Number(values.steps), Number(values.warmup)];
const random = (): number => Math.floor(Math.random() * vocabSize);
const seconds: number[] = [];
for (let step = 1; step <= warmup + steps; step++) {
  for (let i = 0; i < globalTokens; i++) {
    tokens[i] = i % seqLen === 0 ? random() : targets[i - 1];
    targets[i] = random();
  }
  stepNumber[0] = step;
  const start = performance.now();
  await program.run(actions);
  if (step > warmup) seconds.push((performance.now() - start) / 1000);
}

// before the product, which has memory of its own
const peakGb = process.resourceUsage().maxRSS * 1024 / 1e9;
const product = await device.measure({ n: 2048 });
console.log(
  `tokens/s ${(globalTokens / median(seconds)).toFixed(1)} best ${(globalTokens / Math.min(...seconds)).toFixed(1)}` +
    ` peak GB ${peakGb.toFixed(2)} product GF/s ${product.toFixed(0)} loss ${loss[0].toFixed(4)}` +
    ` threads ${device.info.threads}`,
);
