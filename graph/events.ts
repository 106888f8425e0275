/** What the streams of a program wait for. Each runs its instructions in order, those of one action behind those of the action before;
 * beside each other streams may do all but touch the same memory, where one of them writes it.
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

/** An instruction, numbered through all sections, that must have ended before another begins. */
export interface Wait {
  readonly instruction: number;
  /** Do they meet in slots alone? Then what it did in another slot does not matter. */
  readonly inSlot: boolean;
}

/** What an instruction touches of the arena, and beside that of slots. */
export interface SlotTouch extends Touch {
  readonly inSlot: Touch;
}

/** For each instruction of each section, what it waits for, in the arena and in slots. */
export function waitsOf(sections: readonly (readonly SlotTouch[])[]): Wait[][][] {
  const inArena = waitsAmong(sections), inSlots = waitsAmong(sections.map((list) => list.map((t) => t.inSlot)));
  return inArena.map((list, s) =>
    list.map((waits, i) => {
      const slots = inSlots[s][i].filter((instruction) => !waits.includes(instruction));
      return [
        ...waits.map((instruction) => ({ instruction, inSlot: false })),
        ...slots.map((instruction) => ({ instruction, inSlot: true })),
      ];
    })
  );
}

/** For each instruction of each section, the instructions that must have ended before it begins, numbered through all sections. One
 * that comes before it in its own section stands for what it does in the same action; any other for what it did last in an earlier
 * one. An instruction of a stream ends behind all those before it there. So the last that touches the same memory is enough, and none
 * that an instruction before it on its own stream has waited for already. */
function waitsAmong(sections: readonly (readonly Touch[])[]): number[][][] {
  const streams = 1 + Math.max(0, ...sections.flat().map((t) => t.stream));
  if (streams === 1) return sections.map((list) => list.map(() => []));
  const bounds = boundsOf(sections.flat());
  const begins = sections.map((_, s) => sections.slice(0, s).reduce((n, list) => n + list.length, 0));
  const histories = sections.map(() => Array.from({ length: streams }, () => new History(bounds)));
  const others = (own: Touch) => Array.from({ length: streams }, (_, s) => s).filter((s) => s !== own.stream);
  // In the same action: what comes before it.
  const now = sections.map((list, s) =>
    list.map((own, i) => {
      const found = others(own).map((stream) => histories[s][stream].lastInTheWayOf(own));
      histories[s][own.stream].add(own, i);
      return found;
    })
  );
  return sections.map((list, s) => {
    /** By stream and other stream: what has been waited for, in this action and in the last of each section. */
    const none = () => Array.from({ length: streams }, () => new Array<number>(streams).fill(-1));
    const [here, before] = [none(), sections.map(none)];
    return list.map((own, i) =>
      others(own).flatMap((stream, k) => {
        const last = now[s][i][k], waited = here[own.stream], waits: number[] = [];
        if (last > waited[stream]) {
          waited[stream] = last;
          waits.push(begins[s] + last);
        }
        // Behind that lies all that the stream has done in earlier actions.
        if (waited[stream] >= 0) return waits;
        histories.forEach((history, t) => {
          const earlier = history[stream].lastInTheWayOf(own), known = before[t][own.stream];
          if (earlier <= known[stream]) return;
          known[stream] = earlier;
          waits.push(begins[t] + earlier);
        });
        return waits;
      })
    );
  });
}

/** All places where something begins or ends, in order. */
function boundsOf(list: readonly Touch[]): number[] {
  const ends = list.flatMap(({ reads, writes }) => [...reads, ...writes].flatMap(({ start, end }) => [start, end]));
  return [...new Set(ends)].sort((a, b) => a - b);
}

/** Who touched which memory last, on one stream. */
class History {
  readonly #reads: LastOf;
  readonly #writes: LastOf;

  constructor(bounds: readonly number[]) {
    this.#reads = new LastOf(bounds);
    this.#writes = new LastOf(bounds);
  }

  add({ reads, writes }: Touch, instruction: number): void {
    for (const range of reads) this.#reads.set(range, instruction);
    for (const range of writes) this.#writes.set(range, instruction);
  }

  /** The last instruction that `own` must not run beside; -1 where there is none. */
  lastInTheWayOf(own: Touch): number {
    const writers = [...own.reads, ...own.writes].map((range) => this.#writes.get(range));
    return Math.max(-1, ...writers, ...own.writes.map((range) => this.#reads.get(range)));
  }
}

/** The largest number that was set for any byte of a range, where numbers grow: a tree over pieces between bounds, in which a node has
 * the number set for all that is below it, and the largest set for some of that. */
class LastOf {
  readonly #bounds: readonly number[];
  readonly #all: Int32Array;
  readonly #some: Int32Array;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    [this.#all, this.#some] = [0, 1].map(() => new Int32Array(4 * Math.max(1, bounds.length)).fill(-1));
  }

  set({ start, end }: Range, number: number): void {
    this.#walk(start, end, 0, 0, this.#bounds.length - 1, number);
  }

  get({ start, end }: Range): number {
    return this.#walk(start, end, 0, 0, this.#bounds.length - 1, -1);
  }

  /** Sets a number (-1: none) between two places, as far as a node reaches, from one bound to another; gives the largest there. */
  #walk(start: number, end: number, node: number, low: number, high: number, number: number): number {
    const bounds = this.#bounds;
    if (start >= end || bounds[high] <= start || bounds[low] >= end) return -1;
    if (number > this.#some[node]) this.#some[node] = number;
    if (start <= bounds[low] && bounds[high] <= end) {
      if (number > this.#all[node]) this.#all[node] = number;
      return this.#some[node];
    }
    const middle = (low + high) >> 1;
    const left = this.#walk(start, end, 2 * node + 1, low, middle, number);
    return Math.max(this.#all[node], left, this.#walk(start, end, 2 * node + 2, middle, high, number));
  }
}
