/** The mesh: every rank has a coordinate on each of five axes, and the ranks that differ on some axes alone are a group. Degrees and
 * their rules are torchtitan's, so errors name its keys. One rule is not needed here: copies without shards (`dp_replicate` alone)
 * go together with all other axes.
 * @module */
import { degreeOf, type Degrees, LayoutError } from "../graph/layout.ts";

/** The axes, outermost first: ranks that differ on the last one alone are neighbours. */
export const AXES: readonly Axis[] = ["pp", "dp_replicate", "dp_shard", "cp", "tp"];

/** An axis: pipeline stages, copies of the data-parallel group, its shards, parts of the sequence, parts of the tensors. */
export type Axis = "pp" | "dp_replicate" | "dp_shard" | "cp" | "tp";

/** Axes that share out the batch, outermost first. */
export const BATCH_AXES: readonly Axis[] = ["dp_replicate", "dp_shard"];

/** The key of an axis in a configuration file. */
export const DEGREE_KEYS: Readonly<Record<Axis, string>> = {
  pp: "parallelism.pipeline_parallel_degree",
  dp_replicate: "parallelism.data_parallel_replicate_degree",
  dp_shard: "parallelism.data_parallel_shard_degree",
  cp: "parallelism.context_parallel_degree",
  tp: "parallelism.tensor_parallel_degree",
};

/** Degrees as they are asked for: `dp_shard` may be -1, what the others leave. An absent axis is 1, `dp_shard` -1. */
export type MeshOptions = Readonly<Partial<Record<Axis, number>>>;

/** Ranks and their coordinates. */
export class Mesh {
  /** Ranks along each axis. */
  readonly degrees: Readonly<Record<Axis, number>>;
  /** Number of ranks. */
  readonly size: number;

  /** Resolves degrees.
   * @param options degrees. @param worldSize number of ranks that there are.
   * @throws {LayoutError} with all of {@linkcode meshProblems}. */
  constructor(options: MeshOptions, worldSize: number) {
    const problems = meshProblems(options, worldSize);
    if (problems.length > 0) throw new LayoutError(problems.join("\n"));
    this.degrees = resolved(options, worldSize);
    this.size = worldSize;
  }

  /** Coordinates of a rank. */
  coordinates(rank: number): Degrees {
    let rest = rank;
    return Object.fromEntries(
      AXES.toReversed().map((axis) => {
        const at = rest % this.degrees[axis];
        rest = Math.floor(rest / this.degrees[axis]);
        return [axis, at];
      }),
    );
  }

  /** The rank at coordinates. */
  rankAt(coordinates: Degrees): number {
    return AXES.reduce((rank, axis) => rank * this.degrees[axis] + coordinates[axis], 0);
  }

  /** The ranks that differ from this one on the given axes alone, itself among them, the first axis outermost. */
  group(rank: number, axes: readonly string[]): number[] {
    const own = this.coordinates(rank);
    return Array.from({ length: degreeOf(axes, this.degrees) }, (_, i) => {
      let rest = i;
      const others = axes.toReversed().map((axis): [string, number] => {
        const degree = this.degrees[axis as Axis], at = rest % degree;
        rest = Math.floor(rest / degree);
        return [axis, at];
      });
      return this.rankAt({ ...own, ...Object.fromEntries(others) });
    });
  }
}

function resolved(options: MeshOptions, worldSize: number): Record<Axis, number> {
  const degrees = Object.fromEntries(AXES.map((axis) => [axis, options[axis] ?? (axis === "dp_shard" ? -1 : 1)]));
  if (degrees.dp_shard === -1) {
    const others = AXES.reduce((n, axis) => axis === "dp_shard" ? n : n * degrees[axis], 1);
    degrees.dp_shard = Math.max(1, Math.floor(worldSize / others));
  }
  return degrees as Record<Axis, number>;
}

/** What is wrong with degrees, each with the key and the way out; empty when a mesh can be made of them. */
export function meshProblems(options: MeshOptions, worldSize: number): string[] {
  const wrong = AXES.filter((axis) => {
    const degree = options[axis];
    return degree !== undefined && !(axis === "dp_shard" && degree === -1) &&
      !(Number.isInteger(degree) && degree >= 1);
  }).map((axis) => {
    const expected = axis === "dp_shard" ? "a whole number from 1, or -1 for what is left" : "a whole number from 1";
    return `${DEGREE_KEYS[axis]} is ${options[axis]}: expected ${expected}`;
  });
  if (wrong.length > 0) return wrong;
  const degrees = resolved(options, worldSize), product = degreeOf(AXES, degrees);
  if (product === worldSize) return [];
  const list = AXES.map((axis) => `${DEGREE_KEYS[axis]} = ${degrees[axis]}`).join(", ");
  return [
    `The degrees make ${product} ranks, but there are ${worldSize}: expected the product of ${list} to be the number of ` +
    `ranks; change a degree (${DEGREE_KEYS.dp_shard} = -1 takes what is left) or start ${product} ranks (--nproc ${product})`,
  ];
}

/** Sizes of a step, in torchtitan's terms. */
export interface StepSizes {
  readonly seqLen: number;
  /** Sequences of one data-parallel rank in one microbatch. */
  readonly localBatchSize: number;
  /** Sequences of a step; -1 is one microbatch on every data-parallel rank. */
  readonly globalBatchSize: number;
  /** Sequences of a pipeline's microbatch; default 1. */
  readonly pipelineMicrobatchSize?: number;
}

/** What does not fit between a mesh and a step, each with the key and the way out. */
export function stepProblems({ degrees }: Mesh, sizes: StepSizes): string[] {
  const { seqLen, localBatchSize, globalBatchSize, pipelineMicrobatchSize = 1 } = sizes, problems: string[] = [];
  // Every rank of tp has a slice of the sequence, and balanced context parallelism gives each rank of cp two.
  const slices = degrees.tp * 2 * degrees.cp;
  if (degrees.tp * degrees.cp > 1 && seqLen % slices !== 0) {
    problems.push(
      `training.seq_len is ${seqLen}: expected a multiple of ${slices} (${DEGREE_KEYS.tp} ${degrees.tp} x 2 x ` +
        `${DEGREE_KEYS.cp} ${degrees.cp}); change it to ${Math.ceil(seqLen / slices) * slices}, or lower a degree`,
    );
  }
  const ranks = degreeOf(BATCH_AXES, degrees), once = localBatchSize * ranks;
  if (globalBatchSize !== -1 && globalBatchSize % once !== 0) {
    problems.push(
      `training.global_batch_size is ${globalBatchSize}: expected a multiple of ${once} (training.local_batch_size ` +
        `${localBatchSize} x ${ranks} data-parallel ranks); change one of them, or leave it at -1`,
    );
  }
  if (degrees.pp > 1 && localBatchSize % pipelineMicrobatchSize !== 0) {
    problems.push(
      `training.local_batch_size is ${localBatchSize}: expected a multiple of ` +
        `parallelism.pipeline_parallel_microbatch_size, which is ${pipelineMicrobatchSize}; change one of them`,
    );
  }
  return problems;
}
