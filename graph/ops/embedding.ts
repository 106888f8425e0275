import { ADDED, SLICE, STORED } from "../attributes.ts";
import { arr } from "../array.ts";
import { numel } from "../ir.ts";
import { defineOp, mayBeBf16, num, type Op } from "../op.ts";

/** Row `ids[n]` of a table `[V, D]`. With `start`, the table is a slice that begins there of a larger one of `whole` rows: rows of other
 * slices are 0. Ids outside of all give NaN. */
export const embedding: Op = defineOp({
  name: "embedding",
  attrs: { ...SLICE, ...STORED },
  integers: [0],
  dims: "..., v d -> ... d",
  bf16: mayBeBf16([1], [0]),
  reference: ([ids, table], attrs, [type]) => {
    const [rows, d] = table.shape, out = arr(type.shape), whole = num(attrs.whole ?? rows);
    ids.data.forEach((id, n) => {
      const row = id - num(attrs.start ?? 0);
      if (row >= 0 && row < rows) out.data.set(table.data.subarray(row * d, row * d + d), n * d);
      else if (id < 0 || id >= whole) out.data.fill(NaN, n * d, n * d + d);
    });
    return [out];
  },
  vjp: ({ inputs: [ids, table], cotangents: [dy], attrs }) => [
    undefined,
    ids.apply("embedding_backward", [dy!], { ...attrs, rows: table.shape[0] })[0],
  ],
  split: { offset: "v", linear: [[1]] },
  takesRounded: true,
  recompute: "cheap",
  flops: () => 0,
});

/** Gradient of the table `[rows, D]`: the sum of `dy[n]` over the places where `ids[n]` is the row. With `start`, of
 * the slice of the table that begins there. */
export const embeddingBackward: Op = defineOp({
  name: "embedding_backward",
  attrs: {
    rows: { type: "integer", doc: "rows of the table", local: { label: "v" } },
    ...SLICE,
    ...STORED,
    ...ADDED,
  },
  integers: [0],
  dims: "..., ... d -> v d",
  bf16: mayBeBf16([1], [0]),
  infer: ([ids, dy], attrs) => {
    if (numel(dy.shape) / dy.shape.at(-1)! !== numel(ids.shape)) throw new TypeError("ids and dy differ in rows");
    return [{ dtype: dy.dtype, shape: [num(attrs.rows), dy.shape.at(-1)!] }];
  },
  reference: ([ids, dy], attrs, [type]) => {
    const [rows, d] = type.shape, out = arr(type.shape);
    ids.data.forEach((id, n) => {
      const row = id - num(attrs.start ?? 0);
      for (let k = 0; k < d && row >= 0 && row < rows; k++) out.data[row * d + k] += dy.data[n * d + k];
    });
    return [out];
  },
  vjp: ({ inputs: [ids], cotangents: [dtable], attrs: { rows: _, ...slice } }) => [
    undefined,
    ids.apply("embedding", [dtable!], slice)[0],
  ],
  split: { offset: "v", linear: [[1]] },
  takesRounded: true,
  recompute: "cheap",
  into: 0,
});
