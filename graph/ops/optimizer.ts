/** What the update is made of: the squared norm of many tensors, and AdamW.
 * @module */
import { STORED } from "../attributes.ts";
import { arr } from "../array.ts";
import { type Node, numel } from "../ir.ts";
import { defineOp, num, type Op } from "../op.ts";

/** Sum of the squares of all elements of all inputs, in a fixed order. */
export const sumSquares: Op = defineOp({
  name: "sum_squares",
  integers: [],
  dims: (_attrs, ranks) => `${ranks.map(() => "...").join(", ")} -> `,
  infer: (inputs) => [{ dtype: inputs[0].dtype, shape: [] }],
  bf16: (side) => side === "input",
  reference: (inputs) => [arr([], [inputs.reduce((s, x) => s + x.data.reduce((t, v) => t + v * v, 0), 0)])],
  vjp: ({ inputs, cotangents: [dy] }) => inputs.map((x) => x.mul(2).mul(dy!)),
  split: { additive: true, padded: true },
  recompute: "cheap",
  flops: (node) => 2 * node.inputs.reduce((n, v) => n + numel(v.shape), 0),
});

/** A parameter, its moments and its gradient are cut alike. Several parameters are joined behind `partition`, and not cut. */
function adamwDims({ inputs }: Node): string {
  const n = numUpdated({ inputs });
  const terms = inputs.map((v) => v.shape.map((_, d) => n === 1 ? `dim${d}` : "1").join(" "));
  return `${terms.join(", ")} -> ${terms.slice(0, 3 * n).join(", ")}`;
}

/** How many parameters an `adamw` updates. */
export function numUpdated(node: { readonly inputs: readonly unknown[] }): number {
  return (node.inputs.length - 3) / 4;
}

/** One AdamW step (Loshchilov & Hutter 2019) of n parameters: `p..., m..., v..., g..., lr, step, scale -> p..., m..., v...`.
 * With g = scale * gradient: p -= lr wd p; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
 * p -= lr (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + eps). `step` counts from 1.
 * When `scale` is not finite, p, m and v stay as they are, so that a diverged step does not destroy the model. */
export const adamw: Op = defineOp({
  name: "adamw",
  attrs: {
    beta1: { type: "number", doc: "decay of the first moment" },
    beta2: { type: "number", doc: "decay of the second moment" },
    eps: { type: "number", doc: "added to the root of the second moment" },
    weight_decay: { type: "number", doc: "how much parameters shrink, times the learning rate" },
    ...STORED,
  },
  integers: [],
  dims: (_attrs, ranks) => {
    const tensors = (n: number) => Array(n).fill("...").join(", "), n = (ranks.length - 3) / 4;
    return `${tensors(4 * n)}, , ,  -> ${tensors(3 * n)}`;
  },
  infer: (inputs) => {
    const n = numUpdated({ inputs });
    if (!Number.isInteger(n) || n < 1) {
      throw new TypeError(`expected p, m, v, g for each parameter, then lr, step, scale`);
    }
    return inputs.slice(0, 3 * n).map(({ dtype, shape }) => ({ dtype, shape }));
  },
  bf16: (side, index, inputs) => side === "output" || index < inputs - 3,
  reference: (inputs, attrs) => {
    const n = numUpdated({ inputs }), [lr, step, scale] = inputs.slice(4 * n).map((x) => x.data[0]);
    const out = inputs.slice(0, 3 * n).map((x) => arr(x.shape, x.data.slice()));
    if (!Number.isFinite(scale)) return out;
    const [b1, b2, eps, wd] = ["beta1", "beta2", "eps", "weight_decay"].map((k) => num(attrs[k]));
    for (let k = 0; k < n; k++) {
      const [p, m, v, g] = [out[k].data, out[n + k].data, out[2 * n + k].data, inputs[3 * n + k].data];
      for (let i = 0; i < p.length; i++) {
        const gi = g[i] * scale;
        m[i] = b1 * m[i] + (1 - b1) * gi;
        v[i] = b2 * v[i] + (1 - b2) * gi * gi;
        p[i] -= lr * wd * p[i];
        p[i] -= lr * (m[i] / (1 - b1 ** step)) / (Math.sqrt(v[i] / (1 - b2 ** step)) + eps);
      }
    }
    return out;
  },
  split: { dims: adamwDims, padded: true },
  recompute: "cheap",
  flops: (node) => 15 * node.inputs.slice(0, numUpdated(node)).reduce((n, v) => n + numel(v.shape), 0),
});
