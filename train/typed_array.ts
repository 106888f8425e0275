/** Numbers as they lie in native memory.
 * @module */
import { type DType, dtypeBytes, numel, sizeBytes, type Type } from "../graph/ir.ts";

/** Element types of files: ours, and `f16`, which is read alone. */
export type StoredType = DType | "f16";

/** Bytes of one element. */
export const storedBytes: Readonly<Record<StoredType, number>> = { ...dtypeBytes, f16: 2 };

/** Numbers of a tensor, row-major, in its element type; bf16 as bits. */
export type TypedArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>;

/** A typed array over part of a buffer. */
export function typedArray(dtype: DType, buffer: ArrayBuffer, byteOffset: number, length: number): TypedArray {
  const Kind = { f32: Float32Array, f64: Float64Array, bf16: Uint16Array, i32: Int32Array }[dtype];
  return new Kind(buffer, byteOffset, length);
}

/** Zeros of a type. */
export function newArray(type: Type): TypedArray {
  return typedArray(type.dtype, new ArrayBuffer(sizeBytes(type)), 0, numel(type.shape));
}

/** Puts numbers into an array of an element type; bf16 takes the nearest, ties to even. */
export function setNumbers(array: TypedArray, dtype: DType, numbers: ArrayLike<number>): void {
  if (dtype !== "bf16") return array.set(numbers);
  const bits = new Uint32Array(Float32Array.from(numbers).buffer);
  const isNaN = (x: number) => (x & 0x7fffffff) > 0x7f800000;
  bits.forEach((x, i) => array[i] = isNaN(x) ? x >>> 16 | 0x40 : x + 0x7fff + (x >>> 16 & 1) >>> 16);
}

/** A copy of the numbers in an array of an element type; bf16 as f32. */
export function numbersOf(array: TypedArray, dtype: DType): TypedArray {
  if (dtype !== "bf16") return array.slice();
  return new Float32Array(Uint32Array.from(array, (x) => x << 16).buffer);
}

/** The bytes of elements in another type: the nearest values that it has. */
export function converted(bytes: Uint8Array<ArrayBuffer>, from: StoredType, to: DType): Uint8Array<ArrayBuffer> {
  if (from === to) return bytes;
  const length = bytes.length / storedBytes[from], copy = bytes.slice(); // at the start of a buffer, as views must be aligned
  const numbers = from === "f16"
    ? Float32Array.from(new Float16Array(copy.buffer, 0, length))
    : numbersOf(typedArray(from, copy.buffer, 0, length), from);
  const made = new Uint8Array(length * dtypeBytes[to]);
  setNumbers(typedArray(to, made.buffer, 0, length), to, numbers);
  return made;
}
