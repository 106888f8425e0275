/** Who this process is among those that were started together, as whoever started it says in the environment.
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

/** Who starts processes, by the names of the variables that it sets for each: of its rank, of their number, and of the same within its
 * host; some list the latter by host. */
interface Launcher {
  readonly name: string;
  readonly rank: string;
  readonly size: string;
  readonly hostRank: string;
  readonly hostSize?: string;
  readonly hostSizes?: { readonly list: string; readonly host: string };
  /** May its processes meet where MASTER_ADDR says, without MPI? */
  readonly meets?: boolean;
}

const PMI = { rank: "PMI_RANK", size: "PMI_SIZE" } as const;

/** The first of which all variables are set counts, the most special first: within a Slurm job, `mpirun` does. */
const LAUNCHERS: readonly Launcher[] = [
  {
    name: "Open MPI's mpirun",
    rank: "OMPI_COMM_WORLD_RANK",
    size: "OMPI_COMM_WORLD_SIZE",
    hostRank: "OMPI_COMM_WORLD_LOCAL_RANK",
    hostSize: "OMPI_COMM_WORLD_LOCAL_SIZE",
  },
  { name: "the mpirun of MPICH or Intel MPI", ...PMI, hostRank: "MPI_LOCALRANKID", hostSize: "MPI_LOCALNRANKS" },
  { name: "the mpiexec of Cray's PALS", ...PMI, hostRank: "PMI_LOCAL_RANK", hostSize: "PMI_LOCAL_SIZE" },
  // Who sets these means them, also within a task of Slurm.
  {
    name: "torchrun",
    rank: "RANK",
    size: "WORLD_SIZE",
    hostRank: "LOCAL_RANK",
    hostSize: "LOCAL_WORLD_SIZE",
    meets: true,
  },
  // Whatever --mpi is: with pmi2 the first two PMI variables are set as well, with pmix nothing else that says who a process is.
  {
    name: "Slurm's srun",
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    hostRank: "SLURM_LOCALID",
    hostSizes: { list: "SLURM_STEP_TASKS_PER_NODE", host: "SLURM_NODEID" },
    meets: true,
  },
];

/** What a launcher sets for each process. */
function variablesOf({ name: _, meets: __, hostSizes, ...names }: Launcher): string[] {
  return [...Object.values(names), ...(hostSizes ? [hostSizes.list, hostSizes.host] : [])];
}

/** In the environment of ranks that `launch` started: the folder of what they print. */
export const LAUNCHED = "TITAN_LAUNCHED";

/** The variables that a rank looks at: what `--allow-env` has to name. */
export const VARIABLES: readonly string[] = [
  ...["TITAN_LIB", "TITAN_PRINT", "TITAN_DEBUG", "NO_COLOR", "LOG_RANK", LAUNCHED],
  ...[
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "HOME",
  ],
  ...["MASTER_ADDR", "MASTER_PORT", "TITAN_TOKEN"],
  ...new Set(LAUNCHERS.flatMap(variablesOf)),
];

/** The variables that this program may read; others look as if they were not set. */
export const readable: Environment = {
  get: (variable) =>
    Deno.permissions.querySync({ name: "env", variable }).state === "granted" ? Deno.env.get(variable) : undefined,
};

/** Who this process is, or undefined where nobody has started several.
 * @param env where to look; {@linkcode readable} unless given.
 * @throws {LaunchError} where the variables of a launcher are no ranks, or some of them are missing. */
export function worldOf(env: Environment = readable): World | undefined {
  const launcher = launcherOf(env);
  if (!launcher) return alone(env);
  const { hostSizes } = launcher;
  const size = whole(env, launcher.size, 1), rank = whole(env, launcher.rank, 0, size);
  const hostRank = whole(env, launcher.hostRank, 0, size);
  const hostSize = hostSizes
    ? tasksPerHost(env.get(hostSizes.list)!)[whole(env, hostSizes.host, 0)]
    : whole(env, launcher.hostSize!, 1, size + 1);
  if (hostSize === undefined) refuse(env, hostSizes!.list, "a number of tasks for each host, such as 4(x2),3");
  if (hostRank >= hostSize) refuse(env, launcher.hostRank, `a whole number from 0 to ${hostSize - 1}`);
  if (hostSizes) agree(env, launcher);
  return { rank, size, hostRank, hostSize };
}

function launcherOf(env: Environment): Launcher | undefined {
  return LAUNCHERS.find((one) => variablesOf(one).every((name) => env.get(name) !== undefined));
}

/** What brings processes together: Gloo, where they were started without MPI and MASTER_ADDR says where they meet. */
export function moduleOf(env: Environment = readable): "mpi" | "gloo" {
  return launcherOf(env)?.meets && env.get("MASTER_ADDR") ? "gloo" : "mpi";
}

/** Nobody's process, unless a launcher has set some of its variables. */
function alone(env: Environment): undefined {
  for (const launcher of LAUNCHERS) {
    const names = variablesOf(launcher), set = names.filter((name) => env.get(name) !== undefined);
    // A batch script has SLURM_PROCID and its like, but is no task of a step.
    const isScript = launcher.hostSizes !== undefined && env.get(launcher.size) === undefined;
    if (set.length === 0 || isScript || env.get(launcher.size) === "1") continue;
    const missing = names.filter((name) => !set.includes(name));
    throw new LaunchError(
      `This process may be one of several: ${set.join(", ")} ${set.length === 1 ? "is" : "are"} set, ` +
        `but not ${missing.join(", ")}`,
      `all variables of ${launcher.name}, or none`,
      BY_HAND,
    );
  }
}

/** Where another launcher uses tasks of Slurm to start more processes, those of Slurm are not the ranks. */
function agree(env: Environment, launcher: Launcher): void {
  for (const key of ["rank", "size"] as const) {
    const [own, other] = [env.get(launcher[key]), env.get(PMI[key]) ?? env.get(launcher[key])];
    if (own === other) continue;
    throw new LaunchError(
      `The environment variable ${launcher[key]} is "${own}", but ${PMI[key]} is "${other}"`,
      `the same: one launcher's variables`,
      BY_HAND,
    );
  }
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
    BY_HAND,
  );
}

/** What to do where a launcher cannot be understood. */
const BY_HAND =
  "set RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE for every process, or have mpirun, srun or --nproc start them";

/** `2(x3),1`: 2 on each of three hosts, 1 on the next. */
function tasksPerHost(text: string): number[] {
  return text.split(",").flatMap((part) => {
    const [, tasks, hosts = "1"] = /^(\d+)(?:\(x(\d+)\))?$/.exec(part) ?? [];
    return tasks === undefined ? [] : Array<number>(Number(hosts)).fill(Number(tasks));
  });
}

/** Did `launch` start this process? */
export function isLaunched(env: Environment = readable): boolean {
  return env.get(LAUNCHED) !== undefined;
}
