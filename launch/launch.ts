/** Starting ranks as processes of this machine: through `mpirun`, which brings them together and ends all when one fails, or without it. What
 * each prints goes through a file of its own, since `mpirun` tears lines.
 * @module */
import type { HostPart } from "./hosts.ts";
import type { Job } from "./job.ts";
import { startProcesses } from "./processes.ts";
import { type Cause, causeOf, Errors, Lines, prefixed } from "./rank_output.ts";
import { exitCodeOf, onStop, type StopSignal } from "./stop.ts";
import { LAUNCHED, LaunchError, VARIABLES } from "./world.ts";

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
  /** Is what the first rank prints passed on byte by byte, as the only rank's? Default: in lines that name their rank. */
  readonly asOne?: boolean;
  /** What brings ranks together: `mpi` is `mpirun`, and the default; `gloo` needs none. */
  readonly module?: "mpi" | "gloo";
  /** The part of a job of several machines that this one starts, over Gloo. */
  readonly part?: HostPart;
}

/** How a job ended. */
export interface Ended {
  /** The exit code: of the rank that failed, or 128 + n where signal n stopped the run. */
  readonly code: number;
  /** The rank that ended first without success, by itself. */
  readonly cause?: Cause;
}

/** Milliseconds: between looks at what ranks have printed; for a job to end once a rank says that it fails, or has ended by itself where
 * nobody ends the others; for mpirun to end the ranks. */
const [LOOK_MS, FAILED_MS, ENDED_MS, KILL_MS] = [50, 5000, 2000, 3000];

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

/** How Deno finds packages where this is JavaScript, the package for npm: as `launch/node.ts` says. */
const OF_NPM = import.meta.url.endsWith(".js") ? ["--node-modules-dir=manual"] : [];

/** Starts ranks of this program on this machine and waits for them. A signal to stop is passed on, once; the next one ends them.
 * @returns how they ended.
 * @throws {LaunchError} when they cannot be started. */
export async function launch(nproc: number, args: readonly string[], options: LaunchOptions): Promise<Ended> {
  const flags = permissionFlags(options.library), folder = await Deno.makeTempDir({ prefix: "libtitan-" });
  try {
    const program = [Deno.execPath(), "run", "--quiet", ...OF_NPM, ...flags, options.main ?? Deno.mainModule, ...args];
    const waiting = waitPolicy(nproc * options.threads);
    const job = options.module === "gloo"
      ? startProcesses({ nproc, part: options.part }, program, folder, waiting)
      : startMpirun(["-n", `${nproc}`, "sh", "-c", START, folder, ...program], { ...environment(folder), ...waiting });
    return await attend(job, nproc, folder, options);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Prints what ranks print, passes signals on, and sees to it that all end. */
async function attend(
  job: Job,
  nproc: number,
  folder: string,
  { graceMs, asOne = false, part }: LaunchOptions,
): Promise<Ended> {
  const firstRank = part?.firstRank ?? 0, errors = new Errors(), timers: ReturnType<typeof setTimeout>[] = [];
  let ended = false, failing = false, killed = false, cause: Cause | undefined, signal: StopSignal | undefined;
  const kill = () => {
    killed = true;
    if (!ended) job.kill("SIGTERM");
    timers.push(setTimeout(() => ended || job.kill("SIGKILL"), KILL_MS));
  };
  const fail = (ms = FAILED_MS) => {
    if (!failing || ms < FAILED_MS) timers.push(setTimeout(kill, ms));
    failing = true;
  };
  const shown = (line: string, rank: number) => asOne && rank === 0 ? line : withRank(line, rank);
  const onError = (rank: number, line: string) => {
    if (!errors.add(rank, line)) console.error(shown(line, rank));
    if (errors.any) fail();
  };
  const onEnd = (line: string) => {
    if (!killed && !signal) cause ??= causeOf(line, firstRank);
    if (cause) fail(job.endsAll ? FAILED_MS : ENDED_MS);
  };
  const outputs = Array.from({ length: nproc }, (_, index) => {
    const rank = firstRank + index, path = `${folder}/${index}`;
    return [
      asOne && rank === 0
        ? new RankOutput(`${path}.out`, { onBytes: (bytes) => writeAll(Deno.stdout, bytes) })
        : new RankOutput(`${path}.out`, { onLine: (line) => console.log(withRank(line, rank)) }),
      new RankOutput(`${path}.err`, { onLine: (line) => onError(rank, line) }),
    ];
  }).flat();
  outputs.push(new RankOutput(`${folder}/ends`, { onLine: onEnd }));
  const off = onStop((received) => {
    if (signal) return kill();
    signal = received;
    job.tell(signal);
    timers.push(setTimeout(kill, graceMs));
  });
  job.code.then(() => ended = true);
  try {
    while (!ended) {
      const more = outputs.map((output) => output.look()).includes(true);
      await new Promise((resolve) => setTimeout(resolve, more ? 0 : LOOK_MS));
    }
    outputs.forEach((output) => output.end());
    const code = await job.code, text = (await job.said).trim();
    const report = code === 0 && !failing ? [text] : errors.report(cause);
    if (report.length === 0) {
      if (!signal || !outputs.some((output) => output.begun)) report.push(text);
      if (!signal) report.push(`error: ${job.name} ended with exit code ${code}   (launch)`);
    }
    report.filter((line) => line !== "").forEach((line) => console.error(line));
    if (signal && (code === 0 || !errors.any)) return { code: exitCodeOf(signal) };
    if (cause) return { code: cause.code, cause };
    return { code: code === 0 && errors.any ? 1 : code }; // MPICH's is 0 at times
  } finally {
    timers.forEach(clearTimeout);
    off();
    await job.close();
  }
}

/** Threads that wait must not take processors from those that work. */
function waitPolicy(threads: number): Record<string, string> {
  return threads > navigator.hardwareConcurrency ? { OMP_WAIT_POLICY: "passive" } : {};
}

/** What mpirun and the ranks find in their environment. */
function environment(folder: string): Record<string, string> {
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
  };
}

function startMpirun(args: string[], env: Record<string, string>): Job {
  const mpirun = spawnMpirun(args, env), control = mpirun.stdin.getWriter();
  return {
    code: mpirun.status.then(({ code }) => code),
    said: Promise.all([new Response(mpirun.stdout).text(), new Response(mpirun.stderr).text()]).then((all) =>
      all.join("")
    ),
    name: "mpirun",
    endsAll: true,
    tell: (line) => void control.write(new TextEncoder().encode(`${line}\n`)).catch(() => {}), // it has ended meanwhile
    kill: (signal) => mpirun.kill(signal), // which ends the ranks as well
    close: () => control.close().catch(() => {}),
  };
}

function spawnMpirun(args: string[], env: Record<string, string>): Deno.ChildProcess {
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
/** What to do where ranks cannot be brought together at all. */
export const WITH_ANY = [
  "a module that brings ranks together: over Gloo, or over MPI, with Open MPI",
  "npx -y deno task setup --gloo, or npx -y deno task setup --mpi",
] as const;
/** What to do without Gloo. */
export const WITH_GLOO = ["libtitan's module for Gloo", "npx -y deno task setup --gloo"] as const;

/** Hosts that a rank may talk to: this machine, for the page of a run. */
const HOSTS = ["127.0.0.1"];

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
  const mayReach = (host: string) => granted({ name: "net", host });
  return [
    ...["--no-prompt", "--allow-read", "--allow-write"],
    ...some("ffi", [library], (path) => ({ name: "ffi", path })),
    ...some("env", VARIABLES, (variable) => ({ name: "env", variable })),
    ...(granted({ name: "net" }) ? ["--allow-net"] : HOSTS.filter(mayReach).map((host) => `--allow-net=${host}`)),
  ];
}

/** Where output goes: bytes as they come, or whole lines. */
interface OutputListener {
  readonly onBytes?: (bytes: Uint8Array) => void;
  readonly onLine?: (line: string) => void;
}

/** What ranks write into a file, as it comes. */
class RankOutput {
  readonly #path: string;
  readonly #listener: OutputListener;
  readonly #lines = new Lines();
  readonly #bytes = new Uint8Array(1 << 16);
  #file: Deno.FsFile | undefined;

  constructor(path: string, listener: OutputListener) {
    this.#path = path;
    this.#listener = listener;
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
    const length = this.#file.readSync(this.#bytes) ?? 0, { onBytes, onLine } = this.#listener;
    const bytes = this.#bytes.subarray(0, length);
    if (onBytes) onBytes(bytes);
    else this.#lines.add(bytes).forEach((line) => onLine?.(line));
    return length === this.#bytes.length;
  }

  /** Takes the rest. */
  end(): void {
    while (this.look());
    this.#lines.end().forEach((line) => this.#listener.onLine?.(line));
    this.#file?.close();
  }
}

/** A line with the rank that it comes from, which most say themselves. */
function withRank(line: string, rank: number): string {
  return line.startsWith(`[rank${rank}] `) ? line : prefixed(line, rank);
}

function writeAll(to: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
}
