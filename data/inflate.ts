/** The text in a compressed file: gzip and zstd by the ending of its name, anything else as it is stored. @module */
import { PassThrough, pipeline, type Readable, Transform } from "node:stream";
import { createGunzip } from "node:zlib";
import { Decompress } from "fzstd";
import { DataError } from "./error.ts";
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

/** Opens the text of a file at or before a line, as near as can be reached without reading what lies before: so far its beginning. */
export async function openPlain(file: ShardFile, _line = 0): Promise<Plain> {
  const source = await file.open(), { format, stream } = decompressor(file.name);
  const closed = new Promise<void>((done) => source.once("close", done));
  pipeline(source, stream, () => {}); // an error comes out of the stream
  return {
    ...{ line: 0, byte: 0, chunks: named(file, stream, format) },
    async [Symbol.asyncDispose]() {
      stream.destroy();
      await closed;
    },
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
