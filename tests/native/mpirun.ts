/** Real processes: starts ranks of a script and gathers what each says. Needs `mpirun` and the communication module
 * (`deno task setup --mpi`); without them such tests are skipped.
 * @module */
import { assertEquals } from "@std/assert";
import { modulePath } from "../../ffi/comm.ts";
import { library } from "../../ffi/library.ts";

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

library(); // opened here: inside a test the sanitizer would call it a leak
const mpirun = (Deno.env.get("PATH") ?? "").split(":").map((folder) => `${folder}/mpirun`).find(exists);
const lacking = mpirun === undefined ? "no mpirun" : exists(modulePath()) ? undefined : `no ${modulePath()}`;
if (lacking) console.error(`Tests of ranks as real processes are skipped: ${lacking} (fix: deno task setup --mpi)`);

/** How a job ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
  /** What each rank says, by rank. */
  readonly results: readonly Record<string, unknown>[];
}

/** What is started. */
export interface Job {
  /** Number of ranks. */
  readonly size: number;
  /** Script of a rank; it prints one line of JSON, with its `rank`. */
  readonly script: URL;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What starts each process, in a namespace of its own for instance; nothing unless given. */
  readonly within?: readonly string[];
}

/** For Open MPI: containers run as root, and test machines have fewer processors than there are ranks. */
export const MPI: Readonly<Record<string, string>> = {
  OMPI_ALLOW_RUN_AS_ROOT: "1",
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
  PRTE_MCA_rmaps_default_mapping_policy: ":oversubscribe",
  PRTE_MCA_hwloc_default_binding_policy: "none",
  OMPI_MCA_btl: "self,sm",
  OMP_WAIT_POLICY: "passive",
};

/** Runs a rank, and adds its exit code to a file: MPICH's mpirun ends with 0 now and then, though ranks have failed. */
const START = '"$@"; code=$?; echo $code >>"$0"; exit $code';

/** Starts ranks on this machine, or one process without `mpirun`. */
export function start({ size, script, args, env }: Job): Deno.ChildProcess {
  const program = [Deno.execPath(), "run", "-A", "--quiet", script.pathname, ...args];
  const [first, ...rest] = size === 1 ? program : [mpirun!, "-n", `${size}`, ...program];
  const variables = { ...(size === 1 ? {} : MPI), TITAN_LIB: library().path, ...env };
  return new Deno.Command(first, { args: rest, env: variables, stdout: "piped", stderr: "null" }).spawn();
}

/** Runs ranks on this machine to their end. */
export async function ranks({ size, script, args, env, within = [] }: Job): Promise<Ended> {
  const begun = performance.now(), codes = await Deno.makeTempFile();
  const program = [...within, Deno.execPath(), "run", "-A", "--quiet", script.pathname, ...args];
  const { code: ofMpirun, stdout, stderr } = await new Deno.Command(mpirun!, {
    args: ["-n", `${size}`, "sh", "-c", START, codes, ...program],
    env: { ...MPI, TITAN_LIB: library().path, ...env },
  }).output();
  const failed = (await Deno.readTextFile(codes)).split("\n").map(Number).find((code) => code !== 0);
  await Deno.remove(codes);
  const code = ofMpirun || (failed ?? 0);
  const said = new TextDecoder().decode(stdout), lines = said.split("\n").filter((line) => line.startsWith("{"));
  return {
    code,
    stdout: said,
    stderr: new TextDecoder().decode(stderr),
    seconds: (performance.now() - begun) / 1000,
    results: lines.map((line) => JSON.parse(line)).sort((a, b) => a.rank - b.rank),
  };
}

/** What the ranks of a job that ends well print, all together. */
export async function output(job: Job): Promise<string> {
  const { code, stdout, stderr } = await ranks(job);
  assertEquals(code, 0, stderr);
  return stdout;
}

/** What the ranks say of a job that ends well. */
export async function results(job: Job): Promise<readonly Record<string, unknown>[]> {
  const { code, stderr, results } = await ranks(job);
  assertEquals(code, 0, stderr);
  assertEquals(results.map((r) => r.rank), Array.from({ length: job.size }, (_, rank) => rank), stderr);
  return results;
}

/** A test that needs ranks. */
export function testRanks(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore: lacking !== undefined, fn });
}
