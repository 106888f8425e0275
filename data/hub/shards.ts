/**
 * Files of datasets on the hub as shards that are streamed: from the hub's cache where somebody has downloaded them, else
 * from a cache of limited size that the ranks of a host share, else from the network through that cache.
 * @module
 */
import { Readable } from "node:stream";
import { DataError } from "../error.ts";
import { seekStore } from "../gzip/seek_store.ts";
import { CHUNK_BYTES, type ShardFile, shardFile, toUrl } from "../source.ts";
import { fitsAny, type HubAddress, showAddress } from "./address.ts";
import { HubCache } from "./cache.ts";
import { Hub, type HubFile } from "./hub.ts";
import { type RequestOptions, Requests } from "./requests.ts";
import { claim } from "./room.ts";
import { type HubSettings, hubSettings } from "./settings.ts";
import { readShared } from "./shared_file.ts";

/** Where streamed files are kept; plain data. */
export interface StreamCache {
  /** A folder for nothing else; default: `libtitan` in HF_HOME. */
  readonly folder?: string;
  /** Bytes that it may take; default: {@linkcode STREAM_CACHE_BYTES}. */
  readonly bytes?: number;
}

/** Size of the cache, where nothing is said: some sixty shards of C4. */
export const STREAM_CACHE_BYTES = 20e9;

/** How to reach the hub; default: as the environment says. */
export interface StreamOptions extends StreamCache, RequestOptions {
  readonly settings?: HubSettings;
}

/** The hub as a place of shards. */
export class HubShards {
  readonly #hub: Hub;
  /** What was downloaded on purpose; nothing is ever removed from it. */
  readonly #downloaded: HubCache;
  readonly #streamed: HubCache;
  readonly #limit: number;

  /** Nothing is asked yet. */
  constructor(options: StreamOptions = {}) {
    const settings = options.settings ?? hubSettings();
    this.#hub = new Hub(new Requests(settings, options));
    this.#downloaded = new HubCache(settings.cache);
    this.#streamed = new HubCache(options.folder ?? settings.own);
    this.#limit = options.bytes ?? STREAM_CACHE_BYTES;
  }

  /** The commit that a revision means: as the hub says now, or without a network as it was known last.
   * @throws {DataError} when it cannot be had. */
  async commit({ repository, revision }: Pick<HubAddress, "repository" | "revision">): Promise<string> {
    if (this.#hub.requests.settings.offline) {
      const known = await this.#downloaded.commit(repository, revision) ??
        await this.#streamed.commit(repository, revision);
      if (known !== undefined) return known;
    }
    const commit = await this.#hub.commit(repository, revision);
    await claim(this.#streamed.folder);
    await this.#streamed.keepCommit(repository, revision, commit);
    return commit;
  }

  /** The files that an address names, sorted by path, at the commit that its revision means now.
   * @param accept whether a file is one of the dataset; a file that is named in full always is.
   * @throws {DataError} when there is none. */
  async find(address: HubAddress, accept: (path: string) => boolean): Promise<ShardFile[]> {
    const commit = await this.commit(address), { repository, path } = address;
    const pinned = { ...address, revision: commit };
    const isPattern = /[*?]/.test(path);
    const folder = isPattern
      ? path.split("/").slice(0, path.split("/").findIndex((part) => /[*?]/.test(part))).join("/")
      : path;
    const isWhole = !isPattern && /\.\w+$/.test(path);
    const files = isWhole
      ? [await this.#hub.file(repository, commit, path)]
      : await this.#hub.files(repository, commit, folder);
    const found = files.filter((file) => isWhole || accept(file.path) && (!isPattern || fitsAny(file.path, [path])));
    if (found.length > 0) {
      return found.sort((a, b) => a.path < b.path ? -1 : 1).map((file) => this.#shard(pinned, file.path, file));
    }
    throw new DataError({
      code: "empty_dataset",
      what: `None of the ${files.length} files of ${showAddress({ ...pinned, path: folder })} is one of the dataset`,
      expected: isPattern ? `files that ${path} names` : "files of documents",
      fix: "correct the path in the address",
    });
  }

  /** A file whose path is known; the hub is not asked before it is read.
   * @param commit at which it lies. */
  shard(repository: HubAddress["repository"], commit: string, path: string): ShardFile {
    return this.#shard({ repository, revision: commit, path: "" }, path);
  }

  #shard(pinned: HubAddress, path: string, known?: HubFile): ShardFile {
    const { repository, revision: commit } = pinned, hub = this.#hub;
    const identity = `${repository.name}@${commit}/${path}`;
    const about = async () =>
      known ??= await this.#streamed.known(repository, commit, path) ?? await hub.file(repository, commit, path);
    const downloaded = async (): Promise<ShardFile | undefined> => {
      const there = await this.#downloaded.find(repository, commit, path);
      return there === undefined ? undefined : shardFile(toUrl(there));
    };
    return {
      name: path.split("/").at(-1)!,
      location: showAddress({ ...pinned, path }),
      identity: () => Promise.resolve(identity),
      seek: seekStore(this.#streamed.folder, () => Promise.resolve(identity)),
      size: async () => await (await downloaded())?.size() ?? (await about()).size,
      open: async (from = 0) => {
        const there = await downloaded();
        if (there !== undefined) return await there.open(from);
        const file = await about();
        await claim(this.#streamed.folder);
        return await this.#stream(file, from);
      },
      distrust: async () => known !== undefined && await this.#streamed.forget(known),
      slice: async (start, end) =>
        await (await downloaded())?.slice(start, end) ?? await this.#part(await about(), start, end),
    };
  }

  /** The bytes of a file while they come. Where they begin behind what the cache has of it, nobody waits for what lies before: they are
   * asked for from there on, and not kept. */
  async #stream(file: HubFile, from: number): Promise<Readable> {
    const abort = new AbortController(), { signal } = abort;
    const chunks = from > await this.#streamed.reached(file)
      ? this.#hub.until(signal).bytes(file, from)
      : readShared(this.#hub, this.#streamed, file, { limit: this.#limit, from, signal });
    return new Readable({
      highWaterMark: CHUNK_BYTES,
      read() {
        chunks.next().then(({ done, value }) => this.push(done ? null : value), (error) => this.destroy(error));
      },
      destroy(error, closed) {
        abort.abort(new Error("The shard is closed"));
        chunks.return().then(() => closed(error), () => closed(error));
      },
    });
  }

  /** Some bytes of a file, which are not kept: formats that are read by place read each part once. */
  async #part(file: HubFile, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    const part = new Uint8Array(Math.max(0, Math.min(end, file.size) - start));
    let at = 0;
    if (part.length === 0) return part;
    for await (const chunk of this.#hub.bytes(file, start)) {
      part.set(chunk.subarray(0, part.length - at), at);
      at += chunk.length;
      if (at >= part.length) break;
    }
    return part;
  }
}
