import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { LaunchError, moduleOf, VARIABLES, worldOf } from "../../launch/world.ts";

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

Deno.test("processes that were started without MPI meet where MASTER_ADDR says, over Gloo; others by MPI", () => {
  const master = { MASTER_ADDR: "a", MASTER_PORT: "29500" };
  for (const [launcher, variables] of Object.entries(RANK_5_OF_7)) {
    const meets = /^(torchrun|srun)/.test(launcher);
    assertEquals(moduleOf(env({ ...variables, ...master })), meets ? "gloo" : "mpi", launcher);
    assertEquals(moduleOf(env(variables)), "mpi", launcher);
  }
  assertEquals(moduleOf(env(master)), "mpi"); // of a process alone
});

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

Deno.test("the tasks that start ranks may read these variables", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  for (const { command } of [tasks.train, tasks.generate]) {
    const allowed = /--allow-env=(\S+)/.exec(command)![1].split(",");
    assertEquals(VARIABLES.filter((name) => !allowed.includes(name)), []);
  }
});
