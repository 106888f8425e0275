/**
 * Files of tokens, `.bin`: numbers of 16 or 32 bits, little-endian, one after another, as nanoGPT and llm.c write them. A
 * header of llm.c says how many there are, and their size. Documents end with a token of the tokenizer; one without an end
 * for long is cut.
 * @module
 */
import { DataError } from "./error.ts";
import { isTaken, refuse, type Take, type TokenDocument, type TokenOptions } from "./shard.ts";
import { CHUNK_BYTES, type ShardFile } from "./source.ts";

/** Magic number and version of llm.c's headers, and the bytes of a token behind them. */
const HEADERS = [{ magic: 20240520, version: 1, size: 2 }, { magic: 20240801, version: 7, size: 4 }] as const;
const HEADER_BYTES = 1024;

/** The most tokens of a document. */
export const MOST_TOKENS: number = 1 << 20;

/** Where the tokens of a file are. */
interface Layout {
  readonly start: number;
  readonly size: 2 | 4;
  /** Bytes of whole tokens behind `start`. */
  readonly bytes: number;
}

/** Reads documents of tokens in order.
 * @throws {DataError} when the file is not as long as it says, unless `onBad` lets that pass: then what there is is read. */
export async function* readTokens(
  file: ShardFile,
  take: Take,
  { end = null, tokenBytes = 2, onBad = refuse }: TokenOptions = {},
): AsyncGenerator<TokenDocument, void> {
  const { start, size, bytes } = await layoutOf(file, tokenBytes, onBad);
  let [index, length, pieces] = [0, 0, [] as Int32Array[]];
  for (let at = 0; at < bytes; at += CHUNK_BYTES) {
    const ids = widened(await file.slice(start + at, start + Math.min(bytes, at + CHUNK_BYTES)), size);
    for (let from = 0; from < ids.length;) {
      const found = end === null ? -1 : ids.indexOf(end, from), most = from + MOST_TOKENS - length;
      const isWhole = found >= 0 && found < most, to = isWhole ? found + 1 : Math.min(most, ids.length);
      length += to - from;
      if (isTaken(take, index)) pieces.push(ids.subarray(from, to));
      from = to;
      if (!isWhole && length < MOST_TOKENS) break;
      if (isTaken(take, index)) yield { index, ids: joined(pieces) };
      [index, length, pieces] = [index + 1, 0, []];
    }
  }
  if (pieces.length > 0) yield { index, ids: joined(pieces) };
}

async function layoutOf(file: ShardFile, tokenBytes: 2 | 4, onBad: (error: DataError) => void): Promise<Layout> {
  const total = await file.size(), head = new DataView((await file.slice(0, Math.min(total, 12))).buffer);
  const said = head.byteLength < 12
    ? undefined
    : HEADERS.find(({ magic, version }) => head.getInt32(0, true) === magic && head.getInt32(4, true) === version);
  const start = said ? HEADER_BYTES : 0, size = said?.size ?? tokenBytes, there = total - start;
  const expected = said ? head.getInt32(8, true) * size : Math.ceil(there / size) * size;
  if (there !== expected || there <= 0) {
    onBad(
      new DataError({
        code: there > 0 || said ? "damaged_shard" : "empty_dataset",
        what: `Shard ${file.location} has ${Math.max(0, there)} bytes of tokens`,
        expected: said ? `${expected} bytes, as its header says` : `tokens of ${size} bytes each`,
        fix: "make it again, or set data.token_bytes to 4 where its tokens have as many",
      }),
    );
  }
  const whole = Math.max(0, Math.min(there, said ? expected : there));
  return { start, size, bytes: whole - whole % size };
}

function widened(bytes: Uint8Array<ArrayBuffer>, size: 2 | 4): Int32Array {
  return size === 2
    ? Int32Array.from(new Uint16Array(bytes.buffer, 0, bytes.length / 2))
    : new Int32Array(bytes.buffer);
}

function joined(pieces: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
