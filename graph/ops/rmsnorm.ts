/** Root-mean-square norm over the last dim: y = x w / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019), rstd = 1 / sqrt(...).
 * @module */
import { ADDED, type Schema, STORED } from "../attributes.ts";
import { type Arr, arr } from "../array.ts";
import { defineOp, mayBeBf16, num, type Op } from "../op.ts";

function norm(x: Arr, w: Arr, eps: number): [Arr, Arr] {
  const d = w.data.length, y = arr(x.shape), rstd = arr(x.shape.slice(0, -1));
  for (let n = 0; n < rstd.data.length; n++) {
    let sum = 0;
    for (let k = 0; k < d; k++) sum += x.data[n * d + k] ** 2;
    const r = rstd.data[n] = 1 / Math.sqrt(sum / d + eps);
    for (let k = 0; k < d; k++) y.data[n * d + k] = x.data[n * d + k] * r * w.data[k];
  }
  return [y, rstd];
}

const NORM: Schema = { eps: { type: "number", doc: "added to the mean of the squares" }, ...STORED };

/** `x, w -> y, rstd` */
export const rmsnorm: Op = defineOp({
  name: "rmsnorm",
  attrs: NORM,
  integers: [],
  dims: "... d, d -> ... d, ...",
  bf16: mayBeBf16([0, 1], [0]),
  reference: ([x, w], attrs) => norm(x, w, num(attrs.eps)),
  vjp: ({ inputs: [x, w], outputs: [, rstd], cotangents: [dy, drstd] }) => {
    if (drstd) {
      throw new TypeError(`Cannot differentiate through "rstd" of rmsnorm: write the norm with element-wise ops`);
    }
    return x.apply("rmsnorm_backward", [rstd, w, dy!]);
  },
  split: { whole: ["d"] },
  recompute: "cheap",
  flops: (node) => 4 * node.inputs[0].shape.reduce((n, s) => n * s, 1),
});

/** `x, r, w -> x + r, rmsnorm(x + r), rstd`: the residual sum and the norm after it in one pass over memory. Made by `fuse`. */
export const addRmsnorm: Op = defineOp({
  name: "add_rmsnorm",
  attrs: NORM,
  integers: [],
  dims: "... d, ... d, d -> ... d, ... d, ...",
  bf16: mayBeBf16([0, 1, 2], [0, 1]),
  reference: ([x, r, w], attrs) => {
    const s = arr(x.shape, x.data.map((v, i) => v + r.data[i]));
    return [s, ...norm(s, w, num(attrs.eps))];
  },
  split: { whole: ["d"] },
  recompute: "cheap",
  flops: (node) => 5 * node.inputs[0].shape.reduce((n, s) => n * s, 1),
});

/** `x, rstd, w, dy[, residual] -> dx, dw`: with u = dy w, dx = residual + rstd (u - x rstd^2 mean(u x)), dw = sum of dy x rstd. */
export const rmsnormBackward: Op = defineOp({
  name: "rmsnorm_backward",
  attrs: { ...STORED, ...ADDED },
  integers: [],
  dims: (_attrs, ranks) => `... d, ..., d, ... d${ranks.length > 4 ? ", ... d" : ""} -> ... d, d`,
  bf16: mayBeBf16([0, 2, 3, 4], [0, 1]),
  reference: ([x, rstd, w, dy, residual]) => {
    const d = w.data.length, dx = arr(x.shape), dw = arr(w.shape);
    for (let n = 0; n < rstd.data.length; n++) {
      const r = rstd.data[n];
      let dot = 0;
      for (let k = 0; k < d; k++) dot += dy.data[n * d + k] * w.data[k] * x.data[n * d + k];
      for (let k = 0; k < d; k++) {
        const i = n * d + k;
        dx.data[i] = (residual?.data[i] ?? 0) + r * (dy.data[i] * w.data[k] - x.data[i] * r * r * dot / d);
        dw.data[k] += dy.data[i] * x.data[i] * r;
      }
    }
    return [dx, dw];
  },
  split: { whole: ["d"] },
  recompute: "cheap",
  flops: (node) => 10 * node.inputs[0].shape.reduce((n, s) => n * s, 1),
  into: 1,
});
