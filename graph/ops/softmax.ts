import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { defineOp, type Op } from "../op.ts";

/** Softmax over the last dim: y = exp(x - max) / sum(exp(x - max)). Its gradient is dx = y (dy - sum(y dy)). */
export const softmax: Op = defineOp({
  name: "softmax",
  dims: "... d -> ... d",
  integers: [],
  reference: ([x]) => {
    const d = x.shape.at(-1)!, y = arr(x.shape);
    for (let row = 0; row < x.data.length; row += d) {
      const cells = x.data.subarray(row, row + d), max = cells.reduce((m, v) => Math.max(m, v), -Infinity);
      const sum = cells.reduce((s, v) => s + Math.exp(v - max), 0);
      cells.forEach((v, k) => y.data[row + k] = Math.exp(v - max) / sum);
    }
    return [y];
  },
  vjp: ({ outputs: [y], cotangents: [dy] }) => {
    const weighted = y.mul(dy!);
    return [weighted.sub(y.mul(weighted.sum(-1, { keepDims: true })))];
  },
  split: { whole: ["d"] },
  recompute: "cheap",
  flops: (node) => 5 * numel(node.inputs[0].shape),
});
