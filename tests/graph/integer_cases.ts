/** Rows of `op_cases.ts` for what makes integers, or goes by them.
 * @module */
import type { Tensor } from "../../graph/tensor.ts";
import { n, type OpCase, type Operand, r, type Refusal, w } from "./op_case.ts";

const s23 = [2, 3], ints = ["i32[2,3]"];

/** The row of an element-wise op that integers have, whose results are small enough for reals to say the same. */
function ofIntegers(op: string, operands: number, low = -3): OpCase {
  const inputs = Array.from({ length: operands }, () => n(s23, low, 3));
  return {
    op,
    title: "of integers",
    inputs,
    gives: ints,
    like: (a, ...others) => [a.cast("f64").apply(op, others.map((x) => x.cast("f64")))[0].cast("i32")],
  };
}

/** 1 where ids `[b,k]` are a row, `[b,k,n]`, by comparisons. */
function rowsOf(ids: Tensor, count: number): Tensor {
  const [B, K] = ids.shape, places = ids.constant(1, [count]).cumsum(0, { exclusive: true });
  return ids.reshape("b k -> b k 1").broadcastTo([B, K, count]).equal(places.broadcastTo([B, K, count])).cast("f64");
}

/** What `put_rows` means, one index after another. */
function putOneByOne(x: Tensor, ids: Tensor, rows: Tensor): Tensor {
  const [B, N, D] = x.shape, hits = rowsOf(ids, N);
  return Array.from({ length: ids.shape[1] }, (_, k) => k).reduce((y, k) => {
    const hit = hits.slice([0, k, 0], [B, 1, N]).reshape("b 1 n -> b n 1").broadcastTo([B, N, D]);
    return hit.select(rows.slice([0, k, 0], [B, 1, D]).broadcastTo([B, N, D]), y);
  }, x);
}

/** What `top_k` means: the element before which k come. */
function topByRank(x: Tensor, k: number): Tensor[] {
  const [B, N] = x.shape, all = [B, N, N], ones = x.constant(1, [N]);
  const own = x.reshape("b n -> b n 1").broadcastTo(all), other = x.reshape("b n -> b 1 n").broadcastTo(all);
  const places = ones.cumsum(0, { exclusive: true });
  const earlier = places.broadcastTo([N, N]).less(places.reshape("n -> n 1").broadcastTo([N, N])).broadcastTo(all);
  const before = own.less(other).add(own.equal(other).mul(earlier)).sum(2);
  const at = Array.from({ length: k }, (_, i) => before.equal(i).reshape("b n -> b 1 n"));
  const hits = at[0].concat(at.slice(1), 1);
  return [
    hits.contract("b k n, b n -> b k", x),
    hits.contract("b k n, n -> b k", places).cast("i32"),
  ];
}

const x243: Operand = r([2, 4, 3]), ids25 = n([2, 5], -1, 4);
const notRows: Refusal[] = [
  { inputs: [x243, n([3, 5], 0, 3)], says: "is 2 and 3" },
  { inputs: [x243, w([2, 5], 0, 3)], says: "operand 1 is f64, expected i32" },
];

/** The rows. */
export const integerCases: readonly OpCase[] = [
  ...["add", "sub", "mul", "maximum", "minimum", "less", "less_equal"].map((op) => ofIntegers(op, 2)),
  ofIntegers("equal", 2, 2),
  ofIntegers("select", 3),
  {
    op: "mul",
    title: "of integers that wrap around",
    inputs: [n(s23, 1e9, 2e9), n(s23, 1e9, 2e9)],
    gives: ints,
    // (a + 1) (b - 1) + a - b + 1, each term wrapped around
    like: (a, b) => [a.add(1).mul(b.sub(1)).add(a).sub(b).add(1)],
    refuses: [{ inputs: [n(s23, 0, 1), r(s23)], says: "expected operands of one type, got i32[2,3] and f64[2,3]" }],
  },
  {
    op: "less",
    title: "of integers that no f32 can tell apart",
    inputs: [n(s23, 2 ** 30, 2 ** 30 + 3), n(s23, 2 ** 30, 2 ** 30 + 3)],
    gives: ints,
    like: (a, b) => [a.sub(b).less(0)],
  },
  {
    op: "cast",
    title: "of reals to integers",
    inputs: [r(s23, -3, 3)],
    attrs: { dtype: "i32" },
    gives: ints,
    like: (x) => [
      [-2, -1].reduce(
        (sum, k) => sum.sub(x.lessEqual(k)),
        [1, 2].reduce((sum, k) => sum.add(x.constant(k, s23).lessEqual(x)), x.constant(0, s23)),
      )
        .cast("i32"),
    ],
  },
  {
    op: "constant",
    title: "of integers",
    inputs: [],
    attrs: { value: -7, dtype: "i32", shape: s23 },
    gives: ints,
    flops: 0,
    refuses: [
      { inputs: [], attrs: { value: 1.5, dtype: "i32", shape: [] }, says: "expected an integer of i32, got 1.5" },
      { inputs: [], attrs: { value: 2 ** 31, dtype: "i32", shape: [] }, says: "got 2147483648" },
    ],
  },
  {
    op: "take",
    inputs: [x243, ids25],
    gives: ["f64[2,5,3]"],
    flops: 0,
    like: (x, ids) => [rowsOf(ids, 4).contract("b k n, b n d -> b k d", x)],
    refuses: notRows,
  },
  {
    op: "take",
    title: "of one matrix",
    inputs: [r([4, 3]), n([5], -1, 4)],
    gives: ["f64[5,3]"],
    like: (x, ids) => x.reshape("n d -> 1 n d").take(ids.reshape("k -> 1 k")).reshape("1 k d -> k d").apply("copy"),
  },
  {
    op: "take",
    title: "of integers",
    inputs: [n([2, 4, 3], -9, 9), ids25],
    gives: ["i32[2,5,3]"],
    like: (x, ids) => [x.cast("f64").take(ids).cast("i32")],
  },
  {
    op: "take",
    title: "of a slice of the rows",
    inputs: [x243, n([2, 5], -1, 8)],
    attrs: { start: 2, whole: 8 },
    gives: ["f64[2,5,3]"],
    like: (x, ids) => {
      const zeros = x.constant(0, [2, 2, 3]);
      return [zeros.concat([x, zeros], 1).take(ids)];
    },
  },
  {
    op: "scatter_add",
    inputs: [ids25, r([2, 5, 3])],
    attrs: { size: 4 },
    gives: ["f64[2,4,3]"],
    flops: 30,
    like: (ids, rows) => [rowsOf(ids, 4).contract("b k n, b k d -> b n d", rows)],
    refuses: [
      { inputs: [ids25, r([2, 4, 3])], attrs: { size: 4 }, says: "ids are [2,5] and rows [2,4,3]" },
      { inputs: [ids25, n([2, 5, 3], 0, 1)], attrs: { size: 4 }, says: "operand 1 is i32, expected f32 or f64" },
    ],
  },
  {
    op: "scatter_add",
    title: "of a slice of the rows",
    inputs: [n([2, 5], -1, 8), r([2, 5, 3])],
    attrs: { size: 4, start: 2, whole: 8 },
    gives: ["f64[2,4,3]"],
    like: (ids, rows) => [rows.scatterAdd(ids, 8).slice([0, 2, 0], [2, 4, 3])],
  },
  {
    op: "put_rows",
    title: "some of them twice",
    inputs: [x243, ids25, r([2, 5, 3])],
    gives: ["f64[2,4,3]"],
    flops: 0,
    like: (x, ids, rows) => [putOneByOne(x, ids, rows)],
    refuses: [
      { inputs: [x243, ids25, r([2, 5, 2])], says: "is 3 and 2" },
      {
        inputs: [x243, ids25, n([2, 5, 3], 0, 1)],
        says: "operand 2 is i32, expected f64 as operand 0",
      },
    ],
  },
  {
    op: "put_rows",
    title: "of integers",
    inputs: [n([4, 3], -9, 9), n([2], -1, 3), n([2, 3], -9, 9)],
    gives: ["i32[4,3]"],
    like: (x, ids, rows) => [x.cast("f64").putRows(ids, rows.cast("f64")).cast("i32")],
  },
  {
    op: "put_rows",
    title: "of a slice of the rows",
    inputs: [x243, n([2, 5], -1, 8), r([2, 5, 3])],
    attrs: { start: 2, whole: 8 },
    gives: ["f64[2,4,3]"],
    like: (x, ids, rows) => {
      const zeros = x.constant(0, [2, 2, 3]);
      return [zeros.concat([x, zeros], 1).putRows(ids, rows).slice([0, 2, 0], [2, 4, 3])];
    },
  },
  {
    op: "top_k",
    inputs: [r([3, 6])],
    attrs: { k: 3 },
    gives: ["f64[3,3]", "i32[3,3]"],
    flops: 18,
    like: (x) => topByRank(x, 3),
    refuses: [
      { inputs: [r([3, 6])], attrs: { k: 7 }, says: "expected k from 1 to the last of the dims [3,6], got 7" },
      { inputs: [r([3, 6])], attrs: { k: 0 }, says: "got 0" },
      { inputs: [r([])], attrs: { k: 1 }, says: "got 1" },
    ],
  },
  {
    op: "top_k",
    title: "with ties",
    inputs: [w([8, 6], 0, 2)],
    attrs: { k: 4 },
    gives: ["f64[8,4]", "i32[8,4]"],
    wrt: [], // a tie has no derivative
    like: (x) => topByRank(x, 4),
  },
  {
    op: "cumsum",
    inputs: [r([2, 4, 3])],
    attrs: { dim: 1 },
    gives: ["f64[2,4,3]"],
    flops: 24,
    like: (x) => {
      const places = x.constant(1, [4]).cumsum(0), rows = places.reshape("s -> s 1").broadcastTo([4, 4]);
      return [rows.lessEqual(places.broadcastTo([4, 4])).contract("s t, b s d -> b t d", x)];
    },
    refuses: [{ inputs: [r(s23)], attrs: { dim: 2 }, says: "there is no dim 2 among 2" }],
  },
  {
    op: "cumsum",
    title: "exclusive, from the end on",
    inputs: [r([2, 4])],
    attrs: { dim: 1, exclusive: true, reverse: true },
    gives: ["f64[2,4]"],
    like: (x) => [x.sum(1, { keepDims: true }).broadcastTo([2, 4]).sub(x.cumsum(1))],
  },
  {
    op: "cumsum",
    title: "of integers that wrap around",
    inputs: [n([4, 3], 1e9, 2e9)],
    attrs: { dim: 0 },
    gives: ["i32[4,3]"],
    like: (x) => {
      const row = (i: number) => x.slice([i, 0], [1, 3]);
      const sums = [1, 2, 3].reduce((list, i) => [...list, list.at(-1)!.add(row(i))], [row(0)]);
      return [sums[0].concat(sums.slice(1), 0)];
    },
  },
];
