/** Who writes what: each state is cut into the boxes that ranks hold, and each box is written by one of its holders.
 * @module */
import { numel, sizeBytes, type State } from "../../graph/ir.ts";
import { type Box, boxOf, type Layout } from "../../graph/layout.ts";
import type { Mesh } from "../../parallel/mesh.ts";

/** A box of a state. */
export interface Piece extends Box {
  /** As the graphs know it, whole. */
  readonly state: State;
}

/** Bytes of a piece. */
export function pieceBytes({ state, sizes }: Piece): number {
  return sizeBytes({ dtype: state.dtype, shape: sizes });
}

/** The pieces that each rank writes, in the order of the states: every element of every state is in one of them. Whoever holds a box
 * may write it; the largest boxes are given away first, each to the holder with the least to write. All ranks find the same. */
export function sharesOf(states: readonly State[], layoutOf: (state: State) => Layout, mesh: Mesh): Piece[][] {
  const coordinates = Array.from({ length: mesh.size }, (_, rank) => mesh.coordinates(rank));
  const boxes = states.flatMap((state, order) => {
    const layout = layoutOf(state), holders = new Map<string, { piece: Piece; order: number; ranks: number[] }>();
    coordinates.forEach((at, rank) => {
      const box = boxOf(state.shape, layout, mesh.degrees, at), key = `${box.starts} ${box.sizes}`;
      if (numel(box.sizes) === 0) return; // nothing but padding
      const known = holders.get(key);
      if (known) known.ranks.push(rank);
      else holders.set(key, { piece: { state, ...box }, order, ranks: [rank] });
    });
    return [...holders.values()];
  });
  const load = new Array<number>(mesh.size).fill(0), shares = load.map((): { piece: Piece; order: number }[] => []);
  for (const { piece, order, ranks } of boxes.toSorted((a, b) => pieceBytes(b.piece) - pieceBytes(a.piece))) {
    const writer = ranks.reduce((least, rank) => load[rank] < load[least] ? rank : least);
    load[writer] += pieceBytes(piece);
    shares[writer].push({ piece, order });
  }
  return shares.map((share) => share.toSorted((a, b) => a.order - b.order).map(({ piece }) => piece));
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
