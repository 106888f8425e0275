/** Reading chunks of files, and hashing each while the processor's cache has it.
 * @module */
import { HASH_BYTES, NativeFile } from "../../ffi/file.ts";
import type { Program, Stretch } from "../../ffi/program.ts";
import { openToRead, readFully } from "../weights/safetensors.ts";
import { CheckpointError } from "./error.ts";
import { digest } from "./files.ts";

/** A part of a file that is read at once. */
export interface Part {
  /** From 0 to {@linkcode LANES}: which of the stretches it is of that are gone through. */
  readonly lane: number;
  readonly path: string;
  /** First byte in the file. */
  readonly start: number;
  readonly bytes: number;
}

/** A part of which each stretch has a place in native memory. */
export interface PlacedPart extends Part {
  readonly stretches: readonly Stretch[];
}

/** What was read of a part. */
export interface PartRead {
  /** Fewer bytes than asked for where the file ends before. */
  readonly length: number;
  /** SHA-256 in hex, where it is wanted and the part is whole. */
  readonly hash: string | undefined;
}

/** Memory that parts of files can be read into, if it is native. */
export interface Loadable {
  /** As {@linkcode Program.load} does. */
  readonly load?: Program["load"];
}

/** Reads files, each from front to back: parts of one length, each of another lane. */
export interface ChunkReader extends Disposable {
  /** Reads them into the memory that is given, one behind the other.
   * @throws {CheckpointError} when a file cannot be read. */
  read(parts: readonly Part[], into: Uint8Array<ArrayBuffer>, hashed: boolean): Promise<PartRead[]>;
  /** Reads them straight to their places, if this reader can. The bytes are there before their hashes are known.
   * @throws {CheckpointError} when a file cannot be read. */
  readonly place?: (parts: readonly PlacedPart[], hashed: boolean) => Promise<PartRead[]>;
}

/** A reader goes through so many runs of chunks side by side. Each has an open file of its own, of which the system reads ahead. */
const LANES = 4;

/** So many readers work at once: two keep two processors busy, and two more the disk while those compare. */
const READERS = 4;

/** A chunk that is to be read. */
export interface Chunk extends Omit<Part, "lane"> {
  /** Is its hash wanted? */
  readonly hashed: boolean;
  /** Where all of it goes, if that is known. */
  readonly stretches?: readonly Stretch[];
}

const isPlaced = <B extends Chunk>(chunk: B): chunk is B & Pick<PlacedPart, "stretches"> => !!chunk.stretches;

/** Reads chunks, those of a file from front to back. The first failure ends it, whoever it is of.
 * @param chunks in the order of their files.
 * @param visit is told what was read of each, and its bytes unless they went to their places; another chunk is read over them next.
 * @throws {CheckpointError} when a file cannot be read. */
export async function readChunks<B extends Chunk>(
  chunks: readonly B[],
  open: () => ChunkReader,
  visit: (chunk: B, read: PartRead, bytes?: Uint8Array<ArrayBuffer>) => void | Promise<void>,
): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const readAll = async (runs: readonly (readonly B[])[]) => {
    using reader = open();
    let room = new Uint8Array(); // grows when chunks need it, as most go straight to their places
    for (let i = 0; runs.some((run) => i < run.length); i++) {
      const next = runs.flatMap((run, lane) => i < run.length ? [{ ...run[i], lane }] : []);
      const kind = ({ bytes, hashed, stretches }: B) => `${bytes} ${hashed} ${stretches !== undefined}`;
      for (const alike of Map.groupBy(next, kind).values()) {
        if (failure) return;
        const [{ bytes, hashed }] = alike;
        if (reader.place && alike.every(isPlaced)) {
          const read = await reader.place(alike, hashed);
          for (const [k, chunk] of alike.entries()) await visit(chunk, read[k]);
          continue;
        }
        if (room.length < alike.length * bytes) room = new Uint8Array(alike.length * bytes);
        const read = await reader.read(alike, room, hashed);
        for (const [k, chunk] of alike.entries()) {
          await visit(chunk, read[k], room.subarray(k * bytes, (k + 1) * bytes));
        }
      }
    }
  };
  const bound = (k: number) => Math.round(chunks.length * k / (READERS * LANES));
  const runs = Array.from({ length: READERS * LANES }, (_, k) => chunks.slice(bound(k), bound(k + 1)));
  await Promise.all(Array.from({ length: READERS }, (_, k) => {
    return readAll(runs.slice(k * LANES, (k + 1) * LANES)).catch((error) => failure ??= { error });
  }));
  if (failure) throw (failure as { readonly error: unknown }).error;
}

/** The open files of the lanes. */
class OpenFiles<File extends Disposable> implements Disposable {
  readonly #lanes: { path: string; file: File }[] = [];

  /** The lane's file, opened where the lane had another. */
  async at(lane: number, path: string, open: (path: string) => File | Promise<File>): Promise<File> {
    const old = this.#lanes[lane];
    if (old?.path === path) return old.file;
    delete this.#lanes[lane];
    old?.file[Symbol.dispose]();
    return (this.#lanes[lane] = { path, file: await open(path) }).file;
  }

  [Symbol.dispose](): void {
    for (const lane of this.#lanes) lane?.file[Symbol.dispose]();
  }
}

/** Reads with this thread, hashes with those of the system's library, and needs no native library. */
export function readerHere(): ChunkReader {
  const files = new OpenFiles<Deno.FsFile>();
  return {
    async read(parts, into, hashed) {
      const read: Promise<PartRead>[] = [];
      for (const [i, { lane, path, start, bytes }] of parts.entries()) {
        const file = await files.at(lane, path, openToRead), part = into.subarray(i * bytes, (i + 1) * bytes);
        file.seekSync(start, Deno.SeekMode.Start);
        const length = readFully(file, part), isHashed = hashed && length === bytes;
        read.push((isHashed ? digest(part) : Promise.resolve(undefined)).then((hash) => ({ length, hash })));
      }
      return await Promise.all(read);
    },
    [Symbol.dispose]: () => files[Symbol.dispose](),
  };
}

/** Reads beside the event loop, and hashes parts side by side, which is quicker than one after the other.
 * @param memory that parts are placed in. */
export function nativeReader(memory: Loadable = {}): ChunkReader {
  const files = new OpenFiles<NativeFile>();
  const open = (path: string) => {
    openToRead(path).close(); // Deno's permissions hold, and its errors
    return NativeFile.open(path);
  };
  type Work = (files: readonly NativeFile[], hashes: Uint8Array<ArrayBuffer> | null) => Promise<number[]>;
  const onFiles = async (parts: readonly Part[], hashed: boolean, work: Work): Promise<PartRead[]> => {
    const hashes = hashed ? new Uint8Array(parts.length * HASH_BYTES) : null, opened: NativeFile[] = [];
    for (const { lane, path } of parts) opened.push(await files.at(lane, path, open));
    const read = await work(opened, hashes).catch((error) => {
      throw new CheckpointError(
        (error as Error).message.split("\n")[0],
        "a file that this process may read",
        "put it back, or choose another checkpoint",
      );
    });
    return read.map((length, i) => ({
      length,
      hash: length === parts[i].bytes ? hashes?.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES).toHex() : undefined,
    }));
  };
  return {
    read: (parts, into, hashed) =>
      onFiles(parts, hashed, (files, hashes) => {
        const opened = parts.map(({ start }, i) => ({ file: files[i], start }));
        return NativeFile.read(opened, into.subarray(0, parts.length * parts[0].bytes), hashes);
      }),
    place: memory.load && ((parts, hashed) =>
      onFiles(parts, hashed, (files, hashes) => {
        const opened = parts.map(({ start, stretches }, i) => ({ file: files[i], start, stretches }));
        return memory.load!(opened, parts[0].bytes, hashes);
      })),
    [Symbol.dispose]: () => files[Symbol.dispose](),
  };
}
