/** Numbers as they lie in native memory.
 * @module */
import { nearestOf } from "../graph/array.ts";
import { type DType, dtypeBytes, type Float8, isStored, numel, sizeBytes, type Type } from "../graph/ir.ts";
import { blockFormats, type BlockType, decodeBlocks, isBlockType } from "./weights/gguf_blocks.ts";

/** Element types that files are written in: ours, and `f16`, in which nothing is computed. */
export type StoredType = DType | "f16";

/** Element types that are read from files: those, and the block formats of GGUF. */
export type FileType = StoredType | BlockType;

/** Bytes of one element. */
export const storedBytes: Readonly<Record<StoredType, number>> = { ...dtypeBytes, f16: 2 };

/** The least that can be read of a file's tensor: an element, or a block of them. */
export function unitOf(type: FileType): { readonly elements: number; readonly bytes: number } {
  return isBlockType(type) ? blockFormats[type] : { elements: 1, bytes: storedBytes[type] };
}

/** Bytes of a number of elements in a file. */
export function fileBytes(type: FileType, count: number): number {
  const { elements, bytes } = unitOf(type);
  return count / elements * bytes;
}

/** The type of ours that has all numbers of a file's type. */
export function computedType(type: FileType): DType {
  return type === "f16" || isBlockType(type) ? "f32" : type;
}

/** Numbers of a tensor, row-major, in its element type; bf16 and float8 as bits. */
export type TypedArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>;

/** A typed array over part of a buffer. */
export function typedArray(dtype: DType, buffer: ArrayBuffer, byteOffset: number, length: number): TypedArray {
  const Kind = {
    ...{ f32: Float32Array, f64: Float64Array, bf16: Uint16Array, i32: Int32Array },
    ...{ f8e4m3: Uint8Array, f8e5m2: Uint8Array },
  }[dtype];
  return new Kind(buffer, byteOffset, length);
}

/** Zeros of a type. */
export function newArray(type: Type): TypedArray {
  return typedArray(type.dtype, new ArrayBuffer(sizeBytes(type)), 0, numel(type.shape));
}

/** All numbers of float8 from 0 on, by their bits; the last ones are no numbers. */
const float8Numbers: Readonly<Record<Float8, readonly number[]>> = {
  f8e4m3: float8Table(3, 7, false),
  f8e5m2: float8Table(2, 15, true),
};

function float8Table(mantissa: number, bias: number, hasInfinity: boolean): number[] {
  const size = 2 ** mantissa, end = 2 ** (7 - mantissa) - 1;
  return Array.from({ length: 128 }, (_, octet) => {
    const exponent = Math.floor(octet / size), fraction = octet % size / size;
    if (exponent === 0) return fraction * 2 ** (1 - bias);
    if (exponent === end && hasInfinity) return fraction === 0 ? Infinity : NaN;
    if (octet === 0x7f) return NaN;
    return (1 + fraction) * 2 ** (exponent - bias);
  });
}

/** Puts numbers into an array of an element type; bf16 and float8 take the nearest, ties to even. */
export function setNumbers(array: TypedArray, dtype: DType, numbers: ArrayLike<number>): void {
  if (dtype === "f8e4m3" || dtype === "f8e5m2") {
    const bits = new Map(float8Numbers[dtype].map((x, octet) => [x, octet]).reverse() as [number, number][]);
    const nearest = nearestOf(dtype);
    for (let i = 0; i < numbers.length; i++) {
      const x = nearest(numbers[i]), isNegative = x < 0 || Object.is(x, -0);
      array[i] = (Number.isNaN(x) ? 0x7f : bits.get(Math.abs(x))!) | (isNegative ? 0x80 : 0);
    }
    return;
  }
  if (dtype !== "bf16") return array.set(numbers);
  const { buffer, byteOffset, length } = numbers instanceof Float32Array ? numbers : Float32Array.from(numbers);
  const bits = new Uint32Array(buffer, byteOffset, length);
  // A loop, as a callback takes ten times as long: all that is loaded and saved passes here.
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i], isNaN = (x & 0x7fffffff) > 0x7f800000;
    array[i] = isNaN ? x >>> 16 | 0x40 : x + 0x7fff + (x >>> 16 & 1) >>> 16;
  }
}

/** A copy of the numbers in an array of an element type; bf16 and float8 as f32. */
export function numbersOf(array: TypedArray, dtype: DType): TypedArray {
  if (dtype === "f8e4m3" || dtype === "f8e5m2") {
    const sizes = float8Numbers[dtype];
    return Float32Array.from(array, (octet) => octet < 0x80 ? sizes[octet] : -sizes[octet - 0x80]);
  }
  if (dtype !== "bf16") return array.slice();
  const bits = new Uint32Array(array.length);
  for (let i = 0; i < bits.length; i++) bits[i] = array[i] << 16;
  return new Float32Array(bits.buffer);
}

/** The bytes of elements in another type: the nearest values that it has, ties to even.
 * @throws {RangeError} when a finite number would be infinite in f16, whose numbers end at 65504. */
export function converted(bytes: Uint8Array<ArrayBuffer>, from: FileType, to: StoredType): Uint8Array<ArrayBuffer> {
  if (from === to) return bytes;
  const numbers = numbersIn(bytes, from), { length } = numbers;
  const made = new Uint8Array(length * storedBytes[to]);
  if (to === "f16") setHalves(new Float16Array(made.buffer), numbers);
  else setNumbers(typedArray(to, made.buffer, 0, length), to, numbers);
  return made;
}

/** The numbers that bytes are, where they lie if they can be read there; bf16, f16 and blocks as f32. */
function numbersIn(bytes: Uint8Array<ArrayBuffer>, from: FileType): TypedArray {
  if (isBlockType(from)) return decodeBlocks(bytes, from);
  const size = storedBytes[from], length = bytes.length / size;
  const { buffer, byteOffset } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  if (from === "f16") return new Float32Array(new Float16Array(buffer, byteOffset, length));
  const array = typedArray(from, buffer, byteOffset, length);
  return isStored(from) ? numbersOf(array, from) : array;
}

function setHalves(halves: Float16Array<ArrayBuffer>, numbers: TypedArray): void {
  for (let i = 0; i < numbers.length; i++) {
    const size = Math.abs(numbers[i]);
    // From here on the nearest value is infinity.
    if (size < 65520 || size === Infinity || Number.isNaN(size)) continue;
    throw new RangeError(`${numbers[i]} is too large for f16, whose numbers end at 65504`);
  }
  halves.set(numbers);
}
