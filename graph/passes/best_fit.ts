/** Where allocations lie that live for a while each: best fit, largest first. Sizes and offsets are bytes; lifetimes are node
 * indices.
 * @module */

/** Memory that is in use from one node to another. */
export interface Placed {
  /** Bytes from the start of the arena: what is sought. */
  offset: number;
  readonly bytes: number;
  /** First and last node that touch it. */
  readonly first: number;
  readonly last: number;
  /** Last node beside which a collective may still be at work on it: no kernel before writes here. */
  readonly held: number;
}

/** Gives each allocation the lowest offset of the smallest gap that it fits into, between those that live at the same time.
 * @param options `start`: lowest offset, aligned; `isSent`: is the allocation first written by a collective? */
export function bestFit<T extends Placed>(
  allocations: readonly T[],
  { start, alignment, isSent }: {
    readonly start: number;
    readonly alignment: number;
    readonly isSent: (allocation: T) => boolean;
  },
): void {
  const largestFirst = [...allocations].sort((a, b) => b.bytes - a.bytes || a.first - b.first),
    count = allocations.length;
  // Each one looks at all that are placed: as columns of numbers, these are read fast.
  const first = Int32Array.from(largestFirst, (b) => b.first), held = Int32Array.from(largestFirst, (b) => b.held);
  const last = Int32Array.from(largestFirst, (b) => b.last), sent = Uint8Array.from(largestFirst, (b) => +isSent(b));
  const offset = new Float64Array(count), end = new Float64Array(count), placed = new Int32Array(count); // by offset
  for (let own = 0; own < count; own++) {
    const { bytes } = largestFirst[own], [begin, until] = [first[own], held[own]];
    // What a collective writes may lie where one before it is still at work.
    const lastOrHeld = sent[own] ? last : held;
    let best = -1, gapBest = Infinity, top = start;
    for (let k = 0; k < own; k++) {
      const other = placed[k], from = first[other];
      const meets = from <= begin ? begin <= lastOrHeld[other] : from <= (sent[other] ? last[own] : until);
      if (!meets) continue;
      const gap = offset[other] - top;
      if (gap >= bytes && gap < gapBest) [best, gapBest] = [top, gap];
      if (end[other] > top) top = end[other];
    }
    offset[own] = largestFirst[own].offset = best >= 0 ? best : top;
    end[own] = Math.ceil((offset[own] + bytes) / alignment) * alignment;
    const at = firstBehind(placed, own, (k) => offset[k] > offset[own]);
    placed.copyWithin(at + 1, at, own);
    placed[at] = own;
  }
}

/** Index of the first of some numbers of which something holds that holds of all behind it; `count` where it holds of none. */
function firstBehind(numbers: Int32Array, count: number, isBehind: (number: number) => boolean): number {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBehind(numbers[middle])) high = middle;
    else low = middle + 1;
  }
  return low;
}
