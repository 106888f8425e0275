/** Where the parts of a value lie on a mesh of ranks: for each axis of the mesh, every rank has all of it, a slice of one dim, or a
 * summand. Axes are named by whoever made the mesh; here they are only names with a degree, the number of ranks along them.
 * @module */

/** A value, a model or a step that cannot be spread over a mesh as it was asked: sizes that do not divide, or a plan that does not fit.
 * The message is `what: expected what; what to change`, a line for each. */
export class LayoutError extends RangeError {
  /** Tells it from the errors of JavaScript itself. */
  override readonly name = "LayoutError";
}

/** How partial values make the whole. */
export type Reduction = "sum" | "max";

/** What the ranks along one axis hold of a value. */
export type Placement =
  | { readonly kind: "replicate" }
  | { readonly kind: "shard"; readonly dim: number; readonly padded: boolean }
  | { readonly kind: "partial"; readonly by: Reduction }
  /** Only the ranks at some places along the axis have it: the states of pipeline stages. */
  | { readonly kind: "held"; readonly places: readonly number[] };

/** Each rank has it all. */
export const replicate: Placement = { kind: "replicate" };

/** Each rank has a slice of one dim. A dim that is not a multiple of the number of slices is refused, unless it is `padded`: the
 * slices are then as long as the longest, and what lies behind the end of the dim means nothing. */
export function shard(dim: number, options: { readonly padded?: boolean } = {}): Placement {
  return { kind: "shard", dim, padded: options.padded ?? false };
}

/** The ranks' values have to be added (or their maximum taken) to give the whole. */
export function partial(by: Reduction = "sum"): Placement {
  return { kind: "partial", by };
}

/** Placements by axis; an axis that is absent replicates. Of the axes that cut one dim, an earlier one cuts first, so that each
 * rank holds one box. Padded ones come last, and cut what the others left at one go. */
export type Layout = ReadonlyMap<string, Placement>;

/** Every rank has everything. */
export const replicated: Layout = new Map();

/** Number of ranks along each axis. */
export type Degrees = Readonly<Record<string, number>>;

/** A layout without the entries that say nothing: axes that replicate or have one rank. */
export function layoutOf(entries: Iterable<readonly [string, Placement]>, degrees: Degrees): Layout {
  return new Map([...entries].filter(([axis, { kind }]) => kind !== "replicate" && degrees[axis] > 1));
}

/** Placement on one axis. */
export function placementOn(layout: Layout, axis: string): Placement {
  return layout.get(axis) ?? replicate;
}

/** Axes that cut a dim, the outermost cut first. */
export function axesOfDim(layout: Layout, dim: number): string[] {
  return [...layout].filter(([, p]) => p.kind === "shard" && p.dim === dim).map(([axis]) => axis);
}

/** Of the axes of a dim, those that cut at one go with padding. */
export function paddedAxes(layout: Layout, dim: number): string[] {
  return axesOfDim(layout, dim).filter((axis) => (layout.get(axis) as { padded: boolean }).padded);
}

/** Axes along which the value is partial. */
export function partialAxes(layout: Layout, by: Reduction): string[] {
  return [...layout].filter(([, p]) => p.kind === "partial" && p.by === by).map(([axis]) => axis);
}

/** Are both the same placement? */
export function samePlacement(a: Placement, b: Placement): boolean {
  if (a.kind === "shard") return b.kind === "shard" && a.dim === b.dim && a.padded === b.padded;
  if (a.kind === "held") return b.kind === "held" && String(a.places) === String(b.places);
  return a.kind === "partial" ? b.kind === "partial" && a.by === b.by : b.kind === "replicate";
}

/** Does a rank have any of it? */
export function isHeld(layout: Layout, coordinates: Degrees): boolean {
  return [...layout].every(([axis, p]) => p.kind !== "held" || p.places.includes(coordinates[axis]));
}

/** `Replicate`, `Shard(0)`, `Partial(sum)`. */
export function placementText(placement: Placement): string {
  if (placement.kind === "replicate") return "Replicate";
  if (placement.kind === "partial") return `Partial(${placement.by})`;
  if (placement.kind === "held") return `Held(${placement.places})`;
  return `Shard(${placement.dim}${placement.padded ? ", padded" : ""})`;
}

/** Stable text, the same for layouts that mean the same: `dp_shard: Shard(0), tp: Partial(sum)`; `Replicate` where no axis does
 * anything. By dims, of one dim the outermost cut first; then what is partial. */
export function layoutText(layout: Layout): string {
  const shards = [...layout].flatMap(([axis, p]) => p.kind === "shard" ? [{ axis, p }] : []);
  const partials = [...layout].flatMap(([axis, p]) => p.kind === "partial" ? [{ axis, p }] : []);
  shards.sort((a, b) => a.p.dim - b.p.dim);
  partials.sort((a, b) => a.axis < b.axis ? -1 : 1);
  const held = [...layout].flatMap(([axis, p]) => p.kind === "held" ? [{ axis, p }] : []);
  return [...shards, ...partials, ...held].map(({ axis, p }) => `${axis}: ${placementText(p)}`).join(", ") ||
    "Replicate";
}

/** Number of pieces that axes cut something into. */
export function degreeOf(axes: readonly string[], degrees: Degrees): number {
  return axes.reduce((n, axis) => n * degrees[axis], 1);
}

/** Number of a rank's piece along several axes, of which the first is the outermost. */
export function pieceOf(axes: readonly string[], degrees: Degrees, coordinates: Degrees): number {
  return axes.reduce((at, axis) => at * degrees[axis] + coordinates[axis], 0);
}

/** Shape of what each rank holds, padding included.
 * @param what names the value in an error.
 * @throws {LayoutError} when a dim cannot be cut evenly and is not padded. */
export function localShape(shape: readonly number[], layout: Layout, degrees: Degrees, what = "a value"): number[] {
  if (layout.size === 0) return [...shape];
  return shape.map((size, dim) => {
    const axes = axesOfDim(layout, dim), padded = paddedAxes(layout, dim);
    const even = degreeOf(axes, degrees) / degreeOf(padded, degrees);
    const rest = degreeOf(padded, degrees);
    if (size % even !== 0 || (padded.length === 0 && size % (even * rest) !== 0)) {
      throw new LayoutError(
        `Cannot cut dim ${dim} of ${what} [${shape}] into ${degreeOf(axes, degrees)} equal slices over ` +
          `${axes.join(", ")}: expected a multiple; change the size, or the number of ranks along one of these axes`,
      );
    }
    return Math.ceil(size / even / rest);
  });
}

/** A box of a value: where it starts and how large it is, padding left out (so a size may be 0). */
export interface Box {
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
}

/** The box that a rank holds. */
export function boxOf(shape: readonly number[], layout: Layout, degrees: Degrees, coordinates: Degrees): Box {
  const local = localShape(shape, layout, degrees);
  const ranges = shape.map((size, dim) => {
    const padded = paddedAxes(layout, dim), even = axesOfDim(layout, dim).filter((axis) => !padded.includes(axis));
    const evenSize = size / degreeOf(even, degrees), start = pieceOf(padded, degrees, coordinates) * local[dim];
    const from = Math.min(start, evenSize), to = Math.min(start + local[dim], evenSize);
    return { start: pieceOf(even, degrees, coordinates) * evenSize + from, size: to - from };
  });
  return { starts: ranges.map((r) => r.start), sizes: ranges.map((r) => r.size) };
}
