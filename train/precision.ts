/** Which element types a run takes, by what it is asked for and by what the device does fast.
 * @module */
import { fullPrecision, type Precision } from "../graph/passes/precision.ts";
import type { RealType } from "./step.ts";

/** Processor levels that multiply bf16 themselves; all GPUs do that libtitan compiles for. */
const nativeLevels: ReadonlySet<string> = new Set(["amx", "avx512_bf16", "neon_bf16"]);

/** What decides about bf16. */
export interface BySpeed {
  /** Processor level of the kernels. */
  readonly level: string;
  /** Name of the processor. */
  readonly processor: string;
}

/** Does the device multiply bf16 itself? */
export function multipliesBf16({ level }: BySpeed): boolean {
  return nativeLevels.has(level) || level.startsWith("sm_");
}

/** Is that faster than f32? Without tiles, Intel's processors multiply vectors of bf16 at half the rate of f32 (measured: 0.23 against
 * 0.46 TFLOP/s), AMD's at twice the rate. Those of arm64 were not measured, so there it has to be asked for. */
export function isFasterInBf16(device: BySpeed): boolean {
  if (device.level === "neon_bf16") return false;
  return multipliesBf16(device) && (device.level !== "avx512_bf16" || !device.processor.startsWith("Intel"));
}

/** Does the device multiply float8 itself? */
export function multipliesFloat8({ level }: BySpeed): boolean {
  return level.startsWith("sm_") && Number(level.slice("sm_".length)) >= 89;
}

/** Precision of a run. What is not asked for is f32, but for products: they take bf16 where the device is faster with it.
 * @param dtype what the step is traced in; f64 leaves no room for bf16. @param device without one, f32 is the default.
 * @throws {RangeError} when bf16 is asked for in f64. */
export function precisionOf(
  asked: Partial<Precision>,
  dtype: RealType,
  device?: BySpeed,
): Precision {
  if (dtype !== "f64") {
    return { ...fullPrecision, param: device && isFasterInBf16(device) ? "bf16" : "f32", ...asked };
  }
  const bf16 = Object.entries(asked).filter(([, type]) => type === "bf16").map(([key]) => key);
  if (bf16.length > 0) {
    throw new RangeError(`Cannot use bf16 for ${bf16.join(" and ")}: everything is f64; use dtype f32`);
  }
  return fullPrecision;
}

/** A run's precision in a line of its header; a device that has to multiply bf16 in f32 is told. */
export function precisionText(
  { param, reduce, stored, float8, tf32 }: Precision,
  dtype: RealType,
  device?: BySpeed,
): string {
  if (dtype === "f64") return "everything in f64";
  const state = `parameters, gradient sums and moments in ${stored}`;
  const rounded = reduce === "bf16" ? ", gradients rounded to bf16 before they are summed" : "";
  const slow = device && !multipliesBf16(device)
    ? " (multiplied in f32: the processor has no bf16 products, so no faster)"
    : "";
  const f32 = tf32 && device?.level.startsWith("sm_") ? "products of f32 in TF32" : "products of f32";
  const products = param === "bf16" ? `products of bf16 with f32 sums${slow}` : f32;
  const isEmulated = device && !multipliesFloat8(device);
  const emulated = isEmulated ? " (emulated: rounded to it, then multiplied as bf16, so slower than without)" : "";
  const scaled = float8 ? `, those of ${float8.weights.size} weights in float8 ${float8.recipe}${emulated}` : "";
  return `${products}${scaled}, ${state}${rounded}`;
}
