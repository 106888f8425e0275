/** The text in a compressed file: gzip and zstd by the ending of its name, anything else as it is stored. @module */
import { PassThrough, pipeline, type Readable, Transform } from "node:stream";
import { createGunzip, createInflateRaw } from "node:zlib";
import { Decompress } from "fzstd";
import { DataError } from "./error.ts";
import { BlockWalker } from "./gzip/blocks.ts";
import { prefixFor } from "./gzip/restart.ts";
import {
  decodeIndex,
  encodeIndex,
  pointBefore,
  SeekIndexer,
  type SeekPoint,
  type SeekStore,
  windowOf,
} from "./gzip/seek_index.ts";
import { CHUNK_BYTES, type ShardFile, unreadable } from "./source.ts";

/** Bytes of zstd that are inflated at once. */
const ZSTD_BYTES = 2048;

/** A file's text from the beginning of a line on. */
export interface Plain extends AsyncDisposable {
  /** Number of that line, from 0. */
  readonly line: number;
  /** Bytes of text before it. */
  readonly byte: number;
  /** The text in chunks of any size.
   * @throws {DataError} where the file is cut off or damaged. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Opens the text of a file at or before a line, as near as can be reached without reading what lies before: its beginning, or where an
 * index knows one, a place in the middle. */
export async function openPlain(file: ShardFile, line = 0): Promise<Plain> {
  if (file.seek !== undefined && /\.gz$/i.test(file.name)) return await openIndexed(file, file.seek, line);
  const { format, stream } = decompressor(file.name);
  const close = await connect(file, 0, [stream]);
  return { line: 0, byte: 0, chunks: named(file, stream, format), [Symbol.asyncDispose]: close };
}

/** Opens a gzip file at the last place that its index knows before a line, and completes the index with what is read. */
async function openIndexed(file: ShardFile, store: SeekStore, line: number): Promise<Plain> {
  const kept = await store.read(), index = kept && decodeIndex(kept) || { points: [], isComplete: false };
  const point = pointBefore(index, line), indexer = index.isComplete ? undefined : new SeekIndexer(index.points, point);
  const closing: (() => Promise<void>)[] = [];
  const tap = new Transform({
    readableHighWaterMark: CHUNK_BYTES,
    transform: (chunk: Uint8Array, _, done) => (indexer?.compressed(chunk), done(null, chunk)),
  });
  const inflate = point === undefined
    ? createGunzip({ chunkSize: CHUNK_BYTES })
    : createInflateRaw({ chunkSize: CHUNK_BYTES });
  const member = point && memberFrom(point);
  closing.push(await connect(file, point?.byte ?? 0, [tap, ...(member ? [member.stream] : []), inflate]));

  async function* chunks(): AsyncGenerator<Uint8Array, void> {
    let known = index.points.length, isAtEnd = false;
    const keep = async () => {
      if (indexer === undefined || !indexer.isSound || indexer.points.length === 0) return;
      if (indexer.points.length === index.points.length && !isAtEnd) return;
      known = indexer.points.length;
      await store.write(encodeIndex({ points: indexer.points, isComplete: isAtEnd }));
    };
    /** Bytes of text that come before what is wanted. */
    let before = point === undefined ? 0 : windowOf(point).length;
    let skip = point?.skip ?? 0;
    try {
      for await (const chunk of named(file, inflate, "gzip")) {
        const text = chunk.subarray(Math.min(before, chunk.length));
        before -= chunk.length - text.length;
        indexer?.text(text);
        const wanted = text.subarray(Math.min(skip, text.length));
        skip -= text.length - wanted.length;
        if (wanted.length > 0) yield wanted;
        if (indexer !== undefined && indexer.points.length >= known + POINTS_KEPT) await keep();
      }
      const end = member?.end();
      if (end !== undefined && end + TRAILER_BYTES < await file.size()) {
        const rest = createGunzip({ chunkSize: CHUNK_BYTES });
        closing.push(await connect(file, end + TRAILER_BYTES, [rest]));
        yield* named(file, rest, "gzip");
      } else isAtEnd = true;
    } finally {
      await keep();
    }
  }
  return {
    line: point?.line ?? 0,
    byte: point === undefined ? 0 : point.out + point.skip,
    chunks: chunks(),
    async [Symbol.asyncDispose]() {
      for (const close of closing) await close();
    },
  };
}

/** New places after which the index is written: what a kill may lose is 64 MiB of text, inflated in a quarter of a second. */
const POINTS_KEPT = 8;

/** Bytes behind a member's deflate stream: its checksum and its length. */
const TRAILER_BYTES = 8;

/** Passes a file on from a place as one deflate stream, which has the text before it and ends where the member does. */
function memberFrom(point: SeekPoint): { readonly stream: Transform; readonly end: () => number | undefined } {
  const walker = new BlockWalker({ byte: point.byte, bit: point.bit, out: point.out });
  const { bytes, low } = prefixFor(windowOf(point), point.bit);
  let isFirst = true;
  const stream = new Transform({
    readableHighWaterMark: CHUNK_BYTES,
    transform(chunk: Uint8Array, _, done) {
      if (walker.firstEnd !== undefined) return done();
      walker.take(chunk);
      if (isFirst) {
        isFirst = false;
        this.push(bytes);
        chunk = chunk.slice();
        chunk[0] = chunk[0] & ~((1 << point.bit) - 1) | low;
      }
      this.push(chunk);
      if (walker.firstEnd !== undefined) this.push(null);
      done();
    },
  });
  return { stream, end: () => walker.firstEnd };
}

/** Sends the bytes of a file through streams; what is given closes it all. An error comes out of the last stream. */
async function connect(file: ShardFile, from: number, streams: readonly Transform[]): Promise<() => Promise<void>> {
  const source = await file.open(from), closed = new Promise<void>((done) => source.once("close", done));
  pipeline([source, ...streams], () => {});
  return async () => {
    streams.at(-1)!.destroy();
    await closed;
  };
}

/** The name of a file without the ending that tells how it is compressed. */
export function plainName(name: string): string {
  return name.replace(/\.(gz|zst)$/i, "");
}

function decompressor(name: string): { readonly format: string; readonly stream: Transform } {
  const chunks = { chunkSize: CHUNK_BYTES };
  if (/\.gz$/i.test(name)) return { format: "gzip", stream: createGunzip(chunks) };
  if (/\.zst$/i.test(name)) return { format: "zstd", stream: zstdStream() };
  return { format: "text", stream: new PassThrough({ highWaterMark: CHUNK_BYTES }) };
}

/** node:zlib's ends in silence where a file is cut off, and behind the first of several frames. */
function zstdStream(): Transform {
  const inflate = new Decompress((text) => void stream.push(text));
  const stream = new Transform({
    readableHighWaterMark: CHUNK_BYTES,
    transform(chunk: Uint8Array, _, done) {
      pushAll(chunk).then(() => done(), done);
    },
    flush(done) {
      Promise.resolve().then(() => inflate.push(new Uint8Array(0), true)).then(() => done(), done);
    },
  });
  /** Few bytes at once: a block of four may stand for 128 KiB of text. */
  async function pushAll(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; at += ZSTD_BYTES) {
      inflate.push(chunk.subarray(at, at + ZSTD_BYTES));
      while (stream.readableLength > CHUNK_BYTES && !stream.destroyed) await new Promise((done) => setTimeout(done));
    }
  }
  return stream;
}

async function* named(file: ShardFile, chunks: Readable, format: string): AsyncGenerator<Uint8Array, void> {
  try {
    for await (const chunk of chunks) yield chunk as Uint8Array;
  } catch (error) {
    if (error instanceof DataError) throw error;
    const isSystems = /^E[A-Z]+$/.test((error as NodeJS.ErrnoException).code ?? ""); // zlib's begin with Z_
    throw isSystems ? unreadable(file.location, error as Error) : damaged(file, format, error as Error);
  }
}

function damaged({ location }: ShardFile, format: string, cause: Error): DataError {
  const isCut = /unexpected (end of file|EOF)/.test(cause.message);
  return new DataError({
    code: "damaged_shard",
    what: `Shard ${location} is ${isCut ? "cut off" : "damaged"}: ${cause.message}`,
    expected: `a complete ${format} file`,
    fix: "download the shard again",
  }, { cause });
}
