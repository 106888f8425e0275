import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { defineOp, num, type Op } from "../op.ts";

/** The `k` largest elements of the last dim, largest first, and their indices: `x [..., n] -> values [..., k], ids [..., k]`. Of equal
 * elements the one with the lower index comes first; NaN counts as larger than all. */
export const topK: Op = defineOp({
  name: "top_k",
  attrs: { k: { type: "integer", doc: "how many" } },
  integers: [],
  dims: "... n -> ... k, ... k",
  infer: ([x], attrs) => {
    const k = num(attrs.k), n = x.shape.at(-1);
    if (n === undefined || !(k >= 1 && k <= n)) {
      throw new TypeError(`expected k from 1 to the last of the dims [${x.shape}], got ${k}`);
    }
    const shape = [...x.shape.slice(0, -1), k];
    return [{ dtype: x.dtype, shape }, { dtype: "i32", shape }];
  },
  reference: ([x], attrs, [type]) => {
    const n = x.shape.at(-1)!, k = num(attrs.k), values = arr(type.shape), ids = arr(type.shape);
    const rank = (v: number) => Number.isNaN(v) ? Infinity : v, isNaN = (v: number) => Number(Number.isNaN(v));
    for (let row = 0; row < x.data.length / n; row++) {
      const cells = x.data.subarray(row * n, row * n + n);
      // An infinity less another is NaN, which is as good as equal here.
      const order = Array.from(cells, (_, i) => i).sort((i, j) =>
        isNaN(cells[j]) - isNaN(cells[i]) || rank(cells[j]) - rank(cells[i]) || i - j
      );
      order.slice(0, k).forEach((i, at) => {
        values.data[row * k + at] = cells[i];
        ids.data[row * k + at] = i;
      });
    }
    return [values, ids];
  },
  vjp: ({ inputs: [x], outputs: [, ids], cotangents: [dvalues] }) => {
    const lead = x.shape.slice(1).map((_, d) => `l${d}`).join(" ");
    const dx = ids.apply("scatter_add", [dvalues!.expandDims()], { size: x.shape.at(-1)! })[0];
    return [dx.reshape(`${lead} n 1 -> ${lead} n`)];
  },
  split: { whole: ["n", "k"] },
  recompute: "cheap",
  flops: (node) => numel(node.inputs[0].shape),
});
