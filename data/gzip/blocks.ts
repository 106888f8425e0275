/**
 * Finds the blocks of gzip files: where each begins, to the bit, and how much text comes before it. It decodes symbols, but
 * writes no text, so it costs less than inflating; what it says has to be right, as reading begins there, and it stops at the
 * first thing that is not gzip.
 * @module
 */

/** A place between two blocks. */
export interface Boundary {
  /** Offset of the byte in the file that has the block's first bit. */
  readonly byte: number;
  /** That bit of it, from 0. */
  readonly bit: number;
  /** Bytes of text before it. */
  readonly out: number;
}

/** Bytes of input that hold any symbol with all that belongs to it. */
const SYMBOL_BYTES = 12;
/** And any header of a block with its code lengths. */
const HEADER_BYTES = 400;

const LENGTH_BASE = [
  3,
  4,
  5,
  6,
  7,
  8,
  9,
  10,
  11,
  13,
  15,
  17,
  19,
  23,
  27,
  31,
  35,
  43,
  51,
  59,
  67,
  83,
  99,
  115,
  131,
  163,
  195,
  227,
  258,
];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const CODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** A table for codes of up to `bits` bits: at the bits that come next, `symbol << 4 | length`, or 0 where no code begins so. */
interface Table {
  readonly entries: Uint16Array;
  readonly bits: number;
}

/** Where the walker stands. */
type State = "header" | "block" | "symbols" | "stored" | "trailer" | "lost";

/** Walks through a gzip file that is given in pieces. */
export class BlockWalker {
  /** Offset in the file where the deflate stream of the first member that it walked through ends; undefined: not there yet. */
  firstEnd: number | undefined;
  #state: State;
  #buffer: Uint8Array = new Uint8Array(0);
  /** Offset in the file of the buffer's first byte. */
  #base: number;
  /** Next bit in the buffer. */
  #bit: number;
  #out: number;
  #isLast = false;
  #stored = 0;
  #literals: Table = FIXED.literals;
  #distances: Table = FIXED.distances;

  /** @param from where the first piece begins: at a boundary, whose byte it begins with, or at the beginning of the file. */
  constructor(from: Boundary = { byte: 0, bit: 0, out: 0 }) {
    this.#state = from.out === 0 && from.byte === 0 ? "header" : "block";
    this.#base = from.byte;
    this.#bit = from.bit;
    this.#out = from.out;
  }

  /** Whether the file is gzip so far. */
  get isLost(): boolean {
    return this.#state === "lost";
  }

  /** Takes the next piece, and gives the boundaries in it. */
  take(piece: Uint8Array): Boundary[] {
    if (this.#state === "lost") return [];
    const used = this.#bit >> 3, rest = this.#buffer.subarray(used);
    const buffer = new Uint8Array(rest.length + piece.length);
    buffer.set(rest);
    buffer.set(piece, rest.length);
    this.#buffer = buffer;
    this.#base += used;
    this.#bit &= 7;
    const found: Boundary[] = [];
    try {
      while (this.#step(found));
    } catch (error) {
      if (!(error instanceof NotGzip)) throw error;
      this.#state = "lost";
    }
    return found;
  }

  /** Goes on by one part of the file; false where more of it is needed. */
  #step(found: Boundary[]): boolean {
    const left = this.#buffer.length - ((this.#bit + 7) >> 3);
    switch (this.#state) {
      case "header":
        return this.#header();
      case "block":
        // The last block of a file may be short: it is no place to begin at, and is left where it is.
        if (left < HEADER_BYTES) return false;
        found.push({ byte: this.#base + (this.#bit >> 3), bit: this.#bit & 7, out: this.#out });
        this.#block();
        return true;
      case "symbols":
        return this.#symbols();
      case "stored": {
        const taken = Math.min(left, this.#stored);
        this.#bit += taken * 8;
        this.#out += taken;
        this.#stored -= taken;
        if (this.#stored > 0) return false;
        this.#end();
        return true;
      }
      case "trailer":
        if (left < 8) return false;
        this.#bit = ((this.#bit + 7) & ~7) + 64;
        this.#state = "header";
        return true;
      case "lost":
        return false;
    }
  }

  #end(): void {
    this.#state = this.#isLast ? "trailer" : "block";
    if (this.#isLast) this.firstEnd ??= this.#base + ((this.#bit + 7) >> 3);
  }

  #header(): boolean {
    const buffer = this.#buffer, begin = this.#bit >> 3, flags = buffer[begin + 3];
    if (buffer.length < begin + 10) return false;
    if (buffer[begin] !== 0x1f || buffer[begin + 1] !== 0x8b || buffer[begin + 2] !== 8) throw new NotGzip();
    let at = begin + 10;
    if (flags & 4) at += 2 + (buffer[at] | buffer[at + 1] << 8);
    for (const flag of [8, 16]) {
      if (!(flags & flag)) continue;
      const end = at > buffer.length ? -1 : buffer.indexOf(0, at);
      if (end < 0) return false;
      at = end + 1;
    }
    if (flags & 2) at += 2;
    if (!(at <= buffer.length)) return false;
    this.#bit = at * 8;
    this.#state = "block";
    return true;
  }

  #block(): void {
    this.#isLast = this.#take(1) === 1;
    switch (this.#take(2)) {
      case 0: {
        this.#bit = (this.#bit + 7) & ~7;
        this.#stored = this.#take(16);
        if ((this.#take(16) ^ this.#stored) !== 0xffff) throw new NotGzip();
        this.#state = "stored";
        return;
      }
      case 1:
        this.#literals = FIXED.literals;
        this.#distances = FIXED.distances;
        break;
      case 2:
        this.#dynamic();
        break;
      default:
        throw new NotGzip();
    }
    this.#state = "symbols";
  }

  #dynamic(): void {
    const literals = this.#take(5) + 257, distances = this.#take(5) + 1, codes = this.#take(4) + 4;
    const codeLengths = new Uint8Array(19);
    for (let n = 0; n < codes; n++) codeLengths[CODE_ORDER[n]] = this.#take(3);
    const table = tableOf(codeLengths), lengths = new Uint8Array(literals + distances);
    for (let n = 0; n < lengths.length;) {
      const symbol = this.#code(table);
      if (symbol < 16) {
        lengths[n++] = symbol;
        continue;
      }
      if (symbol === 16 && n === 0) throw new NotGzip();
      const value = symbol === 16 ? lengths[n - 1] : 0;
      const count = symbol === 16 ? 3 + this.#take(2) : symbol === 17 ? 3 + this.#take(3) : 11 + this.#take(7);
      if (n + count > lengths.length) throw new NotGzip();
      lengths.fill(value, n, n += count);
    }
    this.#literals = tableOf(lengths.subarray(0, literals));
    this.#distances = tableOf(lengths.subarray(literals));
  }

  /** Symbols until the block ends or the buffer nearly does; true at the end of the block. */
  #symbols(): boolean {
    const buffer = this.#buffer,
      { entries: literals, bits } = this.#literals,
      { entries: distances, bits: far } = this.#distances;
    const mask = (1 << bits) - 1, farMask = (1 << far) - 1, last = buffer.length - SYMBOL_BYTES;
    let at = this.#bit >> 3, out = this.#out, hold = buffer[at++] >>> (this.#bit & 7), held = 8 - (this.#bit & 7);
    let isEnd = false;
    // Bits are held in 32: a code takes up to 15, what comes behind it up to 13.
    while (at < last) {
      while (held <= 24) {
        hold |= buffer[at++] << held;
        held += 8;
      }
      let entry = literals[hold & mask], length = entry & 15;
      if (length === 0) throw new NotGzip();
      hold >>>= length;
      held -= length;
      const symbol = entry >>> 4;
      if (symbol < 256) {
        out++;
        continue;
      }
      if (symbol === 256) {
        isEnd = true;
        break;
      }
      const n = symbol - 257;
      if (n >= LENGTH_BASE.length) throw new NotGzip();
      const extra = LENGTH_EXTRA[n];
      out += LENGTH_BASE[n] + (hold & ((1 << extra) - 1));
      hold >>>= extra;
      held -= extra;
      while (held <= 24) {
        hold |= buffer[at++] << held;
        held += 8;
      }
      entry = distances[hold & farMask];
      length = entry & 15;
      if (length === 0) throw new NotGzip();
      hold >>>= length;
      held -= length;
      const distance = entry >>> 4, more = distance < 2 ? 0 : (distance >> 1) - 1;
      if (distance > 29) throw new NotGzip();
      // Up to 13 bits that are only passed over: the position counts.
      if (held < more) {
        at += (more - held + 7) >> 3;
        const over = (more - held) & 7;
        hold = over === 0 ? 0 : buffer[at - 1] >>> over;
        held = over === 0 ? 0 : 8 - over;
      } else {
        hold >>>= more;
        held -= more;
      }
    }
    this.#bit = at * 8 - held;
    this.#out = out;
    if (isEnd) this.#end();
    return isEnd;
  }

  #take(count: number): number {
    let value = 0;
    for (let n = 0; n < count; n++, this.#bit++) value |= (this.#buffer[this.#bit >> 3] >> (this.#bit & 7) & 1) << n;
    return value;
  }

  #code({ entries, bits }: Table): number {
    let next = 0;
    for (let n = 0; n < bits; n++) {
      const bit = this.#bit + n;
      next |= (this.#buffer[bit >> 3] >> (bit & 7) & 1) << n;
    }
    const entry = entries[next];
    if (entry === 0) throw new NotGzip();
    this.#bit += entry & 15;
    return entry >>> 4;
  }
}

/** What is read is no gzip: there is nowhere to go on. */
class NotGzip extends Error {}

/** The table of a code, from the length of each symbol's. */
function tableOf(lengths: Uint8Array): Table {
  const bits = Math.max(1, lengths.reduce((most, length) => Math.max(most, length), 0));
  const entries = new Uint16Array(1 << bits), counts = new Uint16Array(17), next = new Uint16Array(17);
  for (const length of lengths) counts[length]++;
  for (let length = 1, code = 0; length <= 15; length++) {
    code = (code + (length === 1 ? 0 : counts[length - 1])) << 1;
    next[length] = code;
  }
  for (let symbol = 0; symbol < lengths.length; symbol++) {
    const length = lengths[symbol];
    if (length === 0) continue;
    let code = next[length]++, reversed = 0;
    if (code >= 1 << length) throw new NotGzip();
    for (let n = 0; n < length; n++, code >>= 1) reversed = reversed << 1 | code & 1;
    for (let at = reversed; at < entries.length; at += 1 << length) entries[at] = symbol << 4 | length;
  }
  return { entries, bits };
}

const FIXED: { readonly literals: Table; readonly distances: Table } = {
  literals: tableOf(Uint8Array.from({ length: 288 }, (_, n) => n < 144 ? 8 : n < 256 ? 9 : n < 280 ? 7 : 8)),
  distances: tableOf(new Uint8Array(30).fill(5)),
};
