import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LaunchError, VARIABLES, worldOf } from "../../parallel/launch.ts";
import { testRanks } from "../native/mpirun.ts";
import { Launcher } from "./launcher.ts";

const env = (variables: Record<string, string>) => new Map(Object.entries(variables));

/** What rank 5 of 7 finds, as task 1 of 4 on the third of four hosts. */
const OPEN_MPI = {
  OMPI_COMM_WORLD_RANK: "5",
  OMPI_COMM_WORLD_SIZE: "7",
  OMPI_COMM_WORLD_LOCAL_RANK: "1",
  OMPI_COMM_WORLD_LOCAL_SIZE: "4",
};
const PMI = { PMI_RANK: "5", PMI_SIZE: "7" };
const HYDRA = { ...PMI, MPI_LOCALRANKID: "1", MPI_LOCALNRANKS: "4" };
const PALS = { ...PMI, PMI_LOCAL_RANK: "1", PMI_LOCAL_SIZE: "4", PALS_RANKID: "5", PALS_LOCAL_RANKID: "1" };
const SLURM = {
  SLURM_PROCID: "5",
  SLURM_STEP_NUM_TASKS: "7",
  SLURM_LOCALID: "1",
  SLURM_NODEID: "2",
  SLURM_STEP_TASKS_PER_NODE: "1(x2),4,1",
};
const PMIX = {
  PMIX_RANK: "5",
  PMIX_NAMESPACE: "slurm.pmix.7.0",
  PMIX_SERVER_URI41: "pmix-server.9;tcp4://127.0.0.1:9",
};
const TORCHRUN = { RANK: "5", WORLD_SIZE: "7", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "4" };
const BATCH_SCRIPT = { SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_LOCALID: "0", SLURM_NODEID: "0" };
const ONE_TASK = {
  ...{ SLURM_PROCID: "0", SLURM_STEP_NUM_TASKS: "1", SLURM_LOCALID: "0" },
  ...{ SLURM_NODEID: "0", SLURM_STEP_TASKS_PER_NODE: "1" },
};

const RANK_5_OF_7: Record<string, Record<string, string>> = {
  "Open MPI's mpirun": OPEN_MPI,
  "the mpirun of MPICH and Intel MPI": HYDRA,
  "the mpiexec of Cray's PALS": PALS,
  "torchrun": TORCHRUN,
  "srun --mpi=none": SLURM,
  "srun --mpi=pmi2": { ...SLURM, ...PMI, PMI_FD: "9", PMI_JOBID: "7.0" },
  "srun --mpi=pmix": { ...SLURM, ...PMIX },
  "Open MPI's mpirun in a batch script": { ...BATCH_SCRIPT, ...OPEN_MPI, ...PMIX },
  "Open MPI's mpirun in a task of srun --mpi=pmi2": { ...ONE_TASK, PMI_RANK: "0", PMI_SIZE: "1", ...OPEN_MPI },
  // srun starts one proxy on each host, which starts the ranks
  "MPICH's mpirun over srun": { ...ONE_TASK, SLURM_STEP_NUM_TASKS: "4", SLURM_PROCID: "2", ...HYDRA },
  "torchrun in a task of srun": { ...ONE_TASK, ...TORCHRUN },
  "srun where a program before has left WORLD_SIZE": { ...SLURM, WORLD_SIZE: "8" },
};

for (const [launcher, variables] of Object.entries(RANK_5_OF_7)) {
  Deno.test(`the variables of ${launcher} say who a process is`, () => {
    assertEquals(worldOf(env(variables)), { rank: 5, size: 7, hostRank: 1, hostSize: 4 });
  });
}

Deno.test("the names of a launcher that is understood are those that a run may read", () => {
  for (const name of [OPEN_MPI, HYDRA, SLURM, TORCHRUN].flatMap(Object.keys)) {
    assertEquals(VARIABLES.includes(name), true, name);
  }
  assertEquals(new Set(VARIABLES).size, VARIABLES.length);
});

Deno.test("a process that nobody started with others is alone, whatever else the environment holds", () => {
  const alone: Record<string, string>[] = [{}, BATCH_SCRIPT, { WORLD_SIZE: "1" }, { PMI_RANK: "0", PMI_SIZE: "1" }];
  for (const variables of alone) assertEquals(worldOf(env(variables)), undefined, JSON.stringify(variables));
  assertEquals(worldOf(env(ONE_TASK)), { rank: 0, size: 1, hostRank: 0, hostSize: 1 });
});

Deno.test("where only some variables of a launcher are set, the error names those that are missing", () => {
  const refused = (variables: Record<string, string>, ...parts: string[]) => {
    const { message } = assertThrows(() => worldOf(env(variables)), LaunchError);
    for (const part of parts) assertStringIncludes(message, part);
  };
  refused(PMI, "PMI_RANK, PMI_SIZE are set, but not MPI_LOCALRANKID, MPI_LOCALNRANKS\n  expected: all variables of ");
  refused({ ...BATCH_SCRIPT, ...PMI }, "but not MPI_LOCALRANKID, MPI_LOCALNRANKS\n"); // Slurm's are a script's
  refused({ RANK: "0" }, "RANK is set, but not WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE\n", "of torchrun, or none");
  const { SLURM_NODEID: _, ...without } = SLURM;
  refused(without, "but not SLURM_NODEID\n  expected: all variables of Slurm's srun, or none\n  fix: set RANK, ");
});

Deno.test("ranks that srun and PMI number differently are refused", () => {
  const refused = (variables: Record<string, string>, message: string) =>
    assertThrows(() => worldOf(env({ ...SLURM, ...variables })), LaunchError, message);
  refused({ ...PMI, PMI_RANK: "4" }, 'SLURM_PROCID is "5", but PMI_RANK is "4"\n  expected: the same');
  refused({ ...PMI, PMI_SIZE: "9" }, 'SLURM_STEP_NUM_TASKS is "7", but PMI_SIZE is "9"');
});

Deno.test("variables that are no ranks are refused by name", () => {
  const good = { RANK: "1", WORLD_SIZE: "2", LOCAL_RANK: "1", LOCAL_WORLD_SIZE: "2" };
  const refused = (changed: Record<string, string>, message: string) =>
    assertThrows(() => worldOf(env({ ...good, ...changed })), LaunchError, message);
  refused({ RANK: "2" }, 'RANK is "2"\n  expected: a whole number from 0 to 1\n  fix: ');
  refused({ WORLD_SIZE: "many" }, 'WORLD_SIZE is "many"\n  expected: a whole number from 1\n');
  refused({ LOCAL_WORLD_SIZE: "3" }, 'LOCAL_WORLD_SIZE is "3"');
  refused({ LOCAL_WORLD_SIZE: "1" }, 'LOCAL_RANK is "1"\n  expected: a whole number from 0 to 0');
  assertThrows(
    () => worldOf(env({ ...SLURM, SLURM_STEP_TASKS_PER_NODE: "2" })),
    LaunchError,
    'SLURM_STEP_TASKS_PER_NODE is "2"\n  expected: a number of tasks for each host',
  );
});

Deno.test("the task that trains may read these variables", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  const allowed = /--allow-env=(\S+)/.exec(tasks.train.command)![1].split(",");
  assertEquals(VARIABLES.filter((name) => !allowed.includes(name)), []);
});

const script = new URL("launch_rank.ts", import.meta.url);
testRanks("lines of all ranks come whole, each with its rank", async () => {
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

testRanks("the error of the rank that failed first comes first, and the exit code is that rank's", async () => {
  const job = new Launcher(script, ["fail"]), { code, seconds } = await job.ended();
  assertEquals([code, seconds < 10], [3, true]);
  const then = "then error: step 7 cannot end: rank 1 gave up: the disk is full";
  const lines = job.err.trimEnd().split("\n");
  assertEquals(lines.slice(0, 2), ["[rank1] error: the disk is full", "[rank1]   fix: make room"]);
  assertEquals(lines.slice(2).sort(), [`[rank0] ${then}`, `[rank2] ${then}`]);
});

testRanks("a rank that is killed ends the others, and the launcher says so for it", async () => {
  const job = new Launcher(script, ["sleep"]), [, pid] = await job.pids(3), begun = performance.now();
  Deno.kill(pid, "SIGKILL");
  assertEquals((await job.ended()).code, 137);
  assert(performance.now() - begun < 10_000);
  assertEquals(job.err.split("\n")[0], "[rank1] error: this process was killed by signal 9");
});

testRanks("ranks that do not end although one has failed are ended", async () => {
  const job = new Launcher(script, ["hang"]), { code, seconds } = await job.ended();
  assert(code !== 0 && seconds < 12, `${code} after ${seconds} s`);
  assertEquals(job.err, "[rank2] error: rank 0 has not come\n");
});

for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  testRanks(`${signal} is passed on, and the exit code is ${expected} when all have stopped`, async () => {
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

testRanks("ranks that do not stop are ended after their time of grace, or by a second signal", async () => {
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

testRanks("when the launcher is killed, its ranks end, and clean up behind it", async () => {
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

testRanks("a launch without the permissions for it says which", async () => {
  const text = await refusal(["--allow-read", "--allow-write", "--allow-sys"]);
  assertStringIncludes(text, "this process may not run mpirun\n  expected: --allow-run=mpirun\n  fix: add that flag");
  assertStringIncludes(await refusal(["--allow-write", "--allow-run"]), "this process may read some files at most");
});
