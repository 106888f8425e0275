/** A lost rank is no lost run: ranks are started anew after a failure, and go on from the newest checkpoint.
 * @module */
import type { Ended } from "../../launch/launch.ts";
import { onStop } from "../../launch/stop.ts";
import { LaunchError } from "../../launch/world.ts";
import { type Config, meshOf } from "../config/config.ts";

/** What is asked for. */
export interface Restarts {
  /** How often at most. */
  readonly restarts?: number;
  /** Without ranks that a signal ended? */
  readonly elastic?: boolean;
}

/** Milliseconds from the end of a job to the next start. */
const PAUSE_MS = 1000;

/** Exit codes beyond are of processes that a signal ended. */
const SIGNALLED = 128;

/** Runs a job, again as long as it fails and may be started anew.
 * @param start starts so many ranks, with arguments that come behind those of the command line.
 * @returns the exit code of the last job.
 * @throws {LaunchError} where there would be nothing to go on from. */
export async function withRestarts(
  config: Config,
  size: number,
  { restarts = 0, elastic = false }: Restarts,
  start: (size: number, more: readonly string[]) => Promise<Ended>,
): Promise<number> {
  if (restarts > 0 && !config.checkpoint.enable) {
    const fix = "add --checkpoint.enable, or delete --restarts";
    throw new LaunchError(`--restarts ${restarts} without checkpoints`, "checkpoints, from which ranks go on", fix);
  }
  // Fewer ranks would make smaller batches.
  const batch = elastic ? ["--training.global_batch_size", `${globalBatchSize(config, size)}`] : [];
  let isStopped = false, ranks = size;
  const off = onStop(() => isStopped = true);
  try {
    for (let again = 1;; again++) {
      const { code, cause } = await start(ranks, batch);
      if (code === 0 || isStopped || again > restarts) return code;
      if (elastic && cause && cause.code > SIGNALLED) ranks = fewer(config, ranks);
      console.error(`restart ${again} of ${restarts}: ${ranks} ranks go on from the newest checkpoint`);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      if (isStopped) return code;
    }
  } finally {
    off();
  }
}

/** Rows of a step's batch. */
function globalBatchSize({ training, parallelism, ...rest }: Config, size: number): number {
  if (training.global_batch_size > 0) return training.global_batch_size;
  const { dp_replicate, dp_shard } = meshOf({ training, parallelism, ...rest }, size).degrees;
  return training.local_batch_size * dp_replicate * dp_shard;
}

/** The most ranks below `size` that the mesh and the batch allow; `size` where none do, as the machine may have room for them again. */
export function fewer(config: Config, size: number): number {
  const rows = globalBatchSize(config, size), { training } = config;
  for (let ranks = size - 1; ranks > 0; ranks--) {
    try {
      const { dp_replicate, dp_shard } = meshOf(config, ranks).degrees;
      if (rows % (training.local_batch_size * dp_replicate * dp_shard) === 0) return ranks;
    } catch {
      // The mesh has no such size.
    }
  }
  return size;
}
