/** This library's training step, timed on synthetic tokens: the contestant `ours` of bench.ts, with the options and the
 * output lines of pytorch_llama.py. The same model, batch, clip and optimizer; a step is one call of the native program.
 * Under mpirun, `--mesh dp_shard=2,tp=2` shares the same work out, and the first rank prints; other options of the command line
 * (`--parallelism.enable_async_tensor_parallel`, ...) follow `--`.
 * @module */

import process from "node:process";
import { parseArgs } from "node:util";
import { makeBatch } from "../data/batch.ts";
import { Device, type ProcessMemory } from "../ffi/device.ts";
import { library } from "../ffi/library.ts";
import { targetOf } from "../graph/target/cuda.ts";
import { worldOf } from "../launch/world.ts";
import { BatchPart } from "../train/batch_part.ts";
import { loadConfig, meshOf, trainOptions } from "../train/config/config.ts";
import { precisionOf } from "../train/precision.ts";
import { ProcessGroup } from "../train/process_group.ts";
import { dataRankOf } from "../train/ranks.ts";
import { compileStep } from "../train/step_plan.ts";
import { StepProgram } from "../train/step_program.ts";
import { complete } from "../train/options.ts";
import { median, type Size, sizeNamed } from "./report.ts";

/** The command line that trains a benchmarked size; bf16 is that of `training.mixed_precision_param`. */
function argumentsOf(size: Size, dtype: string): string[] {
  const keys = {
    "model.flavor": "debugmodel",
    "model.dim": size.dim,
    "model.n_layers": size.numLayers,
    "model.n_heads": size.numHeads,
    "model.n_kv_heads": size.numKvHeads,
    "model.ffn_hidden_dim": size.ffnHiddenDim,
    "model.vocab_size": size.vocabSize,
    "training.seq_len": size.seqLen,
    "training.mixed_precision_param": dtype === "bf16" ? "bfloat16" : "float32",
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.95,
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.1,
  };
  return Object.entries(keys).map(([key, value]) => `--${key}=${value}`);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: "string", default: "debug" },
    steps: { type: "string", default: "5" },
    warmup: { type: "string", default: "2" },
    threads: { type: "string", default: "0" },
    dtype: { type: "string", default: "f32" },
    device: { type: "string", default: "cpu" },
    mesh: { type: "string" },
  },
});
const size = sizeNamed(values.size), { batch, seqLen, vocabSize } = size, world = worldOf();
const asked = [
  ...argumentsOf(size, values.dtype),
  "--device",
  values.device,
  ...(values.mesh ? ["--mesh", values.mesh] : []),
  ...positionals,
];
const { config } = await loadConfig(asked, () => ""), mesh = meshOf(config, world?.size ?? 1);
const options = complete(trainOptions(config, mesh)),
  ranks = world && { ...options.parallelism, mesh, rank: world.rank };
const { dataRank, dataRanks } = dataRankOf(mesh, world?.rank ?? 0), ownBatch = batch / dataRanks;
if (!Number.isInteger(ownBatch)) throw new RangeError(`${dataRanks} data ranks cannot share ${batch} sequences evenly`);
using device = new Device({ kind: options.device, ordinal: world?.hostRank, threads: Number(values.threads) });
await using group = world && await ProcessGroup.open(device, world, options.comm);

const compileStart = performance.now();
const precision = precisionOf(options.precision, options.dtype, device.info);
const target = targetOf(device.info), { threads } = device.info;
const compiled = compileStep({ ...options, batch: ownBatch, precision, threads, ranks, target });
const compileSeconds = (performance.now() - compileStart) / 1000;
using program = await StepProgram.load(device, compiled, options.accumulation);
await program.initialize(0);

const part = new BatchPart(seqLen, ranks), own = makeBatch(ownBatch, seqLen), { tokens, targets } = own;
const [steps, warmup] = [Number(values.steps), Number(values.warmup)];
let drawn = 1 + dataRank;
/** Ranks of one data rank draw the same (Park & Miller 1988). */
const random = (): number => (drawn = drawn * 48271 % 2147483647) % vocabSize;
const seconds: number[] = [];
let lastLoss = NaN;
for (let step = 1; step <= warmup + steps; step++) {
  for (let i = 0; i < ownBatch * seqLen; i++) {
    tokens[i] = i % seqLen === 0 ? random() : targets[i - 1];
    targets[i] = random();
  }
  part.put(program.microbatches[0], own);
  await group?.comm.barrier();
  const start = performance.now();
  ({ loss: lastLoss } = await program.step(step, 3e-4));
  if (step > warmup) seconds.push((performance.now() - start) / 1000);
  if (step === 1 && !world?.rank) console.log("first step");
}

const rate = (s: number): string => (batch * seqLen / s).toFixed(1);
/** Of a GPU, what is taken of it. */
const taken = ({ totalBytes, availableBytes }: ProcessMemory): number => totalBytes - availableBytes;
const peakGb = (options.device === "cuda" ? taken(device.memory()) : process.resourceUsage().maxRSS * 1024) / 1e9;
if (!world?.rank) {
  console.log(
    `tokens/s ${rate(median(seconds))} best ${rate(Math.min(...seconds))} peak GB ${peakGb.toFixed(2)}` +
      ` compile s ${compileSeconds.toFixed(2)} loss ${lastLoss.toFixed(4)} threads ${device.info.threads}` +
      ` version libtitan ${library().version}, ${device.info.product}`,
  );
}
