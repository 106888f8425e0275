/** Where bytes come from: files, and URLs for the sample when libtitan itself was imported over the network. @module */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { fromFileUrl, resolve, toFileUrl } from "@std/path";
import { DataError } from "./error.ts";

/** Bytes read at once. zlib is a third slower with its default of 16 KiB. */
export const CHUNK_BYTES: number = 1 << 20;

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

/** The bytes of a file in chunks of CHUNK_BYTES, or undefined where there is none. The caller destroys the stream. */
export async function openStream(url: URL): Promise<Readable | undefined> {
  if (url.protocol !== "file:") {
    const response = await request(url);
    return response && Readable.fromWeb(response.body as ReadableStream);
  }
  try {
    if (!(await reading(show(url), () => Deno.stat(url))).isFile) return undefined;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  return createReadStream(url, { highWaterMark: CHUNK_BYTES });
}

async function request(url: URL): Promise<Response | undefined> {
  const response = await fetch(url).catch((error) => {
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
