/** Ranks as processes: who this one is, as whoever started it says in the environment; and starting them here, through `mpirun`, which
 * brings them together and ends all when one fails. What each prints goes through a file of its own, since `mpirun` tears lines.
 * Whoever started rank 0 talks to it on its standard input: a line with the name of a signal, or the end, when it is gone itself.
 * @module */
import { type Cause, causeOf, Errors, Lines, prefixed } from "./rank_output.ts";

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
  { name: "torchrun", rank: "RANK", size: "WORLD_SIZE", hostRank: "LOCAL_RANK", hostSize: "LOCAL_WORLD_SIZE" },
  // Whatever --mpi is: with pmi2 the first two PMI variables are set as well, with pmix nothing else that says who a process is.
  {
    name: "Slurm's srun",
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    hostRank: "SLURM_LOCALID",
    hostSizes: { list: "SLURM_STEP_TASKS_PER_NODE", host: "SLURM_NODEID" },
  },
];

/** What a launcher sets for each process. */
function variablesOf({ name: _, hostSizes, ...names }: Launcher): string[] {
  return [...Object.values(names), ...(hostSizes ? [hostSizes.list, hostSizes.host] : [])];
}

/** In the environment of ranks that {@linkcode launch} started: the folder of what they print. */
const LAUNCHED = "TITAN_LAUNCHED";

/** The variables that a rank looks at: what `--allow-env` has to name. */
export const VARIABLES: readonly string[] = [
  ...["TITAN_LIB", "TITAN_PRINT", "TITAN_DEBUG", "NO_COLOR", "LOG_RANK", LAUNCHED],
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
  const launcher = LAUNCHERS.find((one) => variablesOf(one).every((name) => env.get(name) !== undefined));
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

/** Signals that ask a run to stop. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM"] as const;
/** One of them. */
export type StopSignal = typeof STOP_SIGNALS[number];

/** The exit code of a process that stopped because of a signal. */
export function exitCodeOf(signal: StopSignal): number {
  return signal === "SIGINT" ? 130 : 143;
}

/** Did {@linkcode launch} start this process? */
export function isLaunched(env: Environment = readable): boolean {
  return env.get(LAUNCHED) !== undefined;
}

const stopListeners = new Set<(signal: StopSignal) => void>();

/** Milliseconds within which the same signal is one: Ctrl-C comes from the terminal, and again from `deno task` and npx, which pass it on. */
const SAME_MS = 300;

/** Calls a listener when this run is asked to stop: by a signal, or by the launcher, which then has got it.
 * @returns what takes it off. */
export function onStop(listener: (signal: StopSignal) => void): () => void {
  if (isLaunched()) {
    stopListeners.add(listener);
    return () => stopListeners.delete(listener);
  }
  const off = STOP_SIGNALS.map((signal) => {
    let last = -Infinity;
    const own = () => {
      const now = performance.now();
      if (now - last < SAME_MS) return;
      last = now;
      listener(signal);
    };
    Deno.addSignalListener(signal, own);
    return () => Deno.removeSignalListener(signal, own);
  });
  return () => off.forEach((one) => one());
}

/** Rank 0 of {@linkcode launch} does as the launcher says until it ends, and ends at once when the launcher has. */
export async function followLauncher(world: World): Promise<void> {
  if (!isLaunched() || world.rank !== 0) return;
  const lines = new Lines(), bytes = new Uint8Array(256);
  for (let length; (length = await Deno.stdin.read(bytes)) !== null;) {
    for (const line of lines.add(bytes.subarray(0, length))) {
      const signal = STOP_SIGNALS.find((name) => name === line);
      if (!signal) continue;
      if (stopListeners.size === 0) Deno.exit(exitCodeOf(signal));
      stopListeners.forEach((listener) => listener(signal));
    }
  }
  // mpirun closes the input too when it ends the ranks, and is about to: then this process is not to be the one that failed.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await Deno.remove(readable.get(LAUNCHED)!, { recursive: true }).catch(() => {}); // as the launcher cannot
  Deno.exit(1);
}

/** How ranks are started. */
export interface LaunchOptions {
  /** Module to run; this program's own unless given. */
  readonly main?: string;
  /** The native library, which ranks may load. */
  readonly library: string;
  /** Threads of each rank. */
  readonly threads: number;
  /** Milliseconds that ranks have from a signal to their end. */
  readonly graceMs: number;
}

/** Milliseconds: between looks at what ranks have printed; for a job to end once a rank has failed; for mpirun to end the ranks. */
const [LOOK_MS, FAILED_MS, KILL_MS] = [50, 5000, 3000];

/** Runs a rank with its output in files, and says how it ended before mpirun gets to know and ends the others: what mpirun says of who
 * was first differs from one MPI to the next, and is not always so. Files of Open MPI that are memory are removed here, as an mpirun
 * that is killed leaves them; for Deno `/dev/shm` is no folder like others. */
const START = [
  "rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}",
  "memory=/dev/shm/${0##*/}",
  'if [ "$OMPI_COMM_WORLD_RANK" ] && mkdir -p "$memory" 2>&-; then export OMPI_MCA_btl_sm_backing_directory="$memory"; fi',
  '("$@" >"$0/$rank.out" 2>"$0/$rank.err")',
  "code=$?",
  'rm -rf "$memory"',
  'echo $rank $code >>"$0/ends"',
  "if [ $code -gt 128 ]; then kill -$((code - 128)) $$; fi", // MPICH ends the others at once for a signal alone
  "exit $code",
].join("; ");

/** Starts ranks of this program on this machine and waits for them. A signal to stop is passed on, once; the next one ends them.
 * @returns the exit code: of the rank that failed, or 128 + n where signal n stopped the run.
 * @throws {LaunchError} when they cannot be started. */
export async function launch(nproc: number, args: readonly string[], options: LaunchOptions): Promise<number> {
  const flags = permissionFlags(options.library), folder = await Deno.makeTempDir({ prefix: "libtitan-" });
  try {
    const program = [Deno.execPath(), "run", "--quiet", ...flags, options.main ?? Deno.mainModule, ...args];
    const mpirun = start(
      ["-n", `${nproc}`, "sh", "-c", START, folder, ...program],
      environment(folder, nproc * options.threads),
    );
    return await attend(mpirun, nproc, folder, options.graceMs);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Prints what ranks print, passes signals on, and sees to it that all end. */
async function attend(mpirun: Deno.ChildProcess, nproc: number, folder: string, graceMs: number): Promise<number> {
  const errors = new Errors(), control = mpirun.stdin.getWriter(), timers: ReturnType<typeof setTimeout>[] = [];
  let ended = false, failing = false, killed = false, cause: Cause | undefined, signal: StopSignal | undefined;
  const kill = () => {
    killed = true;
    if (!ended) mpirun.kill("SIGTERM"); // which ends the ranks as well
    timers.push(setTimeout(() => ended || mpirun.kill("SIGKILL"), KILL_MS));
  };
  const fail = () => {
    if (!failing) timers.push(setTimeout(kill, FAILED_MS));
    failing = true;
  };
  const onError = (rank: number, line: string) => {
    if (!errors.add(rank, line)) console.error(withRank(line, rank));
    if (errors.any) fail();
  };
  const onEnd = (line: string) => {
    if (!killed && !signal) cause ??= causeOf(line);
    if (cause) fail();
  };
  const outputs = Array.from({ length: nproc }, (_, rank) => [
    new RankOutput(`${folder}/${rank}.out`, (line) => console.log(withRank(line, rank))),
    new RankOutput(`${folder}/${rank}.err`, (line) => onError(rank, line)),
  ]).flat();
  outputs.push(new RankOutput(`${folder}/ends`, onEnd));
  const off = onStop((received) => {
    if (signal) return kill();
    signal = received;
    control.write(new TextEncoder().encode(`${signal}\n`)).catch(() => {}); // it has ended meanwhile
    timers.push(setTimeout(kill, graceMs));
  });
  const said = Promise.all([new Response(mpirun.stdout).text(), new Response(mpirun.stderr).text()]);
  mpirun.status.then(() => ended = true);
  try {
    while (!ended) {
      const more = outputs.map((output) => output.look()).includes(true);
      await new Promise((resolve) => setTimeout(resolve, more ? 0 : LOOK_MS));
    }
    outputs.forEach((output) => output.end());
    const { code } = await mpirun.status, text = (await said).join("").trim();
    const report = code === 0 && !failing ? [text] : errors.report(cause);
    if (report.length === 0) {
      if (!signal || !outputs.some((output) => output.begun)) report.push(text);
      if (!signal) report.push(`error: mpirun ended with exit code ${code}   (launch)`);
    }
    report.filter((line) => line !== "").forEach((line) => console.error(line));
    if (signal && (code === 0 || !errors.any)) return exitCodeOf(signal);
    if (cause) return cause.code;
    return code === 0 && errors.any ? 1 : code; // MPICH's is 0 at times
  } finally {
    timers.forEach(clearTimeout);
    off();
    await control.close().catch(() => {});
  }
}

/** What mpirun and the ranks find in their environment. */
function environment(folder: string, threads: number): Record<string, string> {
  return {
    [LAUNCHED]: folder,
    // Open MPI wants to be told that root, and more ranks than processors, are meant; threads are bound by libtitan.
    OMPI_ALLOW_RUN_AS_ROOT: "1",
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
    PRTE_MCA_prte_tmpdir_base: folder, // what it leaves when it is killed is removed with the folder
    PRTE_MCA_rmaps_default_mapping_policy: ":oversubscribe",
    PRTE_MCA_hwloc_default_binding_policy: "none",
    OMPI_MCA_rmaps_base_oversubscribe: "1", // both in version 4
    OMPI_MCA_hwloc_base_binding_policy: "none",
    OMPI_MCA_btl: "^tcp", // all are on one host, whose network it would complain about
    // Threads that wait must not take processors from those that work.
    ...(threads > navigator.hardwareConcurrency ? { OMP_WAIT_POLICY: "passive" } : {}),
  };
}

function start(args: string[], env: Record<string, string>): Deno.ChildProcess {
  const piped = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  try {
    // In a session of its own: Ctrl-C is for this process alone, which passes it on.
    return new Deno.Command("mpirun", { args, env, ...piped, detached: true }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new LaunchError("Cannot start ranks: there is no mpirun", ...WITH_MPI);
    }
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    throw new LaunchError("Cannot start ranks: this process may not run mpirun", "--allow-run=mpirun", "add that flag");
  }
}

/** What to do without MPI. */
export const WITH_MPI = ["Open MPI, and libtitan's module for it", "npx -y deno task setup --mpi"] as const;

/** What this process may do, as flags for one like it: as far as training asks for it. */
function permissionFlags(library: string): string[] {
  const granted = (descriptor: Deno.PermissionDescriptor) => Deno.permissions.querySync(descriptor).state === "granted";
  for (const name of ["read", "write"] as const) {
    if (granted({ name })) continue;
    const what = `Cannot start ranks: this process may ${name} some files at most, and cannot tell which`;
    throw new LaunchError(what, `--allow-${name} without a list`, "add that flag");
  }
  const some = (
    name: "env" | "ffi",
    values: readonly string[],
    of: (value: string) => Deno.PermissionDescriptor,
  ) => {
    if (granted({ name })) return [`--allow-${name}`];
    const few = values.filter((value) => granted(of(value)));
    return few.length > 0 ? [`--allow-${name}=${few.join(",")}`] : [];
  };
  return [
    ...["--no-prompt", "--allow-read", "--allow-write"],
    ...some("ffi", [library], (path) => ({ name: "ffi", path })),
    ...some("env", VARIABLES, (variable) => ({ name: "env", variable })),
    ...(granted({ name: "net" }) ? ["--allow-net"] : []),
  ];
}

/** What ranks write into a file, line by line as it comes. */
class RankOutput {
  readonly #path: string;
  readonly #onLine: (line: string) => void;
  readonly #lines = new Lines();
  readonly #bytes = new Uint8Array(1 << 16);
  #file: Deno.FsFile | undefined;

  constructor(path: string, onLine: (line: string) => void) {
    this.#path = path;
    this.#onLine = onLine;
  }

  /** Has a rank made the file? */
  get begun(): boolean {
    return this.#file !== undefined;
  }

  /** Takes a part of what is new; there may be more if it says so. */
  look(): boolean {
    try {
      this.#file ??= Deno.openSync(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false; // not yet
      throw error;
    }
    const length = this.#file.readSync(this.#bytes) ?? 0;
    this.#lines.add(this.#bytes.subarray(0, length)).forEach(this.#onLine);
    return length === this.#bytes.length;
  }

  /** Takes the rest. */
  end(): void {
    while (this.look());
    this.#lines.end().forEach(this.#onLine);
    this.#file?.close();
  }
}

/** A line with the rank that it comes from, which most say themselves. */
function withRank(line: string, rank: number): string {
  return line.startsWith(`[rank${rank}] `) ? line : prefixed(line, rank);
}
