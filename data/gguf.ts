/** The container format GGUF, in which llama.cpp keeps models: a header with typed keys and values, a table of tensors, then their bytes.
 * Only what is in the header is read here. Source: ggml's `docs/gguf.md`.
 * @module */
import { DataError } from "./error.ts";

/** A value of the header. */
export type GgufValue = number | boolean | string | readonly GgufValue[];

/** A tensor of a file. */
export interface GgufTensor {
  /** As ggml numbers its types. */
  readonly type: number;
  /** Sizes of the dims, row-major: ggml's order, turned around. */
  readonly shape: readonly number[];
  /** First byte, from the start of the file. */
  readonly begin: number;
}

/** What the header of a file says. */
export interface Gguf {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Bytes of the whole file. */
  readonly fileBytes: number;
}

/** The first four bytes of a file, `GGUF`. */
export const GGUF_MAGIC = 0x46554747;

/** Bytes that the beginning of the tensors is a multiple of, unless the header says otherwise. */
export const GGUF_ALIGNMENT = 32;

/** Numbers of the types of values that are written. */
export const ggufTypes = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;

/** How values of fixed size are read, by number. */
const SCALARS: Readonly<Record<number, readonly [bytes: number, read: (view: DataView, at: number) => GgufValue]>> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at) !== 0],
  10: [8, (view, at) => Number(view.getBigUint64(at, true))],
  11: [8, (view, at) => Number(view.getBigInt64(at, true))],
  12: [8, (view, at) => view.getFloat64(at, true)],
};

/** More dims has no tensor of ggml. */
const MOST_DIMS = 4;

/** Reads the header of a file.
 * @throws {DataError} when there is none, or it says what cannot be. */
export function readGguf(path: string): Gguf {
  using reader = new Reader(path);
  const { fileBytes } = reader;
  if (reader.u32() !== GGUF_MAGIC) throw reader.damaged('it does not begin with "GGUF"');
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    throw reader.wrong(
      version === 1 || version > 0xffff ? `it is of version 1, or big-endian` : `its version is ${version}`,
      "version 2 or 3, little-endian",
      "convert the model again with a recent llama.cpp",
    );
  }
  const numTensors = reader.u64(), numKeys = reader.u64();
  const metadata = new Map<string, GgufValue>(), placed: [string, GgufTensor][] = [];
  for (let n = 0; n < numKeys; n++) {
    const key = reader.string();
    metadata.set(key, reader.value(reader.u32()));
  }
  for (let n = 0; n < numTensors; n++) {
    const name = reader.string(), dims = reader.u32();
    if (dims > MOST_DIMS) throw reader.damaged(`tensor "${name}" would have ${dims} dims`);
    const shape = Array.from({ length: dims }, () => reader.u64()).reverse();
    placed.push([name, { shape, type: reader.u32(), begin: reader.u64() }]);
  }
  const alignment = metadata.get("general.alignment") ?? GGUF_ALIGNMENT;
  if (typeof alignment !== "number" || !(alignment > 0)) throw reader.damaged(`its alignment is ${alignment}`);
  const base = Math.ceil(reader.position / alignment) * alignment;
  const tensors = new Map(placed.map(([name, t]) => [name, { ...t, begin: base + t.begin }]));
  return { path, metadata, tensors, fileBytes };
}

/** Does a name say that it is such a file? */
export function isGgufName(path: string): boolean {
  return path.toLowerCase().endsWith(".gguf");
}

/** What is wrong with a file. */
export function ggufError(path: string, what: string, expected: string, fix: string): DataError {
  return new DataError({ code: "bad_gguf", what: `Cannot use ${path}: ${what}`, expected, fix });
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** Bytes that are read at once. */
const CHUNK = 1 << 20;

/** Reads a header from front to back. */
class Reader implements Disposable {
  readonly fileBytes: number;
  readonly #file: Deno.FsFile;
  #view = new DataView(new ArrayBuffer(0));
  /** Where the view stands in the file, and where in it comes next. */
  #begin = 0;
  #at = 0;

  constructor(readonly path: string) {
    try {
      this.#file = Deno.openSync(path);
    } catch (error) {
      throw ggufError(path, (error as Error).message, "a GGUF file that this process may read", "correct the path");
    }
    this.fileBytes = this.#file.statSync().size;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }

  /** First byte behind what was read. */
  get position(): number {
    return this.#begin + this.#at;
  }

  wrong(what: string, expected: string, fix: string): DataError {
    return ggufError(this.path, what, expected, fix);
  }

  damaged(what: string): DataError {
    return this.wrong(what, "a GGUF file with all of its bytes", "fetch it again");
  }

  /** Takes bytes; returns where they begin in the view. */
  #take(bytes: number): number {
    if (this.#at + bytes > this.#view.byteLength) this.#read(bytes);
    this.#at += bytes;
    return this.#at - bytes;
  }

  #read(bytes: number): void {
    const begin = this.position, left = this.fileBytes - begin;
    if (!(bytes <= left)) throw this.damaged(`its header goes on behind its ${this.fileBytes} bytes`);
    const into = new Uint8Array(Math.min(left, Math.max(bytes, CHUNK)));
    this.#file.seekSync(begin, Deno.SeekMode.Start);
    for (let at = 0; at < into.length;) {
      const read = this.#file.readSync(into.subarray(at));
      if (read === null) throw this.damaged("it became shorter while it was read");
      at += read;
    }
    this.#view = new DataView(into.buffer);
    [this.#begin, this.#at] = [begin, 0];
  }

  u32(): number {
    const at = this.#take(4);
    return this.#view.getUint32(at, true);
  }

  u64(): number {
    const at = this.#take(8);
    return Number(this.#view.getBigUint64(at, true));
  }

  string(): string {
    const length = this.u64(), at = this.#take(length);
    return decoder.decode(new Uint8Array(this.#view.buffer, at, length));
  }

  value(type: number): GgufValue {
    if (type === ggufTypes.string) return this.string();
    if (type === ggufTypes.array) {
      const of = this.u32(), length = this.u64(), values: GgufValue[] = [];
      if (of === ggufTypes.array) throw this.damaged("a value of its header is a list of lists");
      // No value is smaller than a byte, so a length that is none ends at the end of the file.
      for (let n = 0; n < length; n++) values.push(this.value(of));
      return values;
    }
    if (!(type in SCALARS)) throw this.damaged(`a value of its header has the type ${type}`);
    const [bytes, read] = SCALARS[type], at = this.#take(bytes);
    return read(this.#view, at);
  }
}
