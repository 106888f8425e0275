import { assertEquals, assertThrows } from "@std/assert";
import { LaunchError, WORLD_VARIABLES, worldOf } from "../../parallel/launch.ts";

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
  for (const name of launchers.flatMap(Object.keys)) assertEquals(WORLD_VARIABLES.includes(name), true, name);
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
  assertEquals(WORLD_VARIABLES.filter((name) => !allowed.includes(name)), []);
});
