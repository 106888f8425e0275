/**
 * A file of the hub that is read while it comes. The ranks of a host share one copy of it on disk: one of them brings it,
 * the others follow what it writes, and where that one ends, another goes on from the byte that it had reached.
 * @module
 */
import type { DataError } from "../error.ts";
import { CHUNK_BYTES, isMissing } from "../source.ts";
import type { HubCache, Lock } from "./cache.ts";
import { fill } from "./download.ts";
import { changed, type Hub, type HubFile } from "./hub.ts";
import { makeRoom, reading } from "./room.ts";

/** How long to wait before looking again whether another rank has brought more, in milliseconds. */
const LOOK_AGAIN = 50;

/** A file that this process brings at the moment. */
class Filling implements AsyncDisposable {
  /** Settles when there is an end, good or bad. */
  readonly ended: Promise<void>;
  readonly #stop = new AbortController();
  #more = Promise.withResolvers<void>();
  #at = 0;
  #over = false;

  /** Begins. */
  constructor(hub: Hub, cache: HubCache, file: HubFile, lock: Lock, limit: number) {
    this.ended = (async () => {
      await using _lock = lock;
      await using _room = await makeRoom(cache.folder, cache.incomplete(file), file.size, limit);
      await fill(hub, cache, file, { signal: this.#stop.signal, progress: (bytes) => this.#progress(bytes) });
    })();
    const over = () => {
      this.#over = true;
      this.#more.resolve();
    };
    this.ended.then(over, over); // whoever reads is told by `beyond`
  }

  /** Waits until there is more than `bytes`, or an end.
   * @throws what the filling ended with. */
  async beyond(bytes: number): Promise<void> {
    while (this.#at <= bytes && !this.#over) await this.#more.promise;
    if (this.#over) await this.ended;
  }

  /** Stops; what has come stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("Nobody reads it any more"));
    await this.ended.catch(() => {});
  }

  #progress(bytes: number): void {
    this.#at = bytes;
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }
}

/** How a file is read while it comes. */
export interface SharedOptions {
  /** Bytes that the cache may take. */
  readonly limit: number;
  /** The first byte to give; default 0. */
  readonly from?: number;
  /** Ends the reading, also while it waits. */
  readonly signal?: AbortSignal;
}

/** Bytes of a file in chunks.
 * @throws {DataError} when they cannot be had, or turn out to be wrong: never later than at their end. */
export async function* readShared(
  hub: Hub,
  cache: HubCache,
  file: HubFile,
  { limit, from = 0, signal }: SharedOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
  const buffer = new Uint8Array(CHUNK_BYTES);
  const { promise: aborted, reject: abort } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const stop = () => abort(signal!.reason);
  signal?.addEventListener("abort", stop, { once: true });
  let source: Deno.FsFile | undefined, filling: Filling | undefined;
  try {
    for (let at = from; at < file.size;) {
      signal?.throwIfAborted();
      source ??= await openFirst([cache.blob(file), cache.incomplete(file)]);
      if (source !== undefined) {
        await source.seek(at, Deno.SeekMode.Start);
        const n = await source.read(buffer);
        if (n !== null) {
          at += n;
          yield buffer.slice(0, n);
          continue;
        }
        if ((await source.stat()).nlink === 0) throw replaced(file);
      }
      await more(at);
    }
    // What was read is right when it has got its name, which the hash decides.
    for (;;) {
      using whole = await openFirst([cache.blob(file)]);
      if (whole !== undefined) {
        if (source === undefined || (await whole.stat()).ino === (await source.stat()).ino) break;
        throw replaced(file);
      }
      await more(file.size);
    }
    await cache.link(file);
  } finally {
    signal?.removeEventListener("abort", stop);
    source?.close();
    await filling?.[Symbol.asyncDispose]();
  }

  /** Waits until there may be more than `bytes`, and brings it where nobody else does. */
  async function more(bytes: number): Promise<void> {
    if (filling !== undefined) return await Promise.race([filling.beyond(bytes), aborted]);
    const lock = await cache.lock(file, { wait: false });
    if (lock !== undefined) filling = new Filling(hub, cache, file, lock, limit);
    else await Promise.race([new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN)), aborted]);
  }
}

function replaced(file: HubFile): DataError {
  return changed(`${file.path} of ${file.repository.name}`, "its hash is another than the hub's, and it was removed");
}

/** Opens the first file that there is, and keeps it from being removed. */
async function openFirst(paths: readonly string[]): Promise<Deno.FsFile | undefined> {
  for (const path of paths) {
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path);
    } catch (error) {
      if (!isMissing(error)) throw error;
      continue;
    }
    try {
      await reading(file);
      if ((await file.stat()).nlink !== 0) return file; // or it was removed between the two
      file.close();
      return undefined;
    } catch (error) {
      file.close();
      throw error;
    }
  }
}
