/** A rank of a run that loses another: `deno run -A gpu_failures_rank.ts SIGNAL`, by Gloo. Two train on a mesh, on a GPU each, and the second sends itself
 * the signal before the third step, whose actions are graphs by then. The first prints its error, as a line of JSON.
 * @module */
import { Comm } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { worldOf } from "../../launch/world.ts";
import { train } from "./gpu_model.ts";
import { KIND } from "./native.ts";

const signal = Deno.args[0] as Deno.Signal, { hostRank: ordinal = 0 } = worldOf()!;
const device = new Device({ kind: KIND, ordinal: KIND === "cuda" ? ordinal : 0, threads: 1 });
const timeoutMs = signal === "SIGSTOP" ? 5000 : 300_000;
const { info } = await Comm.open(device, { module: "gloo", startTimeoutMs: 300_000, timeoutMs }), { rank } = info;
try {
  await train(device, info, (step) => {
    if (step === 3 && rank === 1) Deno.kill(Deno.pid, signal);
  });
} catch (error) {
  if (!(error instanceof TitanError)) throw error;
  const { message, kernel, scope } = error;
  console.log(JSON.stringify({ message, kernel, scope }));
}
Deno.exit(0); // a world that is broken cannot be left
