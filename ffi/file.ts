/** Reading files beside the event loop.
 * @module */
import { holding, unsigned } from "./buffer.ts";
import { check, errorStruct } from "./error.ts";
import { library, type Symbols } from "./library.ts";

/** Length of a SHA-256 in bytes. */
export const HASH_BYTES = 32;

/** A part of a file. */
export interface FilePart {
  readonly file: NativeFile;
  /** First byte in the file. */
  readonly start: number;
}

/** A file that is open to be read: quickest from front to back. */
export class NativeFile implements Disposable {
  readonly #symbols: Symbols = library().symbols;
  /** The native side's name of it. */
  readonly handle: bigint;

  private constructor(handle: bigint) {
    this.handle = handle;
  }

  /** Opens it.
   * @throws {TitanError} `INVALID_ARGUMENT` when it cannot be read. */
  static async open(path: string): Promise<NativeFile> {
    const error = errorStruct(), handle = new BigUint64Array(1), name = new TextEncoder().encode(`${path}\0`);
    const call = library().symbols.titan_file_open(name, handle, error.bytes);
    check(await holding([name, handle, error.bytes], call), error);
    return new NativeFile(handle[0]);
  }

  /** Reads one part, or up to four of one length at a time, which hashes them quicker: one behind the other into `into`.
   * @param hashes gets the SHA-256 of each; that of a part which is shorter means nothing.
   * @returns how many bytes there were of each: fewer where its file ends before.
   * @throws {TitanError} `INVALID_ARGUMENT` when a file cannot be read. @throws {RangeError} where hashes have no room. */
  static async read(
    parts: readonly FilePart[],
    into: Uint8Array<ArrayBuffer>,
    hashes: Uint8Array<ArrayBuffer> | null = null,
  ): Promise<number[]> {
    const { files, starts, read } = partArguments(parts, hashes), error = errorStruct();
    if (into.length % parts.length !== 0) {
      throw new RangeError(
        `There is room for ${into.length} bytes\n  expected: as much for each of ${parts.length} parts`,
      );
    }
    const call = library().symbols.titan_file_read(
      ...[files, starts, parts.length, into, BigInt(into.length / parts.length), hashes, read, error.bytes] as const,
    );
    check(await holding([files, starts, into, read, error.bytes, ...(hashes ? [hashes] : [])], call), error);
    return Array.from(read, Number);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    const error = errorStruct();
    check(this.#symbols.titan_file_close(this.handle, error.bytes), error);
  }
}

/** What native calls are told of parts, and where they tell how much there was of each.
 * @throws {RangeError} where hashes have no room. */
export function partArguments(parts: readonly FilePart[], hashes: Uint8Array<ArrayBuffer> | null) {
  if (hashes && hashes.length < parts.length * HASH_BYTES) {
    throw new RangeError(
      `There is room for ${hashes.length} bytes of hashes\n  expected: ${HASH_BYTES} for each of ${parts.length} parts`,
    );
  }
  return {
    files: BigUint64Array.from(parts, ({ file }) => file.handle),
    starts: BigUint64Array.from(parts, ({ start }) => BigInt(unsigned(start, "start"))),
    read: new BigUint64Array(parts.length),
  };
}
