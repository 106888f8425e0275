import { assert, assertEquals } from "@std/assert";
import { variablesOf } from "../../launch/processes.ts";
import { Launcher } from "./launcher.ts";

const script = new URL("launch_rank.ts", import.meta.url);
const start = (...args: string[]) => new Launcher(script, args, { BY: "gloo" });

Deno.test("each rank without MPI is told who it is and where rank 0 is, on one host and on several", () => {
  const { TITAN_TOKEN, ...one } = variablesOf({ nproc: 2 }, 1, "t");
  assertEquals(TITAN_TOKEN, "t");
  assertEquals(one, {
    ...{ RANK: "1", WORLD_SIZE: "2", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "2" },
    ...{ MASTER_ADDR: "127.0.0.1", MASTER_PORT: "0", TITAN_ADDRESS: "" },
  });
  const part = { nproc: 2, size: 7, firstRank: 4, master: "a", port: 29501, own: "c", token: "t" };
  assertEquals(variablesOf({ nproc: 2, part }, 1, "t"), {
    ...{ RANK: "5", WORLD_SIZE: "7", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "2" },
    ...{ MASTER_ADDR: "a", MASTER_PORT: "29501", TITAN_ADDRESS: "c", TITAN_TOKEN: "t" },
  });
});

Deno.test("without mpirun, lines of all ranks come whole, each with its rank", async () => {
  const job = start("lines");
  assertEquals((await job.ended()).code, 0, job.err);
  assertEquals(job.out.match(/^\[rank(\d)\] line (\d+) of \1 x{1000} end$/gm)?.length, 600);
  assertEquals(job.err.trimEnd().split("\n").sort(), [0, 1, 2].map((rank) => `[rank${rank}] a warning`));
});

Deno.test("without mpirun, the error of the rank that failed first comes first, and the exit code is that rank's", async () => {
  const job = start("fail"), { code } = await job.ended();
  assertEquals([code, job.err.split("\n")[0]], [3, "[rank1] error: the disk is full"]);
});

Deno.test("without mpirun, a rank that is killed ends the others, also one that is halted, and the launcher says so for it", async () => {
  const job = start("sleep"), [halted, killed] = await job.pids(3), begun = performance.now();
  Deno.kill(halted, "SIGSTOP");
  Deno.kill(killed, "SIGKILL");
  assertEquals((await job.ended()).code, 137);
  assert(performance.now() - begun < 10_000);
  assertEquals(job.err.split("\n")[0], "[rank1] error: this process was killed by signal 9");
});

Deno.test("without mpirun, a signal is passed on, and all stop", async () => {
  const file = await Deno.makeTempFile();
  try {
    const job = start("stop", file);
    await job.pids(3);
    job.kill("SIGTERM");
    assertEquals((await job.ended()).code, 143, job.err);
    assertEquals(job.out.match(/stopped by SIGTERM$/gm)?.length, 3, job.out);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("without mpirun, ranks end when the launcher is killed", async () => {
  const job = start("sleep");
  await job.pids(3);
  job.kill("SIGKILL");
  await job.ended();
});
