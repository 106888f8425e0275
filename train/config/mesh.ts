/**
 * The mesh of ranks that a configuration asks for.
 * @module
 */
import { degreeOf, LayoutError } from "../../graph/layout.ts";
import { AXES, type Axis, Mesh, meshProblems, stepProblems } from "../../parallel/mesh.ts";
import { ConfigError } from "./problem.ts";
import type { Config } from "./schema.ts";

/** The mesh of a configuration.
 * @param nproc number of ranks; without it, the product of the degrees.
 * @throws {ConfigError} with all that does not fit between degrees, ranks and the sizes of a step. */
export function meshOf({ parallelism: p, training }: Config, nproc?: number): Mesh {
  const degrees: Record<Axis, number> = {
    pp: p.pipeline_parallel_degree,
    dp_replicate: p.data_parallel_replicate_degree,
    dp_shard: p.data_parallel_shard_degree,
    cp: p.context_parallel_degree,
    tp: p.tensor_parallel_degree,
    ep: p.expert_parallel_degree,
  };
  const ranks = nproc ?? degreeOf(AXES, { ...degrees, dp_shard: Math.max(1, degrees.dp_shard) });
  const refuse = (problems: readonly string[]) => {
    if (problems.length > 0) throw new ConfigError(problems.map(meshProblem));
  };
  refuse(meshProblems(degrees, ranks));
  const mesh = new Mesh(degrees, ranks);
  refuse(stepProblems(mesh, {
    seqLen: training.seq_len,
    localBatchSize: training.local_batch_size,
    globalBatchSize: training.global_batch_size,
    pipelineMicrobatchSize: p.pipeline_parallel_microbatch_size,
  }));
  return mesh;
}

/** Runs what cuts a model; that it cannot be cut is the configuration's fault.
 * @throws {ConfigError} in place of a {@linkcode LayoutError}. */
export function cut<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw meshError(error);
  }
}

/** A {@linkcode LayoutError} as a {@linkcode ConfigError}; others as they are. */
export function meshError(error: unknown): unknown {
  return error instanceof LayoutError ? new ConfigError(error.message.split("\n").map(meshProblem)) : error;
}

/** A problem out of a text `what: expected what; fix`; where it says less, what is left is said for it. */
function meshProblem(text: string) {
  const [head, fix] = [text.slice(0, text.lastIndexOf("; ")), text.slice(text.lastIndexOf("; ") + 2)];
  const [what, expected] = head.split(": expected ");
  return { code: "mesh" as const, what, expected: expected ?? "sizes that the axes divide", fix };
}
