/** A GPU's host does not wait for ever: where a rank is killed or halted, the others end, and say which it was and what they waited for. Where
 * TITAN_DEVICE says `cuda`.
 * @module */
import { assertMatch } from "@std/assert";
import { rankOf, resultOf, testGloo } from "./gloo.ts";
import { KIND } from "./native.ts";

const script = new URL("gpu_lost_rank.ts", import.meta.url);

/** What the first of two ranks says when the second sends itself a signal. */
async function lastWordOf(signal: Deno.Signal): Promise<Record<string, unknown>> {
  const folder = await Deno.makeTempDir();
  const [first, second] = [0, 1].map((index) => rankOf({ size: 2, script, args: [signal], folder }, index).spawn());
  try {
    const output = await first.output();
    return resultOf(output);
  } finally {
    try {
      second.kill("SIGKILL"); // one that is halted does not end by itself
    } catch {
      // It has ended.
    }
    await second.output();
    await Deno.remove(folder, { recursive: true });
  }
}

if (KIND === "cuda") {
  testGloo(
    "a rank that is killed ends the run of another GPU, which says in which collective it is missed",
    async () => {
      const { message, kernel, scope } = await lastWordOf("SIGKILL");
      assertMatch(message as string, /^[a-z_]+ \d+ over ranks 0, 1 in \S+ cannot end: rank 1 /);
      assertMatch(`${kernel} in ${scope}`, /^(all_gather|reduce_scatter|all_reduce) in \S+$/);
    },
  );

  testGloo("a rank that halts ends the run of another GPU, after the time-out at the latest", async () => {
    const { message } = await lastWordOf("SIGSTOP");
    assertMatch(
      message as string,
      /^[a-z_]+ \d+ over ranks 0, 1 in \S+ .*rank 1 .*; this rank's last: [a-z_]+ \d+ of /s,
    );
  });
}
