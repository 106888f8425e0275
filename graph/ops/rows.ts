/** Rows by index: read, written, summed. An index outside of the rows that there are, such as -1, is no row: `take` gives zeros for it, the
 * others leave it out. Leading dims are shared by all operands.
 * @module */
import { SLICE } from "../attributes.ts";
import { type Arr, arr } from "../array.ts";
import type { Attrs } from "../ir.ts";
import { defineOp, num, type Op } from "../op.ts";
import type { Tensor } from "../tensor.ts";

/** Calls `visit` with the offset of each index, and of its row among `rows` of all that there are; rows of none are left out. */
function forEachRow(ids: Arr, rows: number, attrs: Attrs, visit: (id: number, row: number) => void): void {
  const count = ids.shape.at(-1)!;
  ids.data.forEach((id, at) => {
    const row = id - num(attrs.start ?? 0);
    if (row >= 0 && row < rows) visit(at, Math.floor(at / count) * rows + row);
  });
}

/** `x, ids -> y` with `y[k] = x[ids[k]]`, zeros where that is no row. With `start`, x is a slice that begins there. */
export const take: Op = defineOp({
  name: "take",
  attrs: SLICE,
  integers: [1],
  either: [0],
  bf16: "kept",
  dims: "... n d, ... k -> ... k d",
  reference: ([x, ids], attrs, [type]) => {
    const [n, d] = x.shape.slice(-2), y = arr(type.shape);
    forEachRow(ids, n, attrs, (k, row) => y.data.set(x.data.subarray(row * d, row * d + d), k * d));
    return [y];
  },
  vjp: ({ inputs: [x, ids], cotangents: [dy], attrs }) => [
    ids.apply("scatter_add", [dy!], { ...attrs, size: x.shape.at(-2)! })[0],
    undefined,
  ],
  split: { offset: "n", linear: [[0]] },
  recompute: "cheap",
  flops: () => 0,
});

/** `ids, rows -> y` of `size` rows: each is the sum of the rows whose index it is. With `start`, y is a slice that begins there. */
export const scatterAdd: Op = defineOp({
  name: "scatter_add",
  attrs: { size: { type: "integer", doc: "rows of the result", local: { label: "n" } }, ...SLICE },
  integers: [0],
  dims: "... k, ... k d -> ... n d",
  infer: ([ids, rows], attrs) => {
    const shape = [...rows.shape];
    if (shape.length < 2 || String(ids.shape) !== String(shape.slice(0, -1))) {
      throw new TypeError(`ids are [${ids.shape}] and rows [${shape}], expected [..., k] and [..., k, d]`);
    }
    shape[shape.length - 2] = num(attrs.size);
    return [{ dtype: rows.dtype, shape }];
  },
  reference: ([ids, rows], attrs, [type]) => {
    const [n, d] = type.shape.slice(-2), y = arr(type.shape);
    forEachRow(ids, n, attrs, (k, row) => {
      for (let i = 0; i < d; i++) y.data[row * d + i] += rows.data[k * d + i];
    });
    return [y];
  },
  vjp: ({ inputs: [ids], cotangents: [dy], attrs: { size: _, ...slice } }) => [
    undefined,
    dy!.apply("take", [ids], slice)[0],
  ],
  split: { offset: "n", linear: [[1]] },
  recompute: "cheap",
});

/** `x, ids, rows -> y`: x with other rows at the indices; of equal indices the last counts. With `start`, x and y are slices that begin
 * there. What is put into the value of a state and assigned to it touches only those rows: see `memory`. */
export const putRows: Op = defineOp({
  name: "put_rows",
  attrs: SLICE,
  integers: [1],
  either: [0, 2],
  bf16: "kept",
  dims: "... n d, ... k, ... k d -> ... n d",
  reference: ([x, ids, rows], attrs, [type]) => {
    const [n, d] = type.shape.slice(-2), y = arr(type.shape, x.data.slice());
    forEachRow(ids, n, attrs, (k, row) => y.data.set(rows.data.subarray(k * d, k * d + d), row * d));
    return [y];
  },
  vjp: ({ inputs: [x, ids, rows], cotangents: [dy], attrs }) => [
    dy!.apply("put_rows", [ids, dy!.constant(0, rows.shape)], attrs)[0],
    undefined,
    dy!.apply("take", [ids], attrs)[0].mul(lastOfEqual(ids, x.shape.at(-2)!, attrs).cast(dy!.dtype)),
  ],
  split: { whole: ["k"], offset: "n", linear: [[0, 2]] },
  recompute: "cheap",
  flops: () => 0,
});

/** `[..., k]` to i32 `[..., k, 1]`: 1 where no later index is equal. */
function lastOfEqual(ids: Tensor, rows: number, attrs: Attrs): Tensor {
  const shape = [...ids.shape, 1], places = ids.constant(1, shape).cumsum(-2);
  const [last] = ids.constant(0, [...ids.shape.slice(0, -1), rows, 1]).apply("put_rows", [ids, places], attrs);
  return last.apply("take", [ids], attrs)[0].equal(places);
}
