/** From one layout of a value to another: which collectives, over which group, in which order.
 * @module */
import {
  axesOfDim,
  type Layout,
  paddedAxes,
  partialAxes,
  type Placement,
  placementOn,
  type Reduction,
  samePlacement,
  shard,
} from "../graph/layout.ts";

/** One step of a conversion. Several axes are one group. */
export interface Step {
  readonly op: "reduce_scatter" | "all_reduce" | "all_gather" | "all_to_all" | "slice_by_rank" | "keep_on_first";
  readonly axes: readonly string[];
  /** Dim that is gathered, scattered or sliced; in an all_to_all the dim that is cut no longer. */
  readonly dim?: number;
  /** The dim that an all_to_all cuts instead. */
  readonly split?: number;
  /** How summands are reduced. */
  readonly by?: Reduction;
  /** Layout after this step. */
  readonly to: Layout;
}

/** Steps between two layouts of a value of `rank` dims. What is partial is reduced first, to the slice that is wanted where one
 * is; then cuts move from dim to dim where they are innermost; what cuts still differ are gathered, as far out as they do, and made
 * anew. */
export function conversion(from: Layout, to: Layout, rank: number): Step[] {
  const steps: Step[] = [], dims = Array.from({ length: rank }, (_, d) => d);
  let now = from;
  const go = (step: Omit<Step, "to">, place: (axis: string) => Placement | undefined) => {
    if (step.axes.length === 0) return;
    const kept = [...now].filter(([axis]) => !step.axes.includes(axis));
    const placed = step.axes.map((axis): [string, Placement | undefined] => [axis, place(axis)]);
    now = new Map([...kept, ...placed.filter((entry): entry is [string, Placement] => entry[1] !== undefined)]);
    steps.push({ ...step, to: now });
  };
  const wanted = (axis: string) => to.get(axis);
  for (const by of ["sum", "max"] as const) {
    const resolve = () => partialAxes(now, by).filter((axis) => !samePlacement(now.get(axis)!, placementOn(to, axis)));
    for (const dim of dims) {
      const more = missing(now, to, dim), open = resolve();
      const end = more.findIndex((axis) => !open.includes(axis)), run = more.slice(0, end < 0 ? more.length : end);
      const { even, padded } = parted(run, to, dim);
      go({ op: "reduce_scatter", axes: even, dim, by }, wanted);
      if (padded.length === paddedAxes(to, dim).length) go({ op: "reduce_scatter", axes: padded, dim, by }, wanted);
    }
    go({ op: "all_reduce", axes: resolve(), by }, () => undefined);
  }
  const slice = (dim: number, axes: readonly string[]) => {
    const { even, padded } = parted(axes, to, dim);
    for (const some of [even, padded]) go({ op: "slice_by_rank", axes: some, dim }, wanted);
  };
  const free = (axis: string) => placementOn(now, axis).kind === "replicate";
  // Slices cost nothing, and make what is gathered smaller.
  for (const dim of dims) if (missing(now, to, dim).every(free)) slice(dim, missing(now, to, dim));
  const move = () => {
    for (let cuts; (cuts = movable(now, to, dims));) go({ op: "all_to_all", ...cuts }, wanted);
  };
  move();
  for (const dim of dims) {
    const { even, padded } = parted(inTheWay(now, to, dim), now, dim);
    for (const some of [padded, even]) go({ op: "all_gather", axes: some, dim }, () => undefined);
    move();
  }
  for (const dim of dims) slice(dim, missing(now, to, dim));
  go({ op: "keep_on_first", axes: partialAxes(to, "sum").filter(free) }, wanted);
  // A whole value is its own maximum.
  return steps;
}

/** Axes that cut a dim evenly, and those that then cut what is left at one go. */
function parted(axes: readonly string[], layout: Layout, dim: number): { even: string[]; padded: string[] } {
  const padded = paddedAxes(layout, dim);
  return { even: axes.filter((a) => !padded.includes(a)), padded: axes.filter((a) => padded.includes(a)) };
}

/** Innermost cuts of a dim that are to be the next ones of another: as many as can move at one go. */
function movable(now: Layout, to: Layout, dims: readonly number[]): Pick<Step, "axes" | "dim" | "split"> | undefined {
  for (const dim of dims) {
    const cuts = inTheWay(now, to, dim);
    if (paddedAxes(now, dim).length > 0) continue;
    for (const split of dims) {
      const next = split === dim || paddedAxes(to, split).length > 0 ? [] : missing(now, to, split);
      const start = cuts.findIndex((axis, i) => axis === next[0] && cuts.slice(i).every((a, k) => a === next[k]));
      if (start >= 0) return { axes: cuts.slice(start), dim, split };
    }
  }
}

/** The outer cuts of a dim that both layouts share; padded axes count only together. */
function common(from: Layout, to: Layout, dim: number): string[] {
  const [a, b] = [axesOfDim(from, dim), axesOfDim(to, dim)];
  const end = a.findIndex((axis, i) => axis !== b[i] || !samePlacement(from.get(axis)!, to.get(axis)!));
  const shared = end < 0 ? a : a.slice(0, end);
  const together = [from, to].every((layout) => paddedAxes(layout, dim).every((axis) => shared.includes(axis)));
  return together ? shared : shared.filter((axis) => samePlacement(from.get(axis)!, shard(dim)));
}

/** Cuts of a dim that cannot stay, as they or some further out differ. */
function inTheWay(now: Layout, to: Layout, dim: number): string[] {
  return axesOfDim(now, dim).slice(common(now, to, dim).length);
}

/** Cuts of a dim that are still to be made behind those that are there; none where those that are there are in the way. */
function missing(now: Layout, to: Layout, dim: number): string[] {
  const kept = common(now, to, dim);
  return kept.length === axesOfDim(now, dim).length ? axesOfDim(to, dim).slice(kept.length) : [];
}
