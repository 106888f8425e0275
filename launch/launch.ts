/** Starting ranks as processes of this machine, through `mpirun`, which brings them together and ends all when one fails. What each prints
 * goes through a file of its own, since `mpirun` tears lines.
 * @module */
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
    return await attend(mpirun, nproc, folder, options);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Prints what ranks print, passes signals on, and sees to it that all end. */
async function attend(
  mpirun: Deno.ChildProcess,
  nproc: number,
  folder: string,
  { graceMs, asOne = false }: LaunchOptions,
): Promise<number> {
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
  const shown = (line: string, rank: number) => asOne && rank === 0 ? line : withRank(line, rank);
  const onError = (rank: number, line: string) => {
    if (!errors.add(rank, line)) console.error(shown(line, rank));
    if (errors.any) fail();
  };
  const onEnd = (line: string) => {
    if (!killed && !signal) cause ??= causeOf(line);
    if (cause) fail();
  };
  const outputs = Array.from({ length: nproc }, (_, rank) => [
    asOne && rank === 0
      ? new RankOutput(`${folder}/0.out`, { onBytes: (bytes) => writeAll(Deno.stdout, bytes) })
      : new RankOutput(`${folder}/${rank}.out`, { onLine: (line) => console.log(withRank(line, rank)) }),
    new RankOutput(`${folder}/${rank}.err`, { onLine: (line) => onError(rank, line) }),
  ]).flat();
  outputs.push(new RankOutput(`${folder}/ends`, { onLine: onEnd }));
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
