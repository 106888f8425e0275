import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LaunchError, VARIABLES, worldOf } from "../../parallel/launch.ts";
import { Launcher } from "./launcher.ts";

const env = (variables: Record<string, string>) => new Map(Object.entries(variables));

Deno.test("a process that nobody started with others is alone, whatever else the environment holds", () => {
  assertEquals(worldOf(env({})), undefined);
  // a batch script of Slurm, which is no task of a step
  assertEquals(worldOf(env({ SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_LOCALID: "0" })), undefined);
});

Deno.test("Open MPI, MPICH, Slurm and torchrun's variables say who a process is", () => {
  const expected = { rank: 5, size: 7, hostRank: 1, hostSize: 4 };
  const launchers: Record<string, string>[] = [
    {
      OMPI_COMM_WORLD_RANK: "5",
      OMPI_COMM_WORLD_SIZE: "7",
      OMPI_COMM_WORLD_LOCAL_RANK: "1",
      OMPI_COMM_WORLD_LOCAL_SIZE: "4",
    },
    { PMI_RANK: "5", PMI_SIZE: "7", MPI_LOCALRANKID: "1", MPI_LOCALNRANKS: "4" },
    {
      SLURM_PROCID: "5",
      SLURM_STEP_NUM_TASKS: "7",
      SLURM_LOCALID: "1",
      SLURM_NODEID: "2",
      SLURM_STEP_TASKS_PER_NODE: "1(x2),4,1",
    },
    { RANK: "5", WORLD_SIZE: "7", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "4" },
  ];
  for (const variables of launchers) assertEquals(worldOf(env(variables)), expected);
  for (const name of launchers.flatMap(Object.keys)) assertEquals(VARIABLES.includes(name), true, name);
});

Deno.test("within a job of Slurm, the ranks are those of mpirun", () => {
  const inner = { PMI_RANK: "1", PMI_SIZE: "2", MPI_LOCALRANKID: "1", MPI_LOCALNRANKS: "2" };
  const outer = { SLURM_PROCID: "0", SLURM_STEP_NUM_TASKS: "1", SLURM_LOCALID: "0" };
  assertEquals(worldOf(env({ ...outer, ...inner }))?.rank, 1);
});

Deno.test("variables that are no ranks are refused by name", () => {
  const good = { RANK: "1", WORLD_SIZE: "2", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "2" };
  const refused = (changed: Record<string, string>, message: string) =>
    assertThrows(() => worldOf(env({ ...good, ...changed })), LaunchError, message);
  refused({ RANK: "2" }, 'RANK is "2"\n  expected: a whole number from 0 to 1\n  fix: ');
  refused({ WORLD_SIZE: "many" }, 'WORLD_SIZE is "many"\n  expected: a whole number from 1\n');
  refused({ LOCAL_WORLD_SIZE: "3" }, 'LOCAL_WORLD_SIZE is "3"');
  refused({ LOCAL_WORLD_SIZE: "1" }, 'LOCAL_RANK is "1"\n  expected: a whole number from 0 to 0');
  const { RANK: _, ...without } = good;
  assertThrows(() => worldOf(env(without)), LaunchError, "RANK is not set");
  const slurm = { SLURM_PROCID: "1", SLURM_STEP_NUM_TASKS: "2", SLURM_LOCALID: "0", SLURM_NODEID: "1" };
  assertThrows(() => worldOf(env({ ...slurm, SLURM_STEP_TASKS_PER_NODE: "2" })), LaunchError, "TASKS_PER_NODE is");
});

Deno.test("the task that trains may read these variables", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  const allowed = /--allow-env=(\S+)/.exec(tasks.train.command)![1].split(",");
  assertEquals(VARIABLES.filter((name) => !allowed.includes(name)), []);
});

const script = new URL("launch_rank.ts", import.meta.url);
const hasMpi = (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
  try {
    return Deno.statSync(`${folder}/mpirun`).isFile;
  } catch {
    return false;
  }
});
const testLaunch = (name: string, fn: () => Promise<void>) => Deno.test({ name, ignore: !hasMpi, fn });

testLaunch("lines of all ranks come whole, each with its rank", async () => {
  const job = new Launcher(script, ["lines"]);
  assertEquals((await job.ended()).code, 0, job.err);
  const lines = job.out.trimEnd().split("\n").filter((line) => !line.includes("pid"));
  const found = lines.map((line) => /^\[rank(\d)\] line (\d+) of \1 x{1000} end$/.exec(line));
  for (const rank of ["0", "1", "2"]) {
    const own = found.filter((match) => match?.[1] === rank).map((match) => Number(match![2]));
    assertEquals(own, Array.from({ length: 200 }, (_, i) => i), `rank ${rank}`);
  }
  assertEquals(lines.length, 600);
  assertEquals(job.err.trimEnd().split("\n").sort(), [0, 1, 2].map((rank) => `[rank${rank}] a warning`));
});

testLaunch("the error of the rank that failed first comes first, and the exit code is that rank's", async () => {
  const job = new Launcher(script, ["fail"]), { code, seconds } = await job.ended();
  assertEquals([code, seconds < 10], [3, true]);
  const then = "then error: step 7 cannot end: rank 1 gave up: the disk is full";
  const lines = job.err.trimEnd().split("\n");
  assertEquals(lines.slice(0, 2), ["[rank1] error: the disk is full", "[rank1]   fix: make room"]);
  assertEquals(lines.slice(2).sort(), [`[rank0] ${then}`, `[rank2] ${then}`]);
});

testLaunch("a rank that is killed ends the others, and the launcher says so for it", async () => {
  const job = new Launcher(script, ["sleep"]), [, pid] = await job.pids(3), begun = performance.now();
  Deno.kill(pid, "SIGKILL");
  assertEquals((await job.ended()).code, 137);
  assert(performance.now() - begun < 10_000);
  assertEquals(job.err.split("\n")[0], "[rank1] error: this process was killed by signal 9");
});

testLaunch("ranks that do not end although one has failed are ended", async () => {
  const job = new Launcher(script, ["hang"]), { code, seconds } = await job.ended();
  assert(code !== 0 && seconds < 12, `${code} after ${seconds} s`);
  assertEquals(job.err, "[rank2] error: rank 0 has not come\n");
});

for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  testLaunch(`${signal} is passed on, and the exit code is ${expected} when all have stopped`, async () => {
    const file = await Deno.makeTempFile();
    try {
      const job = new Launcher(script, ["stop", file]);
      await job.pids(3);
      job.kill(signal);
      assertEquals((await job.ended()).code, expected, job.err);
      assertEquals(job.out.match(new RegExp(`stopped by ${signal}$`, "gm"))?.length, 3, job.out);
      assertEquals(job.err, "");
    } finally {
      await Deno.remove(file);
    }
  });
}

testLaunch("ranks that do not stop are ended after their time of grace, or by a second signal", async () => {
  for (const twice of [false, true]) {
    const job = new Launcher(script, ["deaf"]);
    await job.pids(3);
    job.kill("SIGTERM");
    await job.until(/not now, SIGTERM/);
    if (twice) job.kill("SIGINT");
    const begun = performance.now();
    assertEquals((await job.ended()).code, 143);
    assert(performance.now() - begun < 10_000);
  }
});

testLaunch("when the launcher is killed, its ranks end, and clean up behind it", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const job = new Launcher(script, ["sleep"], { TMPDIR: folder });
    await job.pids(3);
    job.kill("SIGKILL");
    await job.ended();
    const left = () => [...Deno.readDirSync(folder)].filter(({ name }) => name.startsWith("libtitan"));
    const begun = performance.now();
    while (left().length > 0 && performance.now() - begun < 10_000) {
      await new Promise((resolve) => setTimeout(resolve, 50)); // the ranks may outlive what the launcher held open
    }
    assertEquals(left(), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** What it says on starting ranks with such permissions and a path without programs, or its own. */
async function refusal(flags: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const args = ["run", "--quiet", "--no-prompt", "--allow-env", ...flags, script.pathname, "sleep"];
  const { stderr } = await new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1", ...env } }).output();
  return new TextDecoder().decode(stderr);
}

Deno.test("without mpirun, a launch says what installs it", async () => {
  const text = await refusal(["--allow-read", "--allow-write", "--allow-sys", "--allow-run"], { PATH: "/nowhere" });
  assertStringIncludes(
    text,
    "there is no mpirun\n  expected: Open MPI, and libtitan's module for it\n  fix: npx -y deno task setup --mpi",
  );
});

testLaunch("a launch without the permissions for it says which", async () => {
  const text = await refusal(["--allow-read", "--allow-write", "--allow-sys"]);
  assertStringIncludes(text, "this process may not run mpirun\n  expected: --allow-run=mpirun\n  fix: add that flag");
  assertStringIncludes(await refusal(["--allow-write", "--allow-run"]), "this process may read some files at most");
});
