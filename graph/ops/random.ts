/** Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011), keyed by the run's seed and a name (a parameter's FQN),
 * counted by the global element index. So an element's value does not depend on how the tensor is laid out.
 * @module */
import { arr, stridesOf } from "../array.ts";
import type { Attrs } from "../ir.ts";
import { defineOp, num, nums, type Op, str } from "../op.ts";

const MASK = 0xffffffffn;

/** One draw of Philox 4x32-10: four 32-bit words from a counter of four and a key of two. */
export function philox(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter.map(BigInt), [k0, k1] = key.map(BigInt);
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0, b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & MASK, (a >> 32n) ^ c3 ^ k1, a & MASK];
    [k0, k1] = [(k0 + 0x9e3779b9n) & MASK, (k1 + 0xbb67ae85n) & MASK];
  }
  return [c0, c1, c2, c3].map(Number);
}

/** 64-bit FNV-1a hash of a name (its UTF-8 bytes). */
export function nameKey(name: string): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(name)) {
    hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  }
  return hash;
}

/** Uniform in (0, 1) with 53 bits, of element `index`. */
function uniform(seed: ArrayLike<number>, key: bigint, index: number): number {
  const words = philox([index >>> 0, Math.floor(index / 2 ** 32), 0, 0], [
    ((seed[0] >>> 0) ^ Number(key & MASK)) >>> 0,
    ((seed[1] >>> 0) ^ Number(key >> 32n)) >>> 0,
  ]);
  // The sum rounds to even above 1/2, and may reach 1.
  return Math.min(((words[0] >>> 5) * 67108864 + (words[1] >>> 6) + 0.5) / 2 ** 53, 1 - 2 ** -53);
}

const horner = (x: number, c: readonly number[]): number => c.reduceRight((sum, k) => sum * x + k, 0);

// Coefficients of algorithm AS 241 (Wichura 1988), lowest power first.
const A = [
  3.3871328727963666080,
  1.3314166789178437745e2,
  1.9715909503065514427e3,
  1.3731693765509461125e4,
  4.5921953931549871457e4,
  6.7265770927008700853e4,
  3.3430575583588128105e4,
  2.5090809287301226727e3,
];
const B = [
  1,
  4.2313330701600911252e1,
  6.8718700749205790830e2,
  5.3941960214247511077e3,
  2.1213794301586595867e4,
  3.9307895800092710610e4,
  2.8729085735721942674e4,
  5.2264952788528545610e3,
];
const C = [
  1.42343711074968357734,
  4.63033784615654529590,
  5.76949722146069140550,
  3.64784832476320460504,
  1.27045825245236838258,
  2.41780725177450611770e-1,
  2.27238449892691845833e-2,
  7.74545014278341407640e-4,
];
const D = [
  1,
  2.05319162663775882187,
  1.67638483018380384940,
  6.89767334985100004550e-1,
  1.48103976427480074590e-1,
  1.51986665636164571966e-2,
  5.47593808499534494600e-4,
  1.05075007164441684324e-9,
];
const E = [
  6.65790464350110377720,
  5.46378491116411436990,
  1.78482653991729133580,
  2.96560571828504891230e-1,
  2.65321895265761230930e-2,
  1.24266094738807843860e-3,
  2.71155556874348757815e-5,
  2.01033439929228813265e-7,
];
const F = [
  1,
  5.99832206555887937690e-1,
  1.36929880922735805310e-1,
  1.48753612908506148525e-2,
  7.86869131145613259100e-4,
  1.84631831751005468180e-5,
  1.42151175831644588870e-7,
  2.04426310338993978564e-15,
];

/** Inverse of the normal distribution function (AS 241), to about 1e-16. */
export function normalQuantile(p: number): number {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q * (horner(r, A) / horner(r, B));
  }
  const r = Math.sqrt(-Math.log(q < 0 ? p : 1 - p));
  const x = r <= 5 ? horner(r - 1.6, C) / horner(r - 1.6, D) : horner(r - 5, E) / horner(r - 5, F);
  return q < 0 ? -x : x;
}

/** Normal distribution function, by the series or the continued fraction of erfc (Abramowitz & Stegun 7.1.5, 7.1.14). */
export function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  let tail: number; // erfc(z) / 2
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(sum) && n < 200; n++) sum += (term *= -z * z / n) / (2 * n + 1);
    tail = 0.5 - sum / Math.sqrt(Math.PI);
  } else {
    let fraction = z;
    for (let k = 80; k >= 1; k--) fraction = z + (k / 2) / fraction;
    tail = Math.exp(-z * z) / (2 * Math.sqrt(Math.PI) * fraction);
  }
  return x < 0 ? tail : 1 - tail;
}

/** Kinds of distribution. */
const KINDS = ["uniform", "normal", "truncated_normal"];

function sample(u: number, attrs: Attrs): number {
  const a = num(attrs.a), b = num(attrs.b);
  if (attrs.kind === "uniform") return a + (b - a) * u;
  if (attrs.kind === "normal") return a + b * normalQuantile(u);
  const low = normalCdf((num(attrs.low) - a) / b), high = normalCdf((num(attrs.high) - a) / b);
  const x = a + b * normalQuantile(low + (high - low) * u);
  return Math.min(Math.max(x, num(attrs.low)), num(attrs.high));
}

/** The box that a `random` makes of its whole: where it begins, and where its numbers end. */
export function boxOf(
  { shape, whole = shape, starts, ends = whole }: Attrs,
): Record<"whole" | "starts" | "ends", readonly number[]> {
  return { whole: nums(whole), starts: nums(starts ?? nums(whole).map(() => 0)), ends: nums(ends) };
}

/** `seed i32[2] -> shape`. Attributes: `kind` uniform in (a, b), normal of mean a and deviation b, or such a normal cut off at
 * the absolute bounds `low` and `high`; `name` of the stream; `shape`; `dtype`. With `starts`, it is the box that starts there of the
 * shape `whole`, and 0 from `ends` on. */
export const random: Op = defineOp({
  name: "random",
  boxed: true,
  attrs: {
    kind: { type: "text", doc: "the distribution" },
    name: { type: "text", doc: "the stream" },
    a: { type: "number", doc: "lowest number, or mean" },
    b: { type: "number", doc: "highest number, or deviation" },
    low: { type: "number", optional: true, doc: "absolute lower bound" },
    high: { type: "number", optional: true, doc: "absolute upper bound" },
    dtype: { type: "text", doc: "type of the elements" },
    shape: { type: "integers", doc: "how many are drawn here", local: "output" },
    whole: { type: "integers", optional: true, writer: "partition", doc: "how many there are in all" },
    starts: { type: "rank integers", optional: true, writer: "partition", doc: "where this rank's box begins" },
    ends: {
      type: "rank integers",
      optional: true,
      writer: "partition",
      doc: "where its numbers end and its padding begins",
    },
  },
  dims: "z -> ...",
  infer: (_inputs, attrs) => {
    if (!KINDS.includes(str(attrs.kind))) throw new TypeError(`kind "${attrs.kind}" is none of ${KINDS.join(", ")}`);
    return [{ dtype: str(attrs.dtype) as "f32", shape: nums(attrs.shape) }];
  },
  reference: ([seed], attrs, [type]) => {
    const key = nameKey(str(attrs.name)), out = arr(type.shape);
    const { whole, starts, ends } = boxOf(attrs);
    const strides = stridesOf(whole), own = stridesOf(type.shape);
    for (let i = 0; i < out.data.length; i++) {
      const index = own.map((stride, d) => starts[d] + Math.floor(i / stride) % type.shape[d]);
      if (index.some((x, d) => x >= ends[d])) continue;
      out.data[i] = sample(uniform(seed.data, key, index.reduce((sum, x, d) => sum + x * strides[d], 0)), attrs);
    }
    return [out];
  },
  vjp: () => [],
  recompute: "cheap",
});
