/**
 * Brings files of the hub into a cache. What has come of a file stays when the download breaks off, and it goes on from
 * there; it gets its name in the cache when its hash is right, and never before.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { dirname } from "@std/path";
import { DataError } from "../error.ts";
import { CHUNK_BYTES } from "../source.ts";
import { type HubCache, isFile, removeIfThere } from "./cache.ts";
import { changed, type Hub, type HubFile } from "./hub.ts";

/** How a download goes. */
export interface DownloadOptions {
  /** Is told how many bytes of the file are there. */
  readonly progress?: (bytes: number) => void;
  /** Stops the download; what has come stays. */
  readonly signal?: AbortSignal;
}

/** Sees to it that a file is in the cache, and gives its path. One process brings it, others wait for it.
 * @throws {DataError} when it cannot be had. */
export async function download(
  hub: Hub,
  cache: HubCache,
  file: HubFile,
  options: DownloadOptions = {},
): Promise<string> {
  if (!await isFile(cache.blob(file))) {
    await using _lock = await cache.lock(file, { wait: true });
    if (!await isFile(cache.blob(file))) await fill(hub, cache, file, options);
  }
  options.progress?.(file.size);
  return await cache.link(file);
}

/** Brings a file into the cache. The caller has its lock.
 * @throws {DataError} when it cannot be had. */
export async function fill(hub: Hub, cache: HubCache, file: HubFile, options: DownloadOptions = {}): Promise<void> {
  const path = cache.incomplete(file);
  if (options.signal !== undefined) hub = hub.until(options.signal);
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    const kept = await bring(hub, path, file, options);
    if (kept === undefined) return await finish(cache, file);
    await Deno.remove(path);
    // What was kept from before may have been damaged, by a power cut for example: a whole download tells.
    if (kept > 0 && await bring(hub, path, file, options) === undefined) return await finish(cache, file);
    await removeIfThere(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOSPC") throw noSpace(path, error as Error);
    throw error;
  }
  throw changed(`${file.path} of ${file.repository.name}`, "its hash is another than the hub's");
}

/** Completes a file; where its hash is wrong, gives the number of bytes that were there before. */
async function bring(
  hub: Hub,
  path: string,
  file: HubFile,
  { progress = () => {}, signal }: DownloadOptions,
): Promise<number | undefined> {
  using out = await Deno.open(path, { create: true, read: true, write: true });
  const { size: found } = await out.stat();
  const kept = found <= file.size ? found : 0;
  if (kept < found) await out.truncate(0);
  const hash = hashOf(file), buffer = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < kept;) {
    const n = await out.read(buffer);
    if (n === null) throw new Error(`${path} has become shorter while it was read`);
    hash.update(buffer.subarray(0, n));
    at += n;
    signal?.throwIfAborted();
  }
  let at = kept;
  progress(at);
  for await (const chunk of hub.bytes(file, at)) {
    hash.update(chunk);
    for (let n = 0; n < chunk.length;) n += await out.write(chunk.subarray(n));
    progress(at += chunk.length);
  }
  if (hash.digest("hex") !== file.etag) return kept;
  await out.syncData();
}

/** The hash that a content has as its ETag: SHA-256, or what git calls a file of that content.
 * @throws {DataError} when it is neither. */
function hashOf({ etag, size, path }: HubFile): Hash {
  if (/^[0-9a-f]{64}$/.test(etag)) return createHash("sha256");
  if (/^[0-9a-f]{40}$/.test(etag)) return createHash("sha1").update(`blob ${size}\0`);
  throw new DataError({
    code: "unreachable",
    what: `Cannot check ${path}: its ETag ${etag} is no hash`,
    expected: "SHA-256 or git's SHA-1 in hexadecimal digits",
    fix: "correct HF_ENDPOINT, if it is set",
  });
}

async function finish(cache: HubCache, file: HubFile): Promise<void> {
  await Deno.rename(cache.incomplete(file), cache.blob(file));
  await cache.link(file);
}

function noSpace(path: string, cause: Error): DataError {
  return new DataError({
    code: "cache_full",
    what: `Cannot write ${path}: ${cause.message}`,
    expected: "a disk with room for what is downloaded",
    fix: "make room, or name a folder on another disk: data.cache_dir, or HF_HOME",
  }, { cause });
}
