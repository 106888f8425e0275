/** A rank of a run that loses another: `deno run -A gpu_failures_rank.ts HOW`, by Gloo. Two train on a mesh, on a GPU each, and the second fails. HOW is a
 * signal, which it sends itself before the third step, whose actions are graphs by then; or the number of a call to the played GPU, which goes wrong.
 * Each prints its losses or its error, as a line of JSON, with what it has not given back then, and the number of its calls.
 * @module */
import { Comm } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { worldOf } from "../../launch/world.ts";
import { train } from "./gpu_model.ts";
import { playedGpu } from "./gpus.ts";
import { KIND } from "./native.ts";

const how = Deno.args[0], isSignal = how.startsWith("SIG"), { hostRank: ordinal = 0 } = worldOf()!;
const device = new Device({ kind: KIND, ordinal: KIND === "cuda" ? ordinal : 0, threads: 1 });
const timeoutMs = how === "SIGSTOP" ? 5000 : 300_000;
const { info } = await Comm.open(device, { module: "gloo", startTimeoutMs: 300_000, timeoutMs }), { rank } = info;
const gpu = playedGpu();
gpu?.titan_played_gpu_fails(BigInt(isSignal || rank === 0 ? -1 : how));
let ended: Record<string, unknown> = {};
try {
  const losses = await train(device, info, (step) => {
    if (isSignal && step === 3 && rank === 1) Deno.kill(Deno.pid, how as Deno.Signal);
  });
  ended = { losses };
} catch (error) {
  if (!(error instanceof TitanError)) throw error;
  const { message, kernel, scope } = error;
  ended = { message, kernel, scope };
}
device[Symbol.dispose]();
const [left, calls] = [gpu?.titan_played_gpu_left(), gpu?.titan_played_gpu_calls()].map(Number);
console.log(JSON.stringify({ rank, ...ended, left, calls }));
Deno.exit(0); // a world that is broken cannot be left
