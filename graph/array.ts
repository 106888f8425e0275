/** Small dense f64 arrays: what the reference meanings of ops are written on. Row-major; integers are held as f64.
 * @module */
import { numel } from "./ir.ts";

/** A row-major array. */
export interface Arr {
  /** Sizes of the dims, outermost first; `[]` is a scalar. */
  readonly shape: readonly number[];
  /** The elements in row-major order, as many as the product of the sizes. */
  readonly data: Float64Array;
}

/** An array of zeros, or of the given data. */
export function arr(shape: readonly number[], data: ArrayLike<number> = new Float64Array(numel(shape))): Arr {
  return { shape, data: data instanceof Float64Array ? data : Float64Array.from(data) };
}

/** Row-major strides, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

const float = new Float32Array(1), bits = new Uint32Array(float.buffer);

/** The nearest bf16 (ties to even) of a number that is first an f32. */
export function roundBf16(x: number): number {
  float[0] = x;
  if (!Number.isNaN(x)) bits[0] = bits[0] + 0x7fff + (bits[0] >>> 16 & 1) & 0xffff0000;
  return float[0];
}

/** The nearest number of each type that is narrower than f32. */
const nearest: Readonly<Record<string, (x: number) => number>> = { bf16: roundBf16 };

/** An array whose elements are rounded to a type narrower than f32.
 * @throws {RangeError} when there is none of that name. */
export function roundedTo(dtype: string, { shape, data }: Arr): Arr {
  const round = nearest[dtype];
  if (!round) throw new RangeError(`Cannot round to "${dtype}": expected ${Object.keys(nearest).join(" or ")}`);
  return { shape, data: data.map(round) };
}

/** Calls `visit` with the flat offset of each index of `shape` in every stride system, in row-major order. */
export function forEachIndex(
  shape: readonly number[],
  systems: readonly (readonly number[])[],
  visit: (offsets: number[], flat: number) => void,
): void {
  const index = shape.map(() => 0);
  const offsets = systems.map(() => 0);
  const total = numel(shape);
  for (let flat = 0; flat < total; flat++) {
    visit(offsets, flat);
    for (let d = shape.length - 1; d >= 0; d--) {
      index[d]++;
      systems.forEach((strides, s) => offsets[s] += strides[d]);
      if (index[d] < shape[d]) break;
      systems.forEach((strides, s) => offsets[s] -= strides[d] * shape[d]);
      index[d] = 0;
    }
  }
}

/** A new array whose element is `f` of the elements of arrays of one shape. */
export function zip(arrays: readonly Arr[], f: (...x: number[]) => number): Arr {
  const out = arr(arrays[0].shape);
  const args = arrays.map(() => 0);
  for (let i = 0; i < out.data.length; i++) {
    for (let k = 0; k < arrays.length; k++) args[k] = arrays[k].data[i];
    out.data[i] = f(...args);
  }
  return out;
}
