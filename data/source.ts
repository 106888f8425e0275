/**
 * Where bytes come from: files, and URLs for the sample when libtitan itself was imported over the network. Formats are read
 * through {@linkcode ShardFile}, so that they need not know which of them it is.
 * @module
 */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { fromFileUrl, resolve, toFileUrl } from "@std/path";
import { DataError } from "./error.ts";
import type { SeekStore } from "./gzip/seek_index.ts";

/** Bytes read at once. zlib is a third slower with its default of 16 KiB. */
export const CHUNK_BYTES: number = 1 << 20;

/** A file of documents, wherever its bytes lie. Formats ask for nothing else. */
export interface ShardFile {
  /** Its name without folders; the ending tells the format. */
  readonly name: string;
  /** Where it lies, for people: a path or an address. */
  readonly location: string;
  /** Tells its bytes from others: what it costs little to know, such as size or hash. */
  identity(): Promise<string>;
  /** Its bytes as they are stored, in chunks, from byte `from` on (default 0). The caller destroys the stream.
   * @throws {DataError} when there is no such file, or it cannot be read. */
  open(from?: number): Promise<Readable>;
  /** The bytes from `start` to `end` (or to where the file ends), for formats that are read by place.
   * @throws {DataError} when there is no such file, or it cannot be read. */
  slice(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  /** How many bytes are stored. @throws {DataError} when there is no such file. */
  size(): Promise<number>;
  /** Is told that its bytes make no sense. Where they have come over a network and are not known to be right, it forgets them, and gives
   * true. */
  distrust?(): Promise<boolean>;
  /** Where an index of places to read from is kept; none: it is read from its beginning. */
  readonly seek?: SeekStore;
}

/** The file at a URL as a shard. */
export function shardFile(url: URL): ShardFile {
  const location = show(url);
  const there = <T>(found: T | undefined): T => {
    if (found !== undefined) return found;
    throw new DataError({
      code: "no_such_file",
      what: `Cannot open shard ${location}: there is no such file`,
      expected: "a file of documents, such as .json.gz",
      fix: "correct the dataset's path",
    });
  };
  const size = async () => there(await sizeOf(url));
  return {
    name: decodeURIComponent(url.pathname.split("/").at(-1)!),
    location,
    open: async (from) => there(await openStream(url, from)),
    slice: async (start, end) => there(await readSlice(url, start, end)),
    size,
    identity: async () => url.protocol === "file:" ? String(await size()) : "", // no request for each shard
  };
}

/** The URL of a path (from the working directory), or of what is a URL already. */
export function toUrl(location: string | URL): URL {
  if (location instanceof URL) return location;
  return /^(file|https?):/.test(location) ? new URL(location) : toFileUrl(resolve(location));
}

/** As people write it: a path where it is a file. */
export function show(url: URL): string {
  return url.protocol === "file:" ? fromFileUrl(url) : url.href;
}

/** The URL of a file in a folder. */
export function within(folder: URL, name: string): URL {
  return new URL(name, folder.href.endsWith("/") ? folder : `${folder.href}/`);
}

/** Whether a file could not be opened because there is none. */
export function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

/** Does `read`, of which an error is one of the system: the user may not read it, or it is none that can be.
 * @throws {DataError} in place of such an error; that there is no file goes through, for {@linkcode isMissing}. */
export async function reading<T>(name: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof DataError || isMissing(error)) throw error;
    throw unreadable(name, error as Error);
  }
}

/** The error of a file or folder that the system does not let this process read. */
export function unreadable(name: string, cause: Error): DataError {
  return new DataError({
    code: "unreadable",
    what: `Cannot read ${name}: ${cause.message}`,
    expected: "what this process may read",
    fix: cause instanceof Deno.errors.NotCapable
      ? "run it with that flag"
      : "correct its permissions, or give another path",
  }, { cause });
}

/** All bytes of a file, or undefined where there is none. */
export async function readBytes(url: URL): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (url.protocol !== "file:") {
    const response = await request(url);
    return response && new Uint8Array(await response.arrayBuffer());
  }
  try {
    return await reading(show(url), () => Deno.readFile(url));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** The bytes of a file from `from` on in chunks of CHUNK_BYTES, or undefined where there is none. The caller destroys the stream. */
export async function openStream(url: URL, from = 0): Promise<Readable | undefined> {
  if (url.protocol !== "file:") {
    const response = await request(url, from === 0 ? undefined : { headers: { range: `bytes=${from}-` } });
    if (response === undefined) return undefined;
    const body = Readable.fromWeb(response.body as ReadableStream);
    return from === 0 || response.status === 206 ? body : Readable.from(behind(body, from)); // a server may send all of it
  }
  try {
    if (!(await reading(show(url), () => Deno.stat(url))).isFile) return undefined;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  return createReadStream(url, { start: from, highWaterMark: CHUNK_BYTES });
}

async function* behind(chunks: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    if (bytes < chunk.length) yield chunk.subarray(bytes);
    bytes = Math.max(0, bytes - chunk.length);
  }
}

/** Bytes of a file, or undefined where there is none. */
async function sizeOf(url: URL): Promise<number | undefined> {
  if (url.protocol !== "file:") {
    const response = await request(url, { method: "HEAD" });
    return response && Number(response.headers.get("content-length"));
  }
  try {
    const { isFile, size } = await reading(show(url), () => Deno.stat(url));
    return isFile ? size : undefined;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Some bytes of a file, or undefined where there is none. */
async function readSlice(url: URL, start: number, end: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (url.protocol !== "file:") {
    const response = await request(url, { headers: { range: `bytes=${start}-${end - 1}` } });
    if (response === undefined) return undefined;
    const bytes = new Uint8Array(await response.arrayBuffer());
    return response.status === 206 ? bytes : bytes.slice(start, end); // a server may send all of it
  }
  try {
    return await reading(show(url), async () => {
      using file = await Deno.open(url);
      const bytes = new Uint8Array(end - start);
      await file.seek(start, Deno.SeekMode.Start);
      let filled = 0;
      for (let count; filled < bytes.length && (count = await file.read(bytes.subarray(filled))) !== null;) {
        filled += count;
      }
      return bytes.subarray(0, filled);
    });
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

async function request(url: URL, how?: RequestInit): Promise<Response | undefined> {
  const response = await fetch(url, how).catch((error) => {
    throw new DataError({
      code: "unreachable",
      what: `Cannot read ${url.href}: ${(error as Error).message}`,
      expected: "an answer over the network",
      fix: "try again later, or give the path of a local copy",
    }, { cause: error });
  });
  if (response.ok) return response;
  await response.body?.cancel();
  if (response.status === 404) return undefined;
  throw new DataError({
    code: "unreachable",
    what: `Cannot read ${url.href}: the server answered ${response.status} ${response.statusText}`.trimEnd(),
    expected: "status 200",
    fix: "try again later, or give the path of a local copy",
  });
}
