/** The safetensors format: eight bytes with the length of a JSON header, the header, then the tensors' bytes, little-endian and
 * row-major. Source: https://github.com/huggingface/safetensors, "Format".
 * @module */
import { createHash } from "node:crypto";
import { converted, type StoredType } from "../typed_array.ts";
import { CheckpointError } from "../checkpoint/error.ts";

/** A tensor in a file. */
export interface TensorEntry {
  /** As the format spells it: `F32`, `BF16`, ... */
  readonly dtype: string;
  /** Sizes of the dims of what the file holds. */
  readonly shape: readonly number[];
  /** First byte, and the one behind the last, from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

/** What the header of a file says. */
export interface Header {
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Texts that belong to the whole file. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of the whole file. */
  readonly fileBytes: number;
}

/** The format's names of the element types that are read and written. */
export const formatTypes: Readonly<Record<StoredType, string>> = {
  ...{ f32: "F32", f64: "F64", bf16: "BF16", f16: "F16", i32: "I32" },
  ...{ f8e4m3: "F8_E4M3", f8e5m2: "F8_E5M2" },
};

/** Those that are read, by the format's name: float8 in files has scales beside it, without which it means nothing. */
export const typesOfFormat: Readonly<Record<string, StoredType>> = Object.fromEntries(
  Object.entries(formatTypes).filter(([, name]) => !name.startsWith("F8")).map((
    [dtype, name],
  ) => [name, dtype as StoredType]),
);

/** Bytes of one element of the types that the format knows. */
export const elementBytes: Readonly<Record<string, number>> = {
  ...{ F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4, F16: 2, BF16: 2, I16: 2, U16: 2 },
  ...{ F8_E4M3: 1, F8_E5M2: 1, I8: 1, U8: 1, BOOL: 1 },
};

/** A longer header is no header: the format allows 100 MB. */
const MOST_HEADER_BYTES = 100_000_000;

/** A tensor that is to be written. */
export interface NewTensor {
  readonly name: string;
  readonly dtype: StoredType;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** The first bytes of a file, and where its tensors lie: in the order given, one right after another. The header is padded with
 * spaces so that the first one begins at a multiple of 8.
 * @param metadata texts that belong to the whole file. */
export function encodeHeader(
  tensors: readonly NewTensor[],
  metadata: Readonly<Record<string, string>>,
): { readonly bytes: Uint8Array<ArrayBuffer>; readonly header: Header } {
  let at = 0;
  const entries: Record<string, unknown> = { __metadata__: metadata };
  const relative = new Map<string, TensorEntry>();
  for (const { name, dtype, shape, bytes } of tensors) {
    const type = formatTypes[dtype];
    entries[name] = { dtype: type, shape, data_offsets: [at, at + bytes] };
    relative.set(name, { dtype: type, shape, begin: at, end: at + bytes });
    at += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(entries)), length = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  const base = bytes.length;
  const placed = [...relative].map(([name, e]) => [name, { ...e, begin: base + e.begin, end: base + e.end }] as const);
  return { bytes, header: { tensors: new Map(placed), metadata, fileBytes: base + at } };
}

/** The bytes of a part of a tensor in the type that a file is to have it in.
 * @throws {CheckpointError} with the tensor's name, when that type does not reach as far as its numbers. */
export function encodeElements(
  bytes: Uint8Array<ArrayBuffer>,
  { name, from, to }: { readonly name: string; readonly from: StoredType; readonly to: StoredType },
): Uint8Array<ArrayBuffer> {
  try {
    return converted(bytes, from, to);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new CheckpointError(
      `Cannot write "${name}": ${error.message}`,
      "values from -65504 to 65504",
      "write bf16, which reaches as far as f32, or f32 itself",
    );
  }
}

/** Reads the header of a file.
 * @param hash the SHA-256 that it has to have, its length before it included; default: it is not compared.
 * @throws {CheckpointError} when it is none, or says what cannot be: the file is then no safetensors file, or damaged. */
export function readHeader(path: string, hash?: string): Header {
  using file = openToRead(path);
  const fileBytes = file.statSync().size, start = new Uint8Array(8);
  const damaged = (what: string) => notSafetensors(path, what);
  if (readFully(file, start) < 8) throw damaged(`it has ${fileBytes} bytes`);
  const length = Number(new DataView(start.buffer).getBigUint64(0, true));
  if (!(length >= 2 && length <= MOST_HEADER_BYTES && 8 + length <= fileBytes)) {
    throw damaged(`its header would be ${length} of its ${fileBytes} bytes long`);
  }
  const json = new Uint8Array(length);
  readFully(file, json);
  if (hash !== undefined && createHash("sha256").update(start).update(json).digest("hex") !== hash) {
    throw damaged("its header is not the one that was written");
  }
  let entries: Record<string, unknown>;
  try {
    entries = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (error) {
    throw damaged(`its header is no JSON: ${(error as Error).message}`);
  }
  const { __metadata__: metadata = {}, ...rest } = entries;
  const base = 8 + length, tensors = new Map<string, TensorEntry>();
  for (const [name, value] of Object.entries(rest)) {
    const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
    const isShape = Array.isArray(shape) && shape.every((d) => Number.isSafeInteger(d) && d >= 0);
    const size = isShape
      ? shape.reduce((n: number, d: number) => n * d, 1) * (elementBytes[dtype as string] ?? NaN)
      : NaN;
    const [begin, end] = Array.isArray(offsets) ? offsets as number[] : [NaN, NaN];
    if (!(begin >= 0 && end - begin === size && base + end <= fileBytes)) {
      throw damaged(`tensor "${name}" is ${dtype}[${shape}] at bytes ${begin} to ${end} of ${fileBytes - base}`);
    }
    tensors.set(name, { dtype: dtype as string, shape: shape as number[], begin: base + begin, end: base + end });
  }
  return { tensors, metadata: metadata as Record<string, string>, fileBytes };
}

/** Opens a file of a checkpoint.
 * @throws {CheckpointError} that says what is wrong with it. */
export function openToRead(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path);
  } catch (error) {
    throw new CheckpointError(
      `Cannot read ${path}: ${(error as Error).message}`,
      "a file that this process may read",
      "put it back, or choose another checkpoint",
    );
  }
}

/** Fills `into` from where the file stands, as far as the file goes; returns the bytes read. */
export function readFully(file: Deno.FsFile, into: Uint8Array): number {
  let at = 0;
  while (at < into.length) {
    const read = file.readSync(into.subarray(at));
    if (read === null) break;
    at += read;
  }
  return at;
}

function notSafetensors(path: string, what: string): CheckpointError {
  return new CheckpointError(
    `${path} is no safetensors file, or is damaged: ${what}`,
    "a header as the format describes it, and all bytes that it names",
    "fetch or write the file again, or choose another checkpoint",
  );
}
