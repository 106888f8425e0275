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

/** The nearest float8 (ties to even) of a number that is first an f32: `least` is the distance of the smallest numbers, `normal` the least
 * that has all bits of `mantissa`. From `tooLarge` on, it is `largest`. */
function float8(mantissa: number, normal: number, tooLarge: number, largest: number): (x: number) => number {
  const least = normal * 2 ** -mantissa;
  return (x) => {
    float[0] = x;
    const size = Math.abs(float[0]);
    if (Number.isNaN(size)) return NaN;
    if (size >= tooLarge) return float[0] < 0 ? -largest : largest;
    // The exponent of an f32 lies in its bits from 23 on.
    const step = size < normal ? least : 2 ** ((bits[0] >>> 23 & 0xff) - 127 - mantissa);
    const whole = size / step, floor = Math.floor(whole), rest = whole - floor;
    const rounded = (rest > 0.5 || rest === 0.5 && floor % 2 === 1 ? floor + 1 : floor) * step;
    return bits[0] >>> 31 ? -rounded : rounded;
  };
}

/** The nearest number of each type that is narrower than f32: f8e4m3 has no infinities, so that what is too large becomes its largest. */
const nearest: Readonly<Record<string, (x: number) => number>> = {
  bf16: roundBf16,
  f8e4m3: float8(3, 2 ** -6, 464, 448),
  f8e5m2: float8(2, 2 ** -14, 61440, Infinity),
};

/** The nearest number of a type that is narrower than f32.
 * @throws {RangeError} when there is none of that name. */
export function nearestOf(dtype: string): (x: number) => number {
  const round = nearest[dtype];
  if (!round) throw new RangeError(`Cannot round to "${dtype}": expected ${Object.keys(nearest).join(" or ")}`);
  return round;
}

/** An array whose elements are rounded to a type narrower than f32.
 * @throws {RangeError} when there is none of that name. */
export function roundedTo(dtype: string, { shape, data }: Arr): Arr {
  return { shape, data: data.map(nearestOf(dtype)) };
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
