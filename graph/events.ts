/** What the two streams of a section wait for: kernels run in order on one, collectives in order on the other, side by side but for
 * what touches the same memory.
 * @module */

/** Bytes from `start` to before `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** What an instruction touches. */
export interface Touch {
  /** 0 for kernels, 1 for collectives. */
  readonly stream: number;
  readonly reads: readonly Range[];
  readonly writes: readonly Range[];
}

function meet(some: readonly Range[], others: readonly Range[]): boolean {
  return some.some((a) => others.some((b) => a.start < b.end && b.start < a.end));
}

/** Must the later one see what the earlier one has done, or not disturb it? */
function conflict(a: Touch, b: Touch): boolean {
  return meet(a.writes, b.writes) || meet(a.writes, b.reads) || meet(a.reads, b.writes);
}

/** For each instruction the number, from 1 on, of the last one of the other stream that must have ended before it begins; 0 where
 * there is none, or where one before it on its own stream has waited for that already. */
export function waitsOf(list: readonly Touch[]): number[] {
  const awaited = [0, 0];
  return list.map((own, i) => {
    for (let j = i - 1; j >= awaited[own.stream]; j--) {
      if (list[j].stream !== own.stream && conflict(own, list[j])) return awaited[own.stream] = j + 1;
    }
    return 0;
  });
}
