import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { defineOp, mayBeBf16, num, type Op } from "../op.ts";
import { accumulateMode } from "./state.ts";

/** Row `ids[n]` of a table `[V, D]`. */
export const embedding: Op = defineOp({
  name: "embedding",
  integers: [0],
  dims: "..., v d -> ... d",
  bf16: mayBeBf16([1], [0]),
  reference: ([ids, table], _attrs, [type]) => {
    const [, d] = table.shape, out = arr(type.shape);
    ids.data.forEach((id, n) => out.data.set(table.data.subarray(id * d, id * d + d), n * d));
    return [out];
  },
  vjp: ({ inputs: [ids, table], cotangents: [dy] }) => [
    undefined,
    ids.apply("embedding_backward", [dy!], { rows: table.shape[0] })[0],
  ],
  recompute: "cheap",
  flops: () => 0,
  kernel: () => ({ kernel: "embedding", attrs: {} }),
});

/** Gradient of the table `[rows, D]`: the sum of `dy[n]` over the places where `ids[n]` is the row. */
export const embeddingBackward: Op = defineOp({
  name: "embedding_backward",
  integers: [0],
  dims: "..., ... d -> v d",
  bf16: mayBeBf16([1], [0]),
  infer: ([ids, dy], attrs) => {
    if (numel(dy.shape) / dy.shape.at(-1)! !== numel(ids.shape)) throw new TypeError("ids and dy differ in rows");
    return [{ dtype: dy.dtype, shape: [num(attrs.rows), dy.shape.at(-1)!] }];
  },
  reference: ([ids, dy], _attrs, [type]) => {
    const d = type.shape[1], out = arr(type.shape);
    ids.data.forEach((id, n) => {
      for (let k = 0; k < d; k++) out.data[id * d + k] += dy.data[n * d + k];
    });
    return [out];
  },
  vjp: ({ inputs: [ids], cotangents: [dtable] }) => [undefined, ids.apply("embedding", [dtable!])[0]],
  recompute: "cheap",
  accumulates: 0,
  kernel: (node) => ({ kernel: "embedding_backward", attrs: { accumulate: accumulateMode(node.attrs) } }),
});
