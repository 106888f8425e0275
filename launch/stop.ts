/** A run that is asked to stop: by a signal, or by the launcher, which talks to its first rank on its standard input: a line with the name of
 * a signal, or the end, when it is gone itself.
 * @module */
import { Lines } from "./rank_output.ts";
import { isLaunched, LAUNCHED, moduleOf, readable, type World } from "./world.ts";

/** Signals that ask a run to stop. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM"] as const;
/** One of them. */
export type StopSignal = typeof STOP_SIGNALS[number];

/** The exit code of a process that stopped because of a signal. */
export function exitCodeOf(signal: StopSignal): number {
  return signal === "SIGINT" ? 130 : 143;
}

const stopListeners = new Set<(signal: StopSignal) => void>();

/** Milliseconds within which the same signal is one: Ctrl-C comes from the terminal, and again from `deno task` and npx, which pass it on. */
const SAME_MS = 300;

/** Calls a listener when this run is asked to stop: by a signal, or by the launcher, which then has got it.
 * @returns what takes it off. */
export function onStop(listener: (signal: StopSignal) => void): () => void {
  if (isLaunched()) {
    stopListeners.add(listener);
    return () => stopListeners.delete(listener);
  }
  const off = STOP_SIGNALS.map((signal) => {
    let last = -Infinity;
    const own = () => {
      const now = performance.now();
      if (now - last < SAME_MS) return;
      last = now;
      listener(signal);
    };
    Deno.addSignalListener(signal, own);
    return () => Deno.removeSignalListener(signal, own);
  });
  return () => off.forEach((one) => one());
}

/** A rank that the launcher talks to does as it says until it ends, and ends at once when the launcher has. */
export async function followLauncher(world: World): Promise<void> {
  if (!isLaunched() || (world.hostRank !== 0 && moduleOf() === "mpi")) return; // mpirun gives others no input
  const lines = new Lines(), bytes = new Uint8Array(256);
  for (let length; (length = await Deno.stdin.read(bytes)) !== null;) {
    for (const line of lines.add(bytes.subarray(0, length))) {
      const signal = STOP_SIGNALS.find((name) => name === line);
      if (!signal) continue;
      if (stopListeners.size === 0) Deno.exit(exitCodeOf(signal));
      stopListeners.forEach((listener) => listener(signal));
    }
  }
  // mpirun closes the input too when it ends the ranks, and is about to: then this process is not to be the one that failed.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await Deno.remove(readable.get(LAUNCHED)!, { recursive: true }).catch(() => {}); // as the launcher cannot
  Deno.exit(1);
}
