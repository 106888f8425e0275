/** Starting the ranks of a run on this machine: what can be refused is refused here, once, before any of them starts.
 * @module */
import { modulePath } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { library } from "../../ffi/library.ts";
import { type Ended, launch, type LaunchOptions, WITH_ANY, WITH_GLOO } from "../../launch/launch.ts";
import { LaunchError, readable } from "../../launch/world.ts";
import { SCHEDULES } from "../../parallel/pipeline/schedules.ts";
import { type Restarts, withRestarts } from "./restarts.ts";
import { isFile } from "../weights/weight_files.ts";
import { type Config, type LogRanks, meshOf, readLogRanks } from "../config/config.ts";

/** Number of ranks of a run: of those that this process is one of, else of those that are asked for, else one.
 * @param isCompiled is this a program that `deno compile` made, which cannot start itself as a rank?
 * @throws {LaunchError} where both differ. */
export function numRanks(
  found: number | undefined,
  asked: number | undefined,
  isCompiled: boolean = Deno.build.standalone,
): number {
  if (isCompiled && found === undefined && asked !== undefined && asked > 1) {
    const fix = `mpirun -n ${asked} PROGRAM, with the same arguments but --nproc`;
    throw new LaunchError(`A compiled program starts no ranks, here ${asked}`, "a launcher that starts them", fix);
  }
  if (asked !== undefined && found !== undefined && asked !== found) {
    const fix = "delete --nproc, which is for a process that nobody started with others";
    throw new LaunchError(`--nproc ${asked}, but this is one of ${found} ranks`, "the same", fix);
  }
  return found ?? asked ?? 1;
}

/** The ranks to show: those of `--log-rank`, else those of the environment variable LOG_RANK, else the first, and with a pipeline the
 * first that has its last stage.
 * @throws {LaunchError} where there are no such ranks. */
export function shownRanks(
  asked: LogRanks | undefined,
  size: number,
  parallelism?: Config["parallelism"],
): LogRanks {
  const variable = readable.get("LOG_RANK"), usual = [...new Set([0, lastStageRank(size, parallelism)])];
  const ranks = asked ?? (variable ? readLogRanks(variable) : usual);
  if (ranks === "all" || ranks?.every((rank) => rank < size)) return ranks;
  const what = asked ? `--log-rank ${asked}` : `The environment variable LOG_RANK is ${JSON.stringify(variable)}`;
  throw new LaunchError(what, `ranks from 0 to ${size - 1}, such as 0,1, or all`, "name other ranks");
}

/** The first rank of the last stage, as far as the name of the schedule tells it: a schedule in a V has that stage on the first ranks. */
function lastStageRank(size: number, parallelism?: Config["parallelism"]): number {
  const {
    pipeline_parallel_degree: stages = 1,
    pipeline_parallel_schedule: name,
    pipeline_parallel_schedule_csv: file,
  } = parallelism ?? {};
  const isV = !file && SCHEDULES.some((kind) => kind.style === "v" && kind.name.toLowerCase() === name?.toLowerCase());
  return isV || size % stages !== 0 ? 0 : size - size / stages; // the mesh says what is wrong with other sizes
}

/** Starts ranks that run this command line, and waits for them.
 * @returns their exit code. */
export async function startRanks(
  config: Config,
  size: number,
  args: readonly string[],
  { part, ...restarts }: Restarts & Pick<LaunchOptions, "part"> = {},
): Promise<number> {
  meshOf(config, size);
  const { device: { threads }, comm: { train_timeout_seconds: seconds } } = config;
  const start = (ranks: number, more: readonly string[]) => {
    const own = ranks === size ? args : [...args, "--nproc", `${ranks}`]; // of two the later counts
    return launchRanks(ranks, [...own, ...more], { threads, graceMs: seconds * 1000, part });
  };
  return await withRestarts(config, size, restarts, start);
}

/** What brings ranks together here: MPI, or Gloo where that is missing, or several machines are to share a job.
 * @throws {LaunchError} where neither is there. */
function moduleHere(size: number, needsGloo: boolean): "mpi" | "gloo" {
  const found = (["mpi", "gloo"] as const).find((name) => (name === "gloo" || !needsGloo) && isFile(modulePath(name)));
  if (found) return found;
  const missing = needsGloo ? modulePath("gloo") : `${modulePath("gloo")}, and no ${modulePath("mpi")}`;
  const [expected, fix] = needsGloo ? WITH_GLOO : WITH_ANY;
  throw new LaunchError(`Cannot start ${size} ranks: there is no ${missing}`, expected, fix);
}

/** Starts ranks that run this command line, and waits for them.
 * @param options.threads of each rank, or 0 for its part of the machine. @returns how they ended.
 * @throws {LaunchError} when they cannot be started. */
export async function launchRanks(
  size: number,
  args: readonly string[],
  options: Omit<LaunchOptions, "library" | "module">,
): Promise<Ended> {
  const { threads, part } = options, module = moduleHere(size, part !== undefined), nproc = part?.nproc ?? size;
  using device = new Device({ threads, hostSize: nproc });
  return await launch(nproc, args, { ...options, module, library: library().path, threads: device.info.threads });
}
