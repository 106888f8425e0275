/** A rank of a run that loses another: `deno run -A gpu_lost_rank.ts SIGNAL`, by Gloo. Both train on a mesh; before the third step, whose actions are
 * graphs by then, the second sends itself the signal. The first prints how its run ended, as a line of JSON.
 * @module */
import { makeBatch } from "../../data/batch.ts";
import { Comm } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { targets } from "../../graph/target/by_kind.ts";
import { worldOf } from "../../launch/world.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { BatchPart } from "../../train/batch_part.ts";
import { compileStep, type StepOptions } from "../../train/step_plan.ts";
import { StepProgram } from "../../train/step_program.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { KIND } from "./native.ts";

const signal = Deno.args[0] as Deno.Signal;
const device = new Device({ kind: KIND, ordinal: KIND === "cuda" ? worldOf()?.hostRank : 0, threads: 1 });
const timeoutMs = signal === "SIGSTOP" ? 5000 : 300_000;
const comm = await Comm.open(device, { module: "gloo", startTimeoutMs: 300_000, timeoutMs });
const { rank, size } = comm.info;
const model = tinyLlama(), seqLen = 8, ranks = { mesh: new Mesh({ dp_shard: size }, size), rank };
const options: StepOptions = {
  model,
  optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
  ...{ dtype: "f32", batch: 1, seqLen, accumulation: 1, threads: 1, target: targets[KIND], ranks },
};
using program = await StepProgram.load(device, compileStep(options), 1);
const { tokens, targets: next } = someRows(1, seqLen, model.vocabSize!), batch = makeBatch(1, seqLen);
batch.tokens.set(tokens);
batch.targets.set(next);
await program.initialize(42);
try {
  for (let step = 1; step <= 3; step++) {
    for (const views of program.microbatches) new BatchPart(seqLen, ranks).put(views, batch);
    if (step === 3 && rank === 1) Deno.kill(Deno.pid, signal);
    await program.step(step, 0.01);
  }
  console.log(JSON.stringify({ rank }));
} catch (error) {
  if (!(error instanceof TitanError)) throw error;
  const { message, kernel, scope } = error;
  console.log(JSON.stringify({ rank, message, kernel, scope }));
}
Deno.exit(0); // a world that is broken cannot be left
