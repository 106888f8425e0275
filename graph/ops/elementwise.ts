/** The element-wise family: one scalar function each, over operands of one shape. `fuse` joins those of reals into `map` programs; some
 * are there for integers as well, which give integers: a comparison 1 or 0, a sum wraps around.
 * @module */
import { STORED } from "../attributes.ts";
import { zip } from "../array.ts";
import { type DType, dtypeBytes, isReal, sameType, typeText, wide } from "../ir.ts";
import { defineOp, type Facts, type Linear, type Op, str, type Vjp } from "../op.ts";
import type { Tensor } from "../tensor.ts";

type Grad = (x: readonly Tensor[], y: Tensor, dy: Tensor) => (Tensor | undefined)[];

/** What integers have too, where it is not the function of reals without the bits that i32 lacks. */
const integerMeanings: Readonly<Record<string, ((...x: number[]) => number) | undefined>> = {
  add: undefined,
  sub: undefined,
  mul: Math.imul,
  maximum: undefined,
  minimum: undefined,
  less: undefined,
  less_equal: undefined,
  equal: undefined,
  select: undefined,
};

function elementwise(
  name: string,
  f: (...x: number[]) => number,
  grad: Grad,
  linear: Linear = [],
  facts: Facts = {},
): Op {
  return defineOp({
    name,
    attrs: STORED,
    infer(inputs) {
      if (inputs.length !== f.length) throw new TypeError(`expected ${f.length} operands, got ${inputs.length}`);
      const other = inputs.find((t) => !sameType(t, inputs[0]));
      if (other) {
        throw new TypeError(`expected operands of one type, got ${typeText(inputs[0])} and ${typeText(other)}`);
      }
      if (!isReal(inputs[0].dtype) && !(name in integerMeanings)) {
        throw new TypeError(`expected real operands, got ${inputs[0].dtype}; cast first`);
      }
      return [{ dtype: inputs[0].dtype, shape: inputs[0].shape }];
    },
    bf16: () => true,
    reference: (inputs, _attrs, types) => {
      const isInteger = types[0]?.dtype === "i32", meaning = isInteger ? integerMeanings[name] ?? f : f;
      return [zip(inputs, isInteger ? (...x) => meaning(...x) | 0 : f)];
    },
    split: { dims: () => `${Array(f.length).fill("...").join(", ")} -> ...`, linear },
    vjp: ({ inputs, outputs, cotangents }: Vjp) => grad(inputs, outputs[0], cotangents[0]!),
    recompute: "cheap",
    elementwise: true,
    takesRounded: true,
    ...facts,
  });
}

const none = (): [] => [];
const double = new Float64Array(1), words = new Uint32Array(double.buffer);
/** The power of two at or below |x|, with the sign of x: the exponent of an f64 is in its upper 12 bits. */
function floorPowerOfTwo(x: number): number {
  if (Number.isNaN(x)) return x;
  double[0] = x;
  words[0] = 0;
  words[1] &= 0xfff00000;
  return double[0];
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** All element-wise ops, with their derivatives. */
export const elementwiseOps: readonly Op[] = [
  elementwise("add", (a, b) => a + b, (_x, _y, dy) => [dy, dy], "all", {
    takesRounded: false,
    adds: true,
    commutes: true,
  }),
  elementwise("sub", (a, b) => a - b, (_x, _y, dy) => [dy, dy.neg()], "all", { takesRounded: false }),
  elementwise("mul", (a, b) => a * b, ([a, b], _y, dy) => [dy.mul(b), dy.mul(a)], [[0], [1]], { commutes: true }),
  elementwise("div", (a, b) => a / b, ([_a, b], y, dy) => [dy.div(b), dy.mul(y).div(b).neg()], [[0]]),
  // Ties go to the first operand.
  elementwise("maximum", (a, b) => a >= b ? a : b, ([a, b], _y, dy) => {
    const first = b.lessEqual(a);
    return [dy.mul(first), dy.sub(dy.mul(first))];
  }),
  elementwise("minimum", (a, b) => a <= b ? a : b, ([a, b], _y, dy) => {
    const first = a.lessEqual(b);
    return [dy.mul(first), dy.sub(dy.mul(first))];
  }),
  elementwise("neg", (a) => -a, (_x, _y, dy) => [dy.neg()], "all"),
  elementwise("abs", (a) => Math.abs(a), ([x], _y, dy) => {
    const negative = x.less(0);
    return [negative.select(dy.neg(), dy)];
  }),
  elementwise("exp", (a) => Math.exp(a), (_x, y, dy) => [dy.mul(y)]),
  elementwise("log", (a) => Math.log(a), ([x], _y, dy) => [dy.div(x)]),
  elementwise("sqrt", (a) => Math.sqrt(a), (_x, y, dy) => [dy.div(y).mul(0.5)]),
  elementwise("rsqrt", (a) => 1 / Math.sqrt(a), ([x], y, dy) => [dy.mul(y).div(x).mul(-0.5)]),
  elementwise("tanh", (a) => Math.tanh(a), (_x, y, dy) => [dy.sub(dy.mul(y.square()))]),
  elementwise("sigmoid", sigmoid, (_x, y, dy) => [dy.mul(y.sub(y.square()))]),
  // d silu(x) = s + x s (1 - s) = s + y - y s with s = sigmoid(x)
  elementwise("silu", (x) => x * sigmoid(x), ([x], _y, dy) => {
    const s = x.sigmoid(), y = x.mul(s);
    return [dy.mul(s.add(y.sub(y.mul(s))))];
  }),
  elementwise("relu", (a) => Math.max(a, 0), ([x], _y, dy) => [dy.mul(x.constant(0, x.shape).less(x))]),
  elementwise("square", (a) => a * a, ([x], _y, dy) => [dy.mul(x).mul(2)]),
  elementwise("reciprocal", (a) => 1 / a, (_x, y, dy) => [dy.mul(y.square()).neg()]),
  // Zero for zero. A step: its slope is zero where it has one.
  elementwise("floor_power_of_two", floorPowerOfTwo, none),
  elementwise("less", (a, b) => a < b ? 1 : 0, none),
  elementwise("less_equal", (a, b) => a <= b ? 1 : 0, none),
  elementwise("equal", (a, b) => a === b ? 1 : 0, none, [], { commutes: true }),
  elementwise("select", (c, a, b) => c !== 0 ? a : b, ([c], _y, dy) => {
    const zero = dy.constant(0, dy.shape);
    return [undefined, c.select(dy, zero), c.select(zero, dy)];
  }, [[1, 2]]),
];

const [LOWEST, HIGHEST] = [-(2 ** 31), 2 ** 31 - 1];

/** Integers as reals; reals as integers, without their fraction (the nearest of i32 where they are beyond, 0 for NaN); f32 rounded to
 * bf16 or float8, and these as the f32 that they are. */
export const cast: Op = defineOp({
  name: "cast",
  converts: true,
  elementwise: true,
  link: true,
  takesRounded: true,
  attrs: { dtype: { type: "text", doc: "what it becomes" } },
  bf16: "kept",
  infer([x], attrs) {
    const dtype = str(attrs.dtype) as DType;
    const isSameReal = isReal(x.dtype) && wide(x.dtype) === wide(dtype) && x.dtype !== dtype;
    if (!(isReal(x.dtype) !== isReal(dtype) || isSameReal) || !(dtype in dtypeBytes)) {
      throw new TypeError(
        `expected i32 to or from a real type, or f32 to or from bf16 or float8, got ${x.dtype} to ${dtype}`,
      );
    }
    return [{ dtype, shape: x.shape }];
  },
  reference: ([x], { dtype }) => {
    if (dtype !== "i32") return [x];
    const toInteger = (v: number) => Number.isNaN(v) ? 0 : Math.min(HIGHEST, Math.max(LOWEST, Math.trunc(v)));
    return [zip([x], (v) => toInteger(v) + 0)]; // there is no -0 among integers
  },
  // A sum of fractions is not that of what is left without them; and float8 has no room for summands.
  split: {
    dims: () => "... -> ...",
    linear: ({ dtype }) => dtype === "i32" || dtypeBytes[dtype as DType] === 1 ? [] : "all",
    padded: true,
  },
  vjp: ({ inputs: [x], cotangents: [dy] }) => [isReal(x.dtype) ? dy!.cast(x.dtype) : undefined],
  recompute: "cheap",
});
