/** Who writes what: each state is cut into the boxes that ranks hold, and each box is written by one of its holders.
 * @module */
import { numel, type State } from "../../graph/ir.ts";
import { type Box, boxOf, type Degrees, isHeld, type Layout, layoutText } from "../../graph/layout.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import { storedBytes, type StoredType } from "../typed_array.ts";

/** A state in the element type that a file is to have it in. */
export interface StoredState extends Omit<State, "dtype"> {
  readonly dtype: StoredType;
}

/** A box of a state. */
export interface Piece extends Box {
  /** Whole. */
  readonly state: StoredState;
}

/** Bytes of a piece. */
export function pieceBytes({ state, sizes }: Piece): number {
  return numel(sizes) * storedBytes[state.dtype];
}

/** A box that some ranks hold, of each state that is cut alike. */
interface HeldBox extends Box {
  /** At least one. */
  readonly ranks: number[];
}

/** Gives every box to one of its holders: every element of every state is in one box. Whoever holds a box may write it; the largest
 * boxes are given away first, each to the holder with the least to write. All ranks find the same. A run of thousands of ranks has
 * millions of boxes, so none of them is kept here.
 * @param visit is told the number of the state, the box and its writer. */
export function assignBoxes<S extends StoredState>(
  states: readonly S[],
  layoutOf: (state: S) => Layout,
  mesh: Mesh,
  visit: (state: number, box: Box, writer: number) => void,
): void {
  const coordinates = Array.from({ length: mesh.size }, (_, rank) => mesh.coordinates(rank));
  const alike = new Map<string, HeldBox[][]>(), batches: { state: number; bytes: number; boxes: HeldBox[] }[] = [];
  states.forEach((state, number) => {
    const layout = layoutOf(state), key = `${state.shape} ${layoutText(layout)}`;
    if (!alike.has(key)) alike.set(key, heldBoxes(state.shape, layout, mesh, coordinates));
    for (const boxes of alike.get(key)!) {
      batches.push({ state: number, bytes: pieceBytes({ state, ...boxes[0] }), boxes });
    }
  });
  const load = new Float64Array(mesh.size);
  for (const { state, bytes, boxes } of batches.sort((a, b) => b.bytes - a.bytes)) {
    for (const box of boxes) {
      let [writer] = box.ranks;
      for (const rank of box.ranks) if (load[rank] < load[writer]) writer = rank;
      load[writer] += bytes;
      visit(state, box, writer);
    }
  }
}

/** The boxes of a shape that ranks hold, and which ranks; those of one size together. */
function heldBoxes(
  shape: readonly number[],
  layout: Layout,
  mesh: Mesh,
  coordinates: readonly Degrees[],
): HeldBox[][] {
  const held = new Map<string, HeldBox>();
  coordinates.forEach((at, rank) => {
    if (!isHeld(layout, at)) return;
    const box = boxOf(shape, layout, mesh.factors, at), key = `${box.starts} ${box.sizes}`, known = held.get(key);
    if (known) known.ranks.push(rank);
    else if (numel(box.sizes) > 0) held.set(key, { ...box, ranks: [rank] }); // else nothing but padding
  });
  return [...Map.groupBy(held.values(), (box) => numel(box.sizes)).values()];
}

/** The pieces that each rank writes, in the order of the states, as {@linkcode assignBoxes} gives them away. */
export function sharesOf<S extends StoredState>(
  states: readonly S[],
  layoutOf: (state: S) => Layout,
  mesh: Mesh,
): Piece[][] {
  const shares = Array.from({ length: mesh.size }, (): [number, Box][] => []);
  assignBoxes(states, layoutOf, mesh, (state, box, writer) => shares[writer].push([state, box]));
  return shares.map((share) => inOrder(share, states));
}

/** The pieces that one rank writes: what {@linkcode sharesOf} says of it, without all others. */
export function shareOf<S extends StoredState>(
  rank: number,
  states: readonly S[],
  layoutOf: (state: S) => Layout,
  mesh: Mesh,
): Piece[] {
  const share: [number, Box][] = [];
  assignBoxes(states, layoutOf, mesh, (state, box, writer) => writer === rank && share.push([state, box]));
  return inOrder(share, states);
}

function inOrder(share: [number, Box][], states: readonly StoredState[]): Piece[] {
  return share.sort(([a], [b]) => a - b).map(([state, { starts, sizes }]) => ({ state: states[state], starts, sizes }));
}

/** A stretch of elements that lie one after another both in one box and in another box of the same tensor. Element numbers, each from
 * the start of its box. */
export interface Stretch {
  readonly from: number;
  readonly to: number;
  readonly length: number;
}

/** Where the elements that two boxes share lie in each of them, row-major.
 * @param from the box that has them. @param to the box that wants them. */
export function* stretches(from: Box, to: Box): Generator<Stretch> {
  const starts = from.starts.map((s, d) => Math.max(s, to.starts[d]));
  const sizes = starts.map((s, d) => Math.min(from.starts[d] + from.sizes[d], to.starts[d] + to.sizes[d]) - s);
  if (sizes.some((n) => n <= 0)) return;
  // Dims from `cut` on are whole in both, so that all of their elements are one stretch for each index of the dims before.
  let cut = sizes.length;
  while (cut > 0 && sizes[cut - 1] === from.sizes[cut - 1] && sizes[cut - 1] === to.sizes[cut - 1]) cut--;
  const outer = Math.max(0, cut - 1), length = numel(sizes.slice(outer));
  const offset = (box: Box, index: readonly number[]) =>
    box.sizes.reduce((at, size, d) => at * size + starts[d] + (index[d] ?? 0) - box.starts[d], 0);
  const index = new Array<number>(outer).fill(0);
  for (;;) {
    yield { from: offset(from, index), to: offset(to, index), length };
    let d = outer - 1;
    while (d >= 0 && ++index[d] === sizes[d]) index[d--] = 0;
    if (d < 0) return;
  }
}
