/** Ranks as processes: who this one is, as whoever started it says in the environment.
 * @module */

/** A process among all that were started together. */
export interface World {
  /** This process, from 0 on. */
  readonly rank: number;
  /** Number of processes. */
  readonly size: number;
  /** This process among those of its host. */
  readonly hostRank: number;
  /** Number of processes on this host. */
  readonly hostSize: number;
}

/** Environment variables by name; `Deno.env` is one. */
export interface Environment {
  /** The value of a variable, or undefined where it is not set. */
  get(name: string): string | undefined;
}

/** A launch that cannot be: the environment contradicts itself, or what is needed is missing. */
export class LaunchError extends Error {
  /** Tells it from other errors. */
  override readonly name = "LaunchError";

  /** Says it in one message.
   * @param what what happened. @param expected what should have been. @param fix what to do. */
  constructor(what: string, expected: string, fix: string) {
    super(`${what}\n  expected: ${expected}\n  fix: ${fix}   (launch)`);
  }
}

/** Names of a process's rank, of their number, and of the same within a host; some launchers list the latter by host. */
interface Names {
  readonly rank: string;
  readonly size: string;
  readonly hostRank: string;
  readonly hostSize?: string;
  readonly hostSizes?: { readonly list: string; readonly host: string };
}

/** Whoever starts processes, the most special first: within a Slurm job, `mpirun` counts. */
const LAUNCHERS: readonly Names[] = [
  // Open MPI
  {
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    hostRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    hostSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
  },
  // MPICH and its kin
  { rank: "PMI_RANK", size: "PMI_SIZE", hostRank: "MPI_LOCALRANKID", hostSize: "MPI_LOCALNRANKS" },
  // Slurm's srun. A batch script has a SLURM_PROCID too, but is no task of a step.
  {
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    hostRank: "SLURM_LOCALID",
    hostSizes: { list: "SLURM_STEP_TASKS_PER_NODE", host: "SLURM_NODEID" },
  },
  // torchrun, and people
  { rank: "RANK", size: "WORLD_SIZE", hostRank: "LOCAL_RANK", hostSize: "LOCAL_WORLD_SIZE" },
];

/** The variables that {@linkcode worldOf} looks at: what `--allow-env` has to name. */
export const WORLD_VARIABLES: readonly string[] = LAUNCHERS.flatMap(({ hostSizes, ...names }) => [
  ...Object.values(names) as string[],
  ...(hostSizes ? Object.values(hostSizes) : []),
]);

/** The variables that this program may read; others look as if they were not set. */
export const readable: Environment = {
  get: (variable) =>
    Deno.permissions.querySync({ name: "env", variable }).state === "granted" ? Deno.env.get(variable) : undefined,
};

/** Who this process is, or undefined where nobody has started several.
 * @param env where to look; {@linkcode readable} unless given.
 * @throws {LaunchError} where the variables of a launcher are no ranks. */
export function worldOf(env: Environment = readable): World | undefined {
  const names = LAUNCHERS.find(({ size }) => env.get(size) !== undefined);
  if (!names) return undefined;
  const { hostSizes } = names;
  const size = whole(env, names.size, 1), rank = whole(env, names.rank, 0, size);
  const hostRank = whole(env, names.hostRank, 0, size);
  const hostSize = hostSizes
    ? tasksPerHost(env.get(hostSizes.list) ?? "")[whole(env, hostSizes.host, 0)]
    : whole(env, names.hostSize!, 1, size + 1);
  if (hostSize === undefined) refuse(env, hostSizes!.list, "a number of tasks for each host, such as 4(x2),3");
  if (hostRank >= hostSize) refuse(env, names.hostRank, `a whole number from 0 to ${hostSize - 1}`);
  return { rank, size, hostRank, hostSize };
}

/** A variable that is a whole number from `least` to below `end`. */
function whole(env: Environment, name: string, least: number, end = Infinity): number {
  const text = env.get(name) ?? "", value = Number(text);
  if (/^\d+$/.test(text) && value >= least && value < end) return value;
  refuse(env, name, `a whole number from ${least}${end === Infinity ? "" : ` to ${end - 1}`}`);
}

function refuse(env: Environment, name: string, expected: string): never {
  const value = env.get(name);
  throw new LaunchError(
    `The environment variable ${name} ${value === undefined ? "is not set" : `is ${JSON.stringify(value)}`}`,
    expected,
    `set it for every process (${LAUNCHERS.at(-1)!.rank} and its like), or have --nproc or mpirun start them`,
  );
}

/** `2(x3),1`: 2 on each of three hosts, 1 on the next. */
function tasksPerHost(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [, tasks, hosts = "1"] = /^(\d+)(?:\(x(\d+)\))?$/.exec(part) ?? [];
    return tasks === undefined ? [] : Array<number>(Number(hosts)).fill(Number(tasks));
  });
}
