/** The GPU that is played for tests, which can be told to fail: `libtitan_cuda_emulated`.
 * @module */

/** One that TITAN_CUDA names; undefined where it is a real one. */
export function playedGpu() {
  try {
    return Deno.dlopen(
      Deno.env.get("TITAN_CUDA") ?? "none",
      {
        titan_played_gpu_fails: { parameters: ["i64"], result: "void" },
        titan_played_gpu_calls: { parameters: [], result: "i64" },
        titan_played_gpu_left: { parameters: [], result: "i64" },
      } as const,
    ).symbols;
  } catch {
    return undefined;
  }
}
