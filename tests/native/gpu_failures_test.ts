/** What fails on one GPU ends the run on all, with one clear error, and no host waits for ever. Where TITAN_DEVICE says `cuda`.
 * @module */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { TitanError } from "../../ffi/error.ts";
import { rankOf, resultOf, testGloo } from "./gloo.ts";
import { train } from "./gpu_model.ts";
import { hasGpus, playedGpu } from "./gpus.ts";
import { KIND } from "./native.ts";

const script = new URL("gpu_failures_rank.ts", import.meta.url);
const gpu = KIND === "cuda" ? playedGpu() : undefined;

/** What two ranks say, of which the second fails in this way; a signal leaves it nothing to say. */
async function lastWords(how: string): Promise<Record<string, unknown>[]> {
  const folder = await Deno.makeTempDir();
  const [first, second] = [0, 1].map((index) => rankOf({ size: 2, script, args: [how], folder }, index).spawn());
  const others = second.output();
  try {
    const said = [resultOf(await first.output())];
    if (!how.startsWith("SIG")) said.push(resultOf(await others));
    return said;
  } finally {
    try {
      second.kill("SIGKILL"); // one that is halted does not end by itself
    } catch {
      // It has ended.
    }
    await others;
    await Deno.remove(folder, { recursive: true });
  }
}

/** The calls that fail in turn: so many, all over a run, or as many as TITAN_FAILING_CALLS says. */
function failing(calls: number, some: number): number[] {
  const count = Math.min(calls, Number(Deno.env.get("TITAN_FAILING_CALLS") ?? some));
  return Array.from({ length: count }, (_, i) => Math.floor((i + 0.5) * calls / count));
}

/** How an error of a GPU or of NCCL begins. */
const OWN_ERROR = /^(instruction \d+ \([^)]+\): )?(the GPU failed in |NCCL failed in |there is no GPU )/;

/** How the run of one GPU ends whose call of this number fails: its error, or its losses. */
async function ending(call: number): Promise<TitanError | number[]> {
  gpu!.titan_played_gpu_fails(BigInt(call));
  try {
    using device = new Device({ kind: KIND, threads: 1 });
    return await train(device);
  } catch (error) {
    if (error instanceof TitanError) return error;
    throw error;
  }
}

if (KIND === "cuda" && hasGpus(2)) {
  testGloo(
    "a rank that is killed ends the run of another GPU, which says in which collective it is missed",
    async () => {
      const [{ message, kernel, scope }] = await lastWords("SIGKILL");
      assertMatch(message as string, /^[a-z_]+ \d+ over ranks 0, 1 in \S+ cannot end: rank 1 /);
      assertMatch(`${kernel} in ${scope}`, /^(all_gather|reduce_scatter|all_reduce) in \S+$/);
    },
  );

  testGloo("a rank that halts ends the run of another GPU, after the time-out at the latest", async () => {
    const [{ message }] = await lastWords("SIGSTOP");
    assertMatch(
      message as string,
      /^[a-z_]+ \d+ over ranks 0, 1 in \S+ .*rank 1 .*; this rank's last: [a-z_]+ \d+ of /s,
    );
  });
}

if (gpu) {
  Deno.test("whichever call to a GPU fails while a model trains, one error tells it and nothing is left", async () => {
    const losses = await ending(-1), calls = Number(gpu.titan_played_gpu_calls());
    assert(Array.isArray(losses));
    let told = 0;
    for (const call of failing(calls, 40)) {
      const end = await ending(call);
      if (end instanceof TitanError) assertMatch(end.message, OWN_ERROR, `call ${call} of ${calls}`), told++;
      else assertEquals(end, losses, `call ${call} of ${calls}`); // what gives something back tells none
      assertEquals(gpu.titan_played_gpu_left(), 0n, `call ${call} of ${calls}`);
    }
    assert(told >= 20, `${told} errors`);
    gpu.titan_played_gpu_fails(-1n);
  });

  testGloo(
    "whichever call fails on one of two GPUs, both end with its error unless the other is done, and nothing is left",
    async () => {
      const [, { calls, losses }] = await lastWords("-1");
      assert(Array.isArray(losses));
      let told = 0;
      for (const call of failing(calls as number, 6)) {
        const [first, second] = await lastWords(`${call}`), where = `call ${call} of ${calls}: ${first.message}`;
        assertEquals([first.left, second.left], [0, 0], where);
        if (second.message === undefined) { // what gives something back tells none
          assertEquals(second.losses, losses, where);
          continue;
        }
        told++;
        assertMatch(second.message as string, OWN_ERROR, where);
        if (first.message === undefined) assertEquals(first.losses, losses, where); // it was done before
        else assert(`${first.message}`.includes(`rank 1 gave up: ${second.message}`.slice(0, 60)), where);
      }
      assert(told >= 3, `${told} errors`);
    },
  );
}
