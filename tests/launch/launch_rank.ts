/** What the launcher does in its tests, and what its ranks do: `deno run -A launch_rank.ts TASK`. Ranks load no native library.
 * @module */
import { launch } from "../../launch/launch.ts";
import { followLauncher, onStop } from "../../launch/stop.ts";
import { isLaunched, worldOf } from "../../launch/world.ts";

const forever = () => new Promise<void>((resolve) => setTimeout(resolve, 600_000));
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const tasks: Readonly<Record<string, (rank: number) => Promise<number>>> = {
  /** Long lines, each written in two parts. */
  lines: async (rank) => {
    for (let i = 0; i < 200; i++) {
      for (const part of [`line ${i} of ${rank} `, `${"x".repeat(1000)} end\n`]) {
        await Deno.stdout.write(new TextEncoder().encode(part));
      }
    }
    console.error("a warning");
    return 0;
  },
  /** Rank 1 fails; the others say that they fail because of it, sooner. */
  fail: async (rank) => {
    await pause(rank === 1 ? 200 : 0);
    if (rank !== 1) console.error("error: step 7 cannot end: rank 1 gave up: the disk is full\n  fix: none");
    else console.error("error: the disk is full\n  fix: make room");
    await pause(rank === 1 ? 0 : 1000);
    return 3;
  },
  /** A rank says that it fails, and then nobody ends. */
  hang: async (rank) => {
    if (rank === 2) console.error("error: rank 0 has not come");
    await forever();
    return 0;
  },
  sleep: async () => {
    await forever();
    return 0;
  },
  /** Rank 0 stops when it is asked to, and tells the others by a file. */
  stop: async (rank) => {
    const file = Deno.args[1];
    if (rank === 0) {
      await new Promise<void>((resolve) => onStop((signal) => (Deno.writeTextFileSync(file, signal), resolve())));
    }
    while (Deno.readTextFileSync(file) === "") await pause(50);
    console.log(`stopped by ${Deno.readTextFileSync(file)}`);
    return 0;
  },
  /** Nobody heeds the launcher. */
  deaf: async (rank) => {
    if (rank === 0) onStop((signal) => console.log(`not now, ${signal}`));
    await forever();
    return 0;
  },
};

const world = worldOf();
if (isLaunched() && world) {
  followLauncher(world);
  console.log(`[rank${world.rank}] pid ${Deno.pid}`);
  Deno.exit(await tasks[Deno.args[0]](world.rank));
}
const module = Deno.env.get("BY") === "gloo" ? "gloo" : "mpi";
Deno.exit((await launch(3, Deno.args, { library: "none", threads: 1, graceMs: 1000, module })).code);
