/**
 * Places in a gzip file from which its text can be read: a bit, the text before it, and the line that begins next. They are
 * found while the file is read anyway, and kept, so that a run that goes on in the middle of a shard need not inflate what
 * lies before.
 * @module
 */
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { BlockWalker, type Boundary } from "./blocks.ts";
import { WINDOW_BYTES } from "./restart.ts";

/** A place to read from. */
export interface SeekPoint extends Boundary {
  /** Number of the line that begins next, from 0. */
  readonly line: number;
  /** Bytes of text from the place to that line. */
  readonly skip: number;
  /** The text before the place, deflated. */
  readonly window: Uint8Array;
}

/** Where the index of a file is kept. */
export interface SeekStore {
  /** What was kept last, or undefined. */
  read(): Promise<Uint8Array | undefined>;
  /** Keeps it. */
  write(bytes: Uint8Array): Promise<void>;
}

/** Text from one place to the next: inflated in some 30 ms. */
export const SEEK_BYTES = 8 << 20;

const NEWLINE = 10;

/** The places of one file. */
export interface SeekIndex {
  /** In the order of the file. */
  readonly points: readonly SeekPoint[];
  /** Whether they go to its end. */
  readonly isComplete: boolean;
}

/** The last place of an index at or before the beginning of a line. */
export function pointBefore({ points }: SeekIndex, line: number): SeekPoint | undefined {
  return points.findLast((point) => point.line <= line);
}

/** The text before a place. */
export function windowOf({ window }: SeekPoint): Uint8Array {
  return new Uint8Array(inflateRawSync(window));
}

/** An index as bytes: a line of JSON, then all windows. */
export function encodeIndex({ points, isComplete }: SeekIndex): Uint8Array {
  const head = {
    version: 1,
    isComplete,
    points: points.map(({ window, ...point }) => ({ ...point, window: window.length })),
  };
  const parts = [new TextEncoder().encode(JSON.stringify(head) + "\n"), ...points.map(({ window }) => window)];
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** The index that bytes are, or undefined where they are none of ours: it is made anew then. */
export function decodeIndex(bytes: Uint8Array): SeekIndex | undefined {
  const end = bytes.indexOf(NEWLINE);
  try {
    const { version, isComplete, points } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
    if (version !== 1) return undefined;
    let at = end + 1;
    const found = (points as (Omit<SeekPoint, "window"> & { window: number })[]).map(({ window, ...point }) => ({
      ...point,
      window: bytes.subarray(at, at += window),
    }));
    return at === bytes.length ? { points: found, isComplete } : undefined;
  } catch {
    return undefined; // cut off, or of another program
  }
}

/** Finds places while a file is read. It is given what is read, compressed and as text, and looks behind the last place that is known. */
export class SeekIndexer {
  /** All places that are known. */
  readonly points: SeekPoint[];
  readonly #walker: BlockWalker;
  readonly #every: number;
  /** Where it begins to look: bytes and text before that are passed over. */
  readonly #begin: Boundary;
  #byte: number;
  #out: number;
  #lines: number;
  /** The text before `out`. */
  #tail: Uint8Array;
  /** Places that the text has not reached, and those whose line has not begun. */
  #ahead: Boundary[] = [];
  #open: Omit<SeekPoint, "line" | "skip">[] = [];
  #last: number;

  /** @param known places of earlier readings. @param from where the reading begins; undefined: at the beginning of the file.
   * @param every bytes of text from one place to the next. */
  constructor(known: readonly SeekPoint[], from: SeekPoint | undefined, every: number = SEEK_BYTES) {
    this.points = [...known];
    this.#every = every;
    const last = known.at(-1);
    this.#begin = last ?? { byte: 0, bit: 0, out: 0 };
    this.#walker = new BlockWalker(last && { byte: last.byte, bit: last.bit, out: last.out });
    this.#byte = from?.byte ?? 0;
    this.#out = from?.out ?? 0;
    this.#last = this.#begin.out;
    this.#lines = last === undefined ? 0 : last.line - (last.skip > 0 ? 1 : 0);
    this.#tail = last === undefined ? new Uint8Array(0) : windowOf(last);
  }

  /** Whether the file is gzip so far. */
  get isSound(): boolean {
    return !this.#walker.isLost;
  }

  /** Takes bytes of the file, before the text that they are. */
  compressed(piece: Uint8Array): void {
    const skip = Math.max(0, this.#begin.byte - this.#byte);
    this.#byte += piece.length;
    if (skip >= piece.length) return;
    for (const boundary of this.#walker.take(skip === 0 ? piece : piece.subarray(skip))) {
      if (boundary.out < this.#last + this.#every) continue;
      this.#ahead.push(boundary);
      this.#last = boundary.out;
    }
  }

  /** Takes text of the file. */
  text(piece: Uint8Array): void {
    const skip = Math.max(0, this.#begin.out - this.#out);
    if (skip >= piece.length) {
      this.#out += piece.length;
      return;
    }
    const chunk = piece.subarray(skip), begin = this.#out + skip;
    this.#out += piece.length;
    let at = 0;
    for (const boundary of this.#ahead.filter(({ out }) => out <= this.#out)) {
      this.#count(chunk, at, at = boundary.out - begin, begin);
      const window = joinTail(this.#tail, chunk.subarray(0, at));
      const point = { ...boundary, window: new Uint8Array(deflateRawSync(window)) };
      if (window.at(-1) === NEWLINE) this.points.push({ ...point, line: this.#lines, skip: 0 });
      else this.#open.push(point);
    }
    this.#ahead = this.#ahead.filter(({ out }) => out > this.#out);
    this.#count(chunk, at, chunk.length, begin);
    this.#tail = joinTail(this.#tail, chunk);
  }

  /** Counts lines from one byte of a chunk to another. */
  #count(chunk: Uint8Array, from: number, to: number, begin: number): void {
    for (let at = chunk.indexOf(NEWLINE, from); at >= 0 && at < to; at = chunk.indexOf(NEWLINE, at + 1)) {
      this.#lines++;
      if (this.#open.length === 0) continue;
      for (const point of this.#open) {
        this.points.push({ ...point, line: this.#lines, skip: begin + at + 1 - point.out });
      }
      this.#open = [];
    }
  }
}

/** The last bytes of what was read. */
function joinTail(tail: Uint8Array, chunk: Uint8Array): Uint8Array {
  if (chunk.length >= WINDOW_BYTES) return chunk.slice(-WINDOW_BYTES);
  const kept = tail.subarray(Math.max(0, tail.length + chunk.length - WINDOW_BYTES));
  const joined = new Uint8Array(kept.length + chunk.length);
  joined.set(kept);
  joined.set(chunk, kept.length);
  return joined;
}
