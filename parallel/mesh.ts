/** The mesh: every rank has a coordinate on each of some axes, and the ranks that differ on some axes alone are a group. Degrees and
 * their rules are torchtitan's, so errors name its keys. One rule is not needed here: replicas without shards (`dp_replicate` alone)
 * go together with all other axes.
 *
 * Axes are names. Five of them share out the ranks among themselves; others, such as `ep`, are made of ranks of these. So an axis that
 * lends some of its ranks is the product of two _factors_, `dp_shard` of `dp_shard_mod_ep` and `dp_shard_in_ep`, and `ep` is the
 * product of the inner one and `cp`. Layouts and collectives know factors alone; people are told axes.
 * @module */
import {
  degreeOf,
  type Degrees,
  type Layout,
  LayoutError,
  layoutText,
  pieceOf,
  type Placement,
} from "../graph/layout.ts";

/** Axes that have ranks of their own, outermost first: ranks that differ on the last one alone are neighbours. */
export const AXES: readonly OwnAxis[] = ["pp", "dp_replicate", "dp_shard", "cp", "tp"];

/** An axis: pipeline stages, replicas of the data-parallel group, its shards, parts of the sequence, parts of the tensors, parts of the
 * experts. */
export type Axis = "pp" | "dp_replicate" | "dp_shard" | "cp" | "tp" | "ep";

/** An axis that has no ranks of its own. */
export type SharedAxis = "ep";

/** An axis that has. */
export type OwnAxis = Exclude<Axis, SharedAxis>;

/** Axes without ranks of their own, and neighbouring axes whose ranks they take: the innermost ones of all of these together. */
export const SHARED_AXES: Readonly<Record<SharedAxis, readonly OwnAxis[]>> = { ep: ["dp_shard", "cp"] };

/** All axes that a mesh may be asked for. */
export const ALL_AXES: readonly Axis[] = [...AXES, ...Object.keys(SHARED_AXES) as SharedAxis[]];

/** Axes that share out the batch, outermost first. */
export const BATCH_AXES: readonly Axis[] = ["dp_replicate", "dp_shard"];

/** The key of an axis in a configuration file. */
export const DEGREE_KEYS: Readonly<Record<Axis, string>> = {
  pp: "parallelism.pipeline_parallel_degree",
  dp_replicate: "parallelism.data_parallel_replicate_degree",
  dp_shard: "parallelism.data_parallel_shard_degree",
  cp: "parallelism.context_parallel_degree",
  tp: "parallelism.tensor_parallel_degree",
  ep: "parallelism.expert_parallel_degree",
};

/** A layout as people read it: {@linkcode layoutText} with axes in place of their factors. */
export function layoutTextOn(mesh: Mesh, layout: Layout): string {
  const alike = Map.groupBy(layout, ([, placement]) => JSON.stringify(placement)), order = Object.keys(mesh.factors);
  const named = [...alike.values()].flatMap((entries) => {
    const [[, placement]] = entries, factors = entries.map(([factor]) => factor);
    // Cuts have an order, summands have none.
    if (placement.kind === "partial") factors.sort((a, b) => order.indexOf(a) - order.indexOf(b));
    return mesh.named(factors).map((axis): [string, Placement] => [axis, placement]);
  });
  return layoutText(new Map(named));
}

/** The axes of more than one rank in a line: `dp_shard 4 x tp 2`, and behind them those that share ranks of these: `(ep 2)`. */
export function degreesText(degrees: Degrees): string {
  const [own, shared] = [AXES, Object.keys(SHARED_AXES)].map((axes) =>
    axes.filter((axis) => degrees[axis] > 1).map((axis) => `${axis} ${degrees[axis]}`)
  );
  return `${own.join(" x ")}${shared.length > 0 ? ` (${shared.join(", ")})` : ""}`;
}

/** Degrees as they are asked for: `dp_shard` may be -1, what the others leave. An absent axis is 1, `dp_shard` -1. */
export type MeshOptions = Readonly<Partial<Record<Axis, number>>>;

/** Ranks and their coordinates. */
export class Mesh {
  /** Ranks along each axis. */
  readonly degrees: Readonly<Record<Axis, number>>;
  /** Ranks along each factor, the outermost first. An axis that lends no ranks is its own and only factor. */
  readonly factors: Degrees;
  /** Number of ranks. */
  readonly size: number;
  readonly #factorsOf: Factors;

  /** Resolves degrees.
   * @param options degrees. @param worldSize number of ranks that there are.
   * @throws {LayoutError} with all of {@linkcode meshProblems}. */
  constructor(options: MeshOptions, worldSize: number) {
    const problems = meshProblems(options, worldSize);
    if (problems.length > 0) throw new LayoutError(problems.join("\n"));
    this.degrees = resolved(options, worldSize);
    this.size = worldSize;
    this.#factorsOf = factorsOf(this.degrees)!;
    const all = AXES.flatMap((axis) => this.#factorsOf.get(axis)!);
    this.factors = Object.fromEntries(all.map(({ name, degree }) => [name, degree]));
  }

  /** The factors whose product an axis is, outermost first; none for a shared axis of one rank. */
  factorsOf(axis: Axis): string[] {
    return this.#factorsOf.get(axis)!.map(({ name }) => name);
  }

  /** Factors as people name them: those that are an axis together are that axis, and what is left of one keeps its own name. */
  named(factors: readonly string[]): string[] {
    if (factors.length === 0) return [];
    const begins = (axis: Axis) => {
      const own = this.factorsOf(axis);
      return own.length > 0 && own.every((factor, i) => factor === factors[i]);
    };
    const axis = ALL_AXES.find(begins), length = axis ? this.factorsOf(axis).length : 1;
    return [axis ?? factors[0], ...this.named(factors.slice(length))];
  }

  /** Coordinates of a rank, by factor. */
  coordinates(rank: number): Degrees {
    let rest = rank;
    return Object.fromEntries(
      Object.entries(this.factors).toReversed().map(([factor, degree]) => {
        const at = rest % degree;
        rest = Math.floor(rest / degree);
        return [factor, at];
      }),
    );
  }

  /** The rank at coordinates. */
  rankAt(coordinates: Degrees): number {
    return pieceOf(Object.keys(this.factors), this.factors, coordinates);
  }

  /** Where a rank stands along an axis. */
  placeOn(axis: Axis, rank: number): number {
    return pieceOf(this.factorsOf(axis), this.factors, this.coordinates(rank));
  }

  /** The ranks that differ from this one on the given factors alone, itself among them, the first factor outermost. */
  group(rank: number, factors: readonly string[]): number[] {
    const own = this.coordinates(rank);
    return Array.from({ length: degreeOf(factors, this.factors) }, (_, i) => {
      let rest = i;
      const others = factors.toReversed().map((factor): [string, number] => {
        const degree = this.factors[factor], at = rest % degree;
        rest = Math.floor(rest / degree);
        return [factor, at];
      });
      return this.rankAt({ ...own, ...Object.fromEntries(others) });
    });
  }
}

function resolved(options: MeshOptions, worldSize: number): Record<Axis, number> {
  const degrees = Object.fromEntries(ALL_AXES.map((axis) => [axis, options[axis] ?? (axis === "dp_shard" ? -1 : 1)]));
  if (degrees.dp_shard === -1) {
    const others = AXES.reduce((n, axis) => axis === "dp_shard" ? n : n * degrees[axis], 1);
    degrees.dp_shard = Math.max(1, Math.floor(worldSize / others));
  }
  return degrees as Record<Axis, number>;
}

interface Factor {
  readonly name: string;
  readonly degree: number;
}

type Factors = ReadonlyMap<Axis, readonly Factor[]>;

/** The factors of each axis: an axis is cut in two where another takes only its innermost ranks. `undefined` where they cannot be
 * shared so. */
function factorsOf(degrees: Readonly<Record<Axis, number>>): Factors | undefined {
  const found = new Map<Axis, readonly Factor[]>(AXES.map((axis) => [axis, [{ name: axis, degree: degrees[axis] }]]));
  for (const [axis, lenders] of Object.entries(SHARED_AXES) as [SharedAxis, readonly OwnAxis[]][]) {
    const taken: Factor[] = [];
    let rest = degrees[axis];
    for (const factor of lenders.flatMap((lender) => found.get(lender)!).toReversed()) {
      if (rest === 1 || factor.degree === 1) continue;
      if (rest % factor.degree === 0) taken.unshift(factor);
      else if (factor.degree % rest === 0) {
        const outer = { name: `${factor.name}_mod_${axis}`, degree: factor.degree / rest };
        const inner = { name: `${factor.name}_in_${axis}`, degree: rest };
        for (const [of, list] of found) found.set(of, list.flatMap((f) => f === factor ? [outer, inner] : [f]));
        taken.unshift(inner);
      } else return undefined;
      rest /= taken[0].degree;
    }
    if (rest !== 1) return undefined;
    found.set(axis, taken);
  }
  return found;
}

/** What is wrong with degrees, each with the key and the way out; empty when a mesh can be made of them. */
export function meshProblems(options: MeshOptions, worldSize: number): string[] {
  const wrong = ALL_AXES.filter((axis) => {
    const degree = options[axis];
    return degree !== undefined && !(axis === "dp_shard" && degree === -1) &&
      !(Number.isInteger(degree) && degree >= 1);
  }).map((axis) => {
    const expected = axis === "dp_shard" ? "a whole number from 1, or -1 for what is left" : "a whole number from 1";
    return `${DEGREE_KEYS[axis]} is ${options[axis]}: expected ${expected}`;
  });
  if (wrong.length > 0) return wrong;
  const degrees = resolved(options, worldSize), product = degreeOf(AXES, degrees);
  if (product === worldSize) return factorsOf(degrees) ? [] : sharingProblems(degrees);
  const list = AXES.map((axis) => `${DEGREE_KEYS[axis]} = ${degrees[axis]}`).join(", ");
  return [
    `The degrees make ${product} ranks, but there are ${worldSize}: expected the product of ${list} to be the number of ` +
    `ranks; change a degree (${DEGREE_KEYS.dp_shard} = -1 takes what is left) or start ${product} ranks (--nproc ${product})`,
  ];
}

/** Of each shared axis that does not fit into the axes that lend it ranks, the degrees that would. */
function sharingProblems(degrees: Readonly<Record<Axis, number>>): string[] {
  return (Object.entries(SHARED_AXES) as [SharedAxis, readonly OwnAxis[]][]).map(([axis, lenders]) => {
    const ranks = degreeOf(lenders, degrees), all = Array.from({ length: ranks }, (_, i) => i + 1);
    const fitting = all.filter((degree) => factorsOf({ ...degrees, [axis]: degree }));
    return `${DEGREE_KEYS[axis]} is ${degrees[axis]}: expected ${fitting.join(" or ")}, since it shares the ranks of ` +
      `${lenders.map((a) => `${DEGREE_KEYS[a]} = ${degrees[a]}`).join(" and ")}; change one of them`;
  });
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
