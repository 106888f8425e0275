/** Reading blocks of files, and hashing each while the processor's cache has it.
 * @module */
import { createHash } from "node:crypto";
import { HASH_BYTES, NativeFile } from "../../ffi/file.ts";
import type { Program, Stretch } from "../../ffi/program.ts";
import { openToRead } from "../weights/safetensors.ts";
import { CheckpointError } from "./error.ts";

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
export interface BlockReader extends Disposable {
  /** Reads them into the memory that is given, one behind the other.
   * @throws {CheckpointError} when a file cannot be read. */
  read(parts: readonly Part[], into: Uint8Array<ArrayBuffer>, hashed: boolean): Promise<PartRead[]>;
  /** Reads them straight to their places, if this reader can. The bytes are there before their hashes are known.
   * @throws {CheckpointError} when a file cannot be read. */
  readonly place?: (parts: readonly PlacedPart[], hashed: boolean) => Promise<PartRead[]>;
}

/** So many stretches of files are gone through side by side. Each has an open file of its own, of which the system reads ahead. */
export const LANES = 2;

const PIECE_BYTES = 512 << 10;

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

/** Reads with this thread, and needs no native library. */
export function readerHere(): BlockReader {
  const files = new OpenFiles<Deno.FsFile>();
  const readPart = (file: Deno.FsFile, start: number, into: Uint8Array<ArrayBuffer>, hashed: boolean): PartRead => {
    const hash = hashed ? createHash("sha256") : undefined;
    file.seekSync(start, Deno.SeekMode.Start);
    for (let at = 0; at < into.length;) {
      const piece = into.subarray(at, at + PIECE_BYTES), read = file.readSync(piece);
      if (read === null) return { length: at, hash: undefined };
      hash?.update(piece.subarray(0, read));
      at += read;
    }
    return { length: into.length, hash: hash?.digest("hex") };
  };
  return {
    async read(parts, into, hashed) {
      const read: PartRead[] = [];
      for (const [i, { lane, path, start, bytes }] of parts.entries()) {
        const file = await files.at(lane, path, openToRead);
        read.push(readPart(file, start, into.subarray(i * bytes, (i + 1) * bytes), hashed));
      }
      return read;
    },
    [Symbol.dispose]: () => files[Symbol.dispose](),
  };
}

/** Reads beside the event loop, and hashes parts side by side, which is quicker than one after the other.
 * @param memory that parts are placed in. */
export function nativeReader(memory: Loadable = {}): BlockReader {
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
