/** This library's training step, timed on synthetic tokens: the contestant `ours` of bench.ts, with the options and the
 * output lines of pytorch_llama.py. The same model, batch, clip and optimizer; a step is one call of the native program.
 * @module */

import process from "node:process";
import { parseArgs } from "node:util";
import { Device } from "../ffi/device.ts";
import { library } from "../ffi/library.ts";
import { trainOptions } from "../train/command.ts";
import { makeConfig, type PartialConfig } from "../train/config.ts";
import { precisionOf } from "../train/precision.ts";
import { compileStep, StepProgram } from "../train/step_program.ts";
import { complete } from "../train/trainer.ts";
import { median, type Size, sizeNamed } from "./report.ts";

/** The configuration that trains a benchmarked size; bf16 is that of `training.mixed_precision_param`. */
function configOf(size: Size, dtype: string): PartialConfig {
  return {
    model: {
      flavor: "debugmodel",
      dim: size.dim,
      n_layers: size.numLayers,
      n_heads: size.numHeads,
      n_kv_heads: size.numKvHeads,
      ffn_hidden_dim: size.ffnHiddenDim,
      vocab_size: size.vocabSize,
    },
    training: {
      local_batch_size: size.batch,
      seq_len: size.seqLen,
      mixed_precision_param: dtype === "bf16" ? "bfloat16" : "float32",
    },
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 },
  };
}

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "debug" },
    steps: { type: "string", default: "5" },
    warmup: { type: "string", default: "2" },
    threads: { type: "string", default: "0" },
    dtype: { type: "string", default: "f32" },
  },
});
const size = sizeNamed(values.size), { batch, seqLen, vocabSize } = size;
const options = complete(trainOptions(makeConfig(configOf(size, values.dtype))));
using device = new Device({ threads: Number(values.threads) });

const compileStart = performance.now();
const precision = precisionOf(options.precision, options.dtype, device.info);
const compiled = compileStep({ ...options, precision, threads: device.info.threads });
const compileSeconds = (performance.now() - compileStart) / 1000;
using program = await StepProgram.load(device, compiled, options.accumulation);
await program.initialize(0);

const [{ tokens, targets, positions }] = program.microbatches;
for (let i = 0; i < batch * seqLen; i++) positions[i] = i % seqLen;
const [steps, warmup] = [Number(values.steps), Number(values.warmup)];
const random = (): number => Math.floor(Math.random() * vocabSize);
const seconds: number[] = [];
let lastLoss = NaN;
for (let step = 1; step <= warmup + steps; step++) {
  for (let i = 0; i < batch * seqLen; i++) {
    tokens[i] = i % seqLen === 0 ? random() : targets[i - 1];
    targets[i] = random();
  }
  const start = performance.now();
  ({ loss: lastLoss } = await program.step(step, 3e-4));
  if (step > warmup) seconds.push((performance.now() - start) / 1000);
  if (step === 1) console.log("first step");
}

const rate = (s: number): string => (batch * seqLen / s).toFixed(1);
const peakGb = process.resourceUsage().maxRSS * 1024 / 1e9;
console.log(
  `tokens/s ${rate(median(seconds))} best ${rate(Math.min(...seconds))} peak GB ${peakGb.toFixed(2)}` +
    ` compile s ${compileSeconds.toFixed(2)} loss ${lastLoss.toFixed(4)} threads ${device.info.threads}` +
    ` version libtitan ${library().version}, ${device.info.product}`,
);
