/** The GPUs of this machine, or those that are played for tests, which can be told to fail: `libtitan_cuda_emulated`.
 * @module */
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";

/** Can each of so many ranks have a GPU of its own? */
export function hasGpus(ranks: number): boolean {
  try {
    new Device({ kind: "cuda", ordinal: ranks - 1 })[Symbol.dispose]();
    return true;
  } catch (error) {
    if (error instanceof TitanError) return false;
    throw error;
  }
}

/** The played one, if TITAN_CUDA names it. */
export function playedGpu() {
  try {
    return Deno.dlopen(
      Deno.env.get("TITAN_CUDA") ?? "none",
      {
        titan_played_gpu_fails: { parameters: ["i64", "pointer"], result: "void" },
        titan_played_gpu_calls: { parameters: [], result: "i64" },
        titan_played_gpu_left: { parameters: [], result: "i64" },
      } as const,
    ).symbols;
  } catch {
    return undefined;
  }
}
