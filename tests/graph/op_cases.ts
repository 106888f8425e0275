/** One row for each op: the only table to extend when an op is added. `ops_test.ts` asks the same questions of every row.
 * @module */
import { typeText } from "../../graph/ir.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { n, onehot, type OpCase, type Operand, r, type Refusal, w } from "./op_case.ts";
import { integerCases } from "./integer_cases.ts";
import { sliceCases } from "./slice_cases.ts";

const s23 = [2, 3], s4 = [4];
const unequal: Refusal[] = [
  { inputs: [r(s23), r([3, 2])], says: "expected operands of one type, got f64[2,3] and f64[3,2]" },
  { inputs: [r(s23), { ...r(s23), dtype: "f32" }], says: "got f64[2,3] and f32[2,3]" },
  { inputs: [r(s23)], says: "expected 2 operands, got 1" },
];
const unreal: Refusal[] = [{ inputs: [n(s23, 0, 3)], says: "expected real operands, got i32; cast first" }];
const same = [typeText(r(s23))];

/** A row of the element-wise family. */
function unary(op: string, x: Operand, like?: OpCase["like"]): OpCase {
  return { op, inputs: [x], gives: same, refuses: unreal, like };
}
function binary(op: string, x: Operand, y: Operand, like?: OpCase["like"]): OpCase {
  return { op, inputs: [x, y], gives: same, refuses: unequal, like };
}

const adamwAttrs = { beta1: 0.9, beta2: 0.95, eps: 1e-3, weight_decay: 0.1 };
const adamw = (n: number): Operand[] => [
  ...[-1.5, -1.5].flatMap((low) => Array<Operand>(n).fill(r(s23, low))),
  ...Array<Operand>(n).fill(r(s23, 0.1, 1)),
  ...Array<Operand>(n).fill(r(s23)),
  r([], 0.1, 0.2),
  w([], 3, 3),
  r([], 0.5, 2),
];
/** One AdamW step, written in element-wise ops. */
function adamwLike(p: Tensor, m: Tensor, v: Tensor, g: Tensor, lr: Tensor, step: Tensor, scale: Tensor): Tensor[] {
  const { beta1, beta2, eps, weight_decay } = adamwAttrs;
  const gs = g.mul(scale), power = (b: number) => step.mul(Math.log(b)).exp();
  const m1 = m.mul(beta1).add(gs.mul(1 - beta1)), v1 = v.mul(beta2).add(gs.square().mul(1 - beta2));
  const one = step.constant(1), mHat = m1.div(one.sub(power(beta1))), vHat = v1.div(one.sub(power(beta2)));
  const decayed = p.sub(p.mul(lr).mul(weight_decay));
  return [decayed.sub(mHat.mul(lr).div(vHat.sqrt().add(eps))), m1, v1];
}

const valid = (targets: Tensor, like: Tensor): Tensor =>
  like.constant(0, [...targets.shape]).lessEqual(targets.cast(like.dtype));

/** Attention written out: scores, a mask from positions (and documents), softmax. H = 4 query heads over G = 2. */
function attentionLike(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  qPositions: Tensor,
  kPositions: Tensor,
  ...ids: Tensor[]
): Tensor[] {
  const [B, T, H, K] = q.shape, [, S, G] = k.shape, all = [B, H, T, S];
  const spread = (t: Tensor) =>
    t.reshape("b s g k -> b s g 1 k").broadcastTo([B, S, G, H / G, K].map((n) => n)).reshape(
      "b s g r k -> b s (g r) k",
    );
  const scores = q.contract("b t h k, b s h k -> b h t s", spread(k)).mul(0.7);
  const rows = (t: Tensor) => t.cast("f64").reshape("b t -> b 1 t 1").broadcastTo(all);
  const columns = (t: Tensor) => t.cast("f64").reshape("b s -> b 1 1 s").broadcastTo(all);
  let seen = columns(kPositions).lessEqual(rows(qPositions));
  if (ids.length > 0) seen = seen.mul(columns(ids[1]).equal(rows(ids[0])));
  const e = scores.exp().mul(seen), sum = e.sum(3);
  const p = e.div(sum.reshape("b h t -> b h t 1"));
  return [p.contract("b h t s, b s h k -> b t h k", spread(v)), sum.log()];
}

const [B, T, S, H, G, K] = [2, 3, 4, 4, 2, 2];
const qkv = [r([B, T, H, K]), r([B, S, G, K]), r([B, S, G, K])];
// Key positions reach below every query's, so that each query sees a key.
const places = [n([B, T], 3, 5), n([B, S], 0, 3)], tables = [r([B, T, K]), r([B, S, K])];
const ropeAttrs = { theta: 100, factor: 8, low: 1, high: 4, original: 64 };

/** The table. */
export const cases: readonly OpCase[] = [
  binary("add", r(s23), r(s23)),
  binary("sub", r(s23), r(s23), (a, b) => [a.add(b.neg())]),
  binary("mul", r(s23), r(s23)),
  binary("div", r(s23), r(s23, 0.5, 2), (a, b) => [a.mul(b.reciprocal())]),
  binary("maximum", r(s23), r(s23), (a, b) => [a.less(b).select(b, a)]),
  binary("minimum", r(s23), r(s23), (a, b) => [a.less(b).select(a, b)]),
  binary("less", r(s23), r(s23), (a, b) => [a.constant(1, s23).sub(b.lessEqual(a))]),
  binary("less_equal", r(s23), r(s23), (a, b) => [a.less(b).add(a.equal(b))]),
  binary("equal", w(s23, 0, 2), w(s23, 0, 2), (a, b) => [a.lessEqual(b).mul(b.lessEqual(a))]),
  unary("neg", r(s23), (x) => [x.mul(-1)]),
  unary("abs", r(s23), (x) => [x.square().sqrt()]),
  unary("exp", r(s23)),
  unary("log", r(s23, 0.2, 3)),
  unary("sqrt", r(s23, 0.2, 3), (x) => [x.log().mul(0.5).exp()]),
  unary("rsqrt", r(s23, 0.2, 3), (x) => [x.sqrt().reciprocal()]),
  unary("tanh", r(s23), (x) => [x.mul(2).sigmoid().mul(2).sub(1)]),
  unary("sigmoid", r(s23), (x) => [x.neg().exp().add(1).reciprocal()]),
  unary("silu", r(s23), (x) => [x.mul(x.sigmoid())]),
  unary("relu", r(s23), (x) => [x.maximum(0)]),
  unary("square", r(s23), (x) => [x.mul(x)]),
  unary("reciprocal", r(s23, 0.5, 2), (x) => [x.constant(1, s23).div(x)]),
  // Below 2: from above, the first power of two that is not larger.
  unary("floor_power_of_two", r(s23), (x) => {
    const size = x.abs(), power = (e: number) => x.constant(2 ** e, s23);
    const found = Array.from({ length: 31 }, (_, i) => i - 30)
      .reduce((y, e) => power(e).lessEqual(size).select(power(e), y), x.constant(0, s23));
    return [x.less(0).select(found.neg(), found)];
  }),
  {
    op: "select",
    inputs: [w(s23, 0, 1), r(s23), r(s23)],
    gives: same,
    like: (c, a, b) => [c.mul(a).add(c.sub(1).neg().mul(b))],
    refuses: [{ inputs: [w(s23, 0, 1), r(s23), r(s4)], says: "expected operands of one type" }],
  },
  {
    op: "cast",
    inputs: [n(s23, -3, 3)],
    attrs: { dtype: "f64" },
    gives: same,
    refuses: [
      {
        inputs: [r(s23)],
        attrs: { dtype: "f32" },
        says: "expected i32 to or from a real type, or f32 to or from bf16 or float8, got f64 to f32",
      },
      { inputs: [n(s23, 0, 1)], attrs: { dtype: "i32" }, says: "got i32 to i32" },
    ],
  },
  {
    op: "constant",
    inputs: [],
    attrs: { value: 1.5, dtype: "f64", shape: s23 },
    gives: same,
    flops: 0,
  },
  {
    op: "reduce",
    title: "sum",
    inputs: [r([2, 3, 4])],
    attrs: { dims: "a b c -> c a", kind: "sum" },
    gives: ["f64[4,2]"],
    like: (x) => [x.transpose("a b c -> c a b").contract("c a b, b -> c a", x.constant(1, [3]))],
    refuses: [
      { inputs: [r(s23)], attrs: { dims: "a b c -> a", kind: "sum" }, says: "operand 0 needs 3 dims, has 2" },
      { inputs: [r(s23)], attrs: { dims: "a b -> c", kind: "sum" }, says: `the size of "c" is unknown` },
    ],
  },
  {
    op: "reduce",
    title: "max",
    inputs: [r([2, 3])],
    attrs: { dims: "a b -> a", kind: "max" },
    gives: ["f64[2]"],
    like: (x) => [
      x.transpose(0, 1).slice([0, 0], [1, 2]).reshape("1 a -> a")
        .maximum(x.transpose(0, 1).slice([1, 0], [1, 2]).reshape("1 a -> a"))
        .maximum(x.transpose(0, 1).slice([2, 0], [1, 2]).reshape("1 a -> a")),
    ],
  },
  {
    op: "reduce",
    title: "max_abs",
    inputs: [r([2, 3])],
    attrs: { dims: "a b -> b", kind: "max_abs" },
    gives: ["f64[3]"],
    like: (x) => x.abs().apply("reduce", [], { dims: "a b -> b", kind: "max" }),
  },
  {
    op: "reshape",
    inputs: [r([2, 3, 4])],
    attrs: { dims: "a b (c d) -> (a b) 1 c d", sizes: { c: 2 } },
    gives: ["f64[6,1,2,2]"],
    flops: 0,
    refuses: [
      { inputs: [r(s23)], attrs: { dims: "a b -> b a" }, says: "reorders dims; use transpose" },
      { inputs: [r(s23)], attrs: { dims: "a (b c) -> a b c" }, says: `"(b c)" needs the size of c` },
      {
        inputs: [r(s23)],
        attrs: { dims: "a (b c) -> a b c", sizes: { b: 2 } },
        says: "dim 1 of operand 0 is 3, not a multiple of 2",
      },
    ],
  },
  {
    op: "transpose",
    inputs: [r([2, 3, 4])],
    attrs: { dims: "a b c -> c a b" },
    gives: ["f64[4,2,3]"],
    flops: 0,
    like: (x) => [x.transpose(0, 1).transpose(0, 2)],
    refuses: [{ inputs: [r(s23)], attrs: { dims: "a b -> b" }, says: "is not a permutation" }],
  },
  {
    op: "broadcast",
    inputs: [r([3])],
    attrs: { dims: "b -> a b c", sizes: { a: 2, b: 3, c: 2 } },
    gives: ["f64[2,3,2]"],
    flops: 0,
    like: (x) => [x.constant(1, [2]).contract("a, b -> a b", x).contract("a b, c -> a b c", x.constant(1, [2]))],
    refuses: [
      { inputs: [r([3])], attrs: { dims: "b -> a b", sizes: { a: 2, b: 4 } }, says: `"b" is 4 and 3` },
      { inputs: [r([3])], attrs: { dims: "b -> a b", sizes: {} }, says: `the size of "a" is unknown` },
    ],
  },
  {
    op: "slice",
    inputs: [r([4, 3])],
    attrs: { starts: [1, 0], shape: [2, 2] },
    gives: ["f64[2,2]"],
    flops: 0,
    refuses: [
      {
        inputs: [r(s23)],
        attrs: { starts: [1, 0], shape: [2, 3] },
        says: "box [1,0] + [2,3] does not lie inside f64[2,3]",
      },
      { inputs: [r(s23)], attrs: { starts: [0], shape: [2] }, says: "does not lie inside" },
    ],
  },
  {
    op: "concat",
    inputs: [r([2, 3]), r([2, 1]), r([2, 2])],
    attrs: { dim: 1 },
    gives: ["f64[2,6]"],
    flops: 0,
    refuses: [
      { inputs: [r(s23), r([3, 3])], attrs: { dim: 1 }, says: "f64[3,3] does not fit f64[2,3] along dim 1" },
      { inputs: [r(s23), r(s23)], attrs: { dim: 2 }, says: "dim 2" },
    ],
  },
  {
    op: "copy",
    inputs: [r(s23)],
    gives: same,
    flops: 0,
    like: (x) => [x.transpose(0, 1).transpose(0, 1)],
    refuses: [{ inputs: [r(s23), r(s23)], says: "expected 1 operands, got 2" }],
  },
  {
    op: "contract",
    title: "by weights",
    inputs: [r([2, 3, 4]), r([5, 4])],
    attrs: { dims: "b t i, o i -> b t o" },
    gives: ["f64[2,3,5]"],
    flops: 2 * 2 * 3 * 4 * 5,
    like: (x, w) => [x.reshape("b t i -> b t 1 i").broadcastTo([2, 3, 5, 4]).mul(w.broadcastTo([2, 3, 5, 4])).sum(3)],
    refuses: [
      { inputs: [r([2, 3]), r([4, 5])], attrs: { dims: "a b, b c -> a c" }, says: `"b" is 3 and 4` },
      {
        inputs: [r([2, 3]), r([2, 5])],
        attrs: { dims: "a b, a c -> a c" },
        says: `sums over "b", which only one operand has; reduce it first`,
      },
      { inputs: [r([2, 3])], attrs: { dims: "a b -> a" }, says: "needs two operands" },
      { inputs: [n([2, 3], 0, 1), n([3, 2], 0, 1)], attrs: { dims: "a b, b c -> a c" }, says: "i32" },
      {
        inputs: [r([2, 3]), { ...r([3, 2]), dtype: "f32" }],
        attrs: { dims: "a b, b c -> a c" },
        says: "operands are f64 and f32; cast one of them",
      },
    ],
  },
  {
    op: "contract",
    title: "batched, transposed result",
    inputs: [r([2, 3, 4]), r([2, 4, 2])],
    attrs: { dims: "b m k, b k n -> n b m" },
    gives: ["f64[2,2,3]"],
  },
  {
    op: "contract",
    title: "of experts",
    inputs: [r([3, 2, 4]), r([3, 5, 4])],
    attrs: { dims: "e c d, e f d -> e c f" },
    gives: ["f64[3,2,5]"],
    flops: 2 * 3 * 2 * 4 * 5,
    like: (x, w) => {
      const expert = (t: Tensor, e: number) => t.slice([e, 0, 0], [1, ...t.shape.slice(1)]).reshape("1 a d -> a d");
      const each = [0, 1, 2].map((e) => expert(x, e).matmul(expert(w, e).transpose(0, 1)).reshape("c f -> 1 c f"));
      return [each[0].concat(each.slice(1))];
    },
  },
  { op: "contract", title: "outer", inputs: [r([2]), r([3])], attrs: { dims: "a, b -> a b" }, gives: same },
  {
    op: "embedding",
    inputs: [n([2, 3], 0, 3), r([4, 2])],
    gives: ["f64[2,3,2]"],
    flops: 0,
    refuses: [
      { inputs: [n([2], 0, 3), r([4])], says: "operand 1 needs 2 dims, has 1" },
      { inputs: [w([2], 0, 3), r([4, 2])], says: "i32" },
    ],
  },
  {
    op: "embedding_backward",
    inputs: [n([2, 3], 0, 3), r([2, 3, 2])],
    attrs: { rows: 4 },
    gives: ["f64[4,2]"],
    refuses: [{ inputs: [n([2], 0, 3), r([3, 2])], attrs: { rows: 4 }, says: "ids and dy differ in rows" }],
  },
  {
    op: "rmsnorm",
    inputs: [r([2, 3, 4]), r([4])],
    attrs: { eps: 0.01 },
    gives: ["f64[2,3,4]", "f64[2,3]"],
    outputs: [0],
    flops: 4 * 24,
    like: (x, w) => {
      const rstd = x.square().mean(2).add(0.01).rsqrt();
      return [x.mul(rstd.reshape("a b -> a b 1")).mul(w), rstd];
    },
    refuses: [{ inputs: [r([2, 4]), r([3])], attrs: { eps: 0.01 }, says: `"d" is 4 and 3` }],
  },
  {
    op: "softmax",
    inputs: [r([2, 3, 5])],
    gives: ["f64[2,3,5]"],
    flops: 5 * 30,
    like: (x) => {
      const e = x.sub(x.max(2, { keepDims: true })).exp();
      return [e.div(e.sum(2, { keepDims: true }))];
    },
    refuses: [{ inputs: [r([])], says: "dims" }],
  },
  {
    op: "add_rmsnorm",
    inputs: [r([2, 3, 4]), r([2, 3, 4]), r([4])],
    attrs: { eps: 0.01 },
    gives: ["f64[2,3,4]", "f64[2,3,4]", "f64[2,3]"],
    gradient: false,
    flops: 5 * 24,
    like: (x, r, w) => [x.add(r), ...x.add(r).apply("rmsnorm", [w], { eps: 0.01 })],
    refuses: [{ inputs: [r([2, 4]), r([3, 4]), r([4])], attrs: { eps: 0.01 }, says: "is 2 and 3" }],
  },
  {
    op: "rmsnorm_backward",
    title: "with a residual",
    inputs: [r([3, 4]), r([3], 0.5, 1), r([4]), r([3, 4]), r([3, 4])],
    gives: ["f64[3,4]", "f64[4]"],
    gradient: false,
    flops: 10 * 12,
    like: (x, rstd, w, dy, residual) => {
      const [dx, dw] = x.apply("rmsnorm_backward", [rstd, w, dy]);
      return [residual.add(dx), dw];
    },
    refuses: [{ inputs: [r([3, 4]), r([3]), r([4]), r([4])], says: "" }],
  },
  {
    op: "rope_table",
    inputs: [n([2, 3], 0, 60)],
    attrs: { ...ropeAttrs, dtype: "f64", size: 4 },
    gives: ["f64[2,3,4]"],
    refuses: [
      { inputs: [r([2, 3])], attrs: { ...ropeAttrs, dtype: "f64", size: 4 }, says: "positions are f64, expected i32" },
      {
        inputs: [n([2], 0, 1)],
        attrs: { ...ropeAttrs, dtype: "f64", size: 3 },
        says: "head size 3 is odd; rotation needs pairs",
      },
    ],
  },
  {
    op: "rope",
    inputs: [r([2, 3, 2, 4]), r([2, 3, 4])],
    attrs: { inverse: false },
    gives: ["f64[2,3,2,4]"],
    wrt: [0],
    like: (x, table) => {
      const part = (t: Tensor, i: number) => {
        const pairs = t.reshape(t.shape.length > 3 ? "b t h (k p) -> b t h k p" : "b t (k p) -> b t k p", { p: 2 });
        const starts = pairs.shape.map((_, d) => d === pairs.shape.length - 1 ? i : 0);
        return pairs.slice(starts, pairs.shape.map((n, d) => d === pairs.shape.length - 1 ? 1 : n));
      };
      const turn = (i: number) => part(table, i).reshape("b t k 1 -> b t 1 k 1").broadcastTo([2, 3, 2, 2, 1]);
      const [a, b, cos, sin] = [part(x, 0), part(x, 1), turn(0), turn(1)];
      const pairs = a.mul(cos).sub(b.mul(sin)).concat([a.mul(sin).add(b.mul(cos))], 4);
      return [pairs.reshape("b t h k p -> b t h (k p)")];
    },
    refuses: [{ inputs: [r([2, 3, 2, 4]), r([2, 3, 2])], attrs: { inverse: false }, says: `"k" is 4 and 2` }],
  },
  {
    op: "attention",
    inputs: [...qkv, ...places],
    attrs: { scale: 0.7, documents: false },
    gives: ["f64[2,3,4,2]", "f64[2,4,3]"],
    outputs: [0],
    flops: 2 * B * T * H * K * S,
    like: attentionLike,
    refuses: [
      {
        inputs: [r([2, 3, 3, 2]), ...qkv.slice(1), ...places],
        attrs: { scale: 1 },
        says: "3 query heads are not a multiple of 2 key/value heads",
      },
      {
        inputs: [r([2, 3, 4, 3]), r([2, 4, 2, 3]), r([2, 4, 2, 3]), ...places],
        attrs: { scale: 1 },
        says: "head size 3 is odd, expected even",
      },
      {
        inputs: [r([1, 3, 4, 2]), ...qkv.slice(1), ...places],
        attrs: { scale: 1 },
        says: "do not fit [b,t,h,k], [b,s,g,k], [b,s,g,k]",
      },
      {
        inputs: [...qkv, r([B, T], 3, 5), places[1]],
        attrs: { scale: 1 },
        says: "query positions are f64[2,3], expected i32[2,3]",
      },
      {
        inputs: [...qkv, places[0], places[0]],
        attrs: { scale: 1 },
        says: "key positions are i32[2,3], expected i32[2,4]",
      },
      { inputs: [...qkv, ...places], attrs: { scale: 1, documents: true }, says: "" },
    ],
  },
  {
    op: "attention",
    title: "within documents",
    inputs: [...qkv, ...places, n([B, T], 0, 0), n([B, S], 0, 1)],
    attrs: { scale: 0.7, documents: true },
    gives: ["f64[2,3,4,2]", "f64[2,4,3]"],
    outputs: [0],
    flops: 2 * B * T * H * K * S,
    like: attentionLike,
  },
  {
    op: "attention",
    title: "with rotation",
    inputs: [...qkv, ...places, ...tables],
    attrs: { scale: 0.7, documents: false, rope: true },
    gives: ["f64[2,3,4,2]", "f64[2,4,3]"],
    outputs: [0],
    wrt: [0, 1, 2],
    flops: 2 * B * T * H * K * S,
    like: (q, k, v, qp, kp, qt, kt) => {
      const turn = (x: Tensor, table: Tensor) => x.apply("rope", [table], { inverse: false })[0];
      return turn(q, qt).apply("attention", [turn(k, kt), v, qp, kp], { scale: 0.7, documents: false });
    },
  },
  {
    op: "attention",
    title: "on top of that to other keys",
    inputs: [...qkv, r([B, T, H, K]), r([B, H, T], -1, 2), ...places],
    attrs: { scale: 0.7, documents: false, others: true },
    gives: ["f64[2,3,4,2]", "f64[2,4,3]"],
    gradient: false,
    flops: 2 * B * T * H * K * S,
    like: (q, k, v, o, otherLse, ...places) => {
      const [own, ownLse] = attentionLike(q, k, v, ...places as [Tensor, Tensor]);
      const lse = ownLse.exp().add(otherLse.exp()).log();
      const weigh = (x: Tensor, part: Tensor) =>
        x.mul(part.sub(lse).exp().reshape("b h t -> b h t 1").transpose(1, 2).broadcastTo([B, T, H, K]));
      return [weigh(own, ownLse).add(weigh(o, otherLse)), lse];
    },
    refuses: [
      {
        inputs: [...qkv, r([B, T, H, 1]), r([B, H, T]), ...places],
        attrs: { scale: 1, others: true },
        says: "o of the other keys is f64[2,3,4,1], expected f64[2,3,4,2]",
      },
      {
        inputs: [...qkv, r([B, T, H, K]), r([B, T, H]), ...places],
        attrs: { scale: 1, others: true },
        says: "lse of the other keys is f64[2,3,4], expected f64[2,4,3]",
      },
    ],
  },
  {
    op: "attention_backward",
    title: "with rotation",
    inputs: [...qkv, r([B, T, H, K]), r([B, H, T], 2, 3), r([B, T, H, K]), ...places, ...tables],
    attrs: { scale: 0.7, documents: false, rope: true },
    gives: ["f64[2,3,4,2]", "f64[2,4,2,2]", "f64[2,4,2,2]"],
    gradient: false,
    flops: 5 * B * T * H * K * S,
    like: (q, k, v, o, lse, dout, qp, kp, qt, kt) => {
      const turn = (x: Tensor, table: Tensor, inverse = false) => x.apply("rope", [table], { inverse })[0];
      const rest = [turn(k, kt), v, o, lse, dout, qp, kp];
      const [dq, dk, dv] = turn(q, qt).apply("attention_backward", rest, { scale: 0.7, documents: false });
      return [turn(dq, qt, true), turn(dk, kt, true), dv];
    },
    refuses: [{ inputs: [r([1, 3, 4, 2]), ...qkv.slice(1)], attrs: { scale: 1 }, says: "do not fit" }],
  },
  {
    op: "cross_entropy",
    inputs: [r([2, 3, 4]), n([2, 3], -1, 3)],
    attrs: { ignore_index: -1 },
    gives: ["f64[]", "f64[]", "f64[2,3]"],
    outputs: [0],
    flops: 4 * 24,
    like: (logits, targets) => {
      const lse = logits.exp().sum(2).log(), counted = valid(targets, logits);
      const picked = logits.mul(onehot(targets, logits)).sum(2);
      return [lse.sub(picked).mul(counted).sum(), counted.sum(), lse];
    },
    refuses: [
      { inputs: [r([2, 3, 4]), n([2, 2], 0, 3)], attrs: { ignore_index: -1 }, says: "is 3 and 2" },
      { inputs: [r([2, 4]), w([2], 0, 3)], attrs: { ignore_index: -1 }, says: "i32" },
    ],
  },
  {
    op: "cross_entropy_backward",
    inputs: [r([2, 3, 4]), n([2, 3], -1, 3), r([2, 3], 1, 2), r([])],
    attrs: { ignore_index: -1 },
    gives: ["f64[2,3,4]"],
    gradient: false,
    flops: 3 * 24,
    like: (logits, targets, lse, dloss) => {
      const p = logits.sub(lse.reshape("a b -> a b 1")).exp();
      const counted = valid(targets, logits).reshape("a b -> a b 1");
      return [p.sub(onehot(targets, logits)).mul(counted).mul(dloss)];
    },
    refuses: [{ inputs: [r([2, 4]), n([2], 0, 3), r([3]), r([])], attrs: { ignore_index: -1 }, says: "is 2 and 3" }],
  },
  {
    op: "sum_squares",
    inputs: [r([2, 3]), r([4])],
    gives: ["f64[]"],
    flops: 2 * 10,
    like: (x, y) => [x.square().sum().add(y.square().sum())],
    refuses: [{ inputs: [n([2], 0, 3)], says: "i32" }],
  },
  {
    op: "adamw",
    title: "of one parameter",
    inputs: adamw(1),
    attrs: adamwAttrs,
    gives: ["f64[2,3]", "f64[2,3]", "f64[2,3]"],
    gradient: false,
    flops: 15 * 6,
    like: (...x) => adamwLike(...x as Parameters<typeof adamwLike>),
    refuses: [{
      inputs: adamw(1).slice(1),
      attrs: adamwAttrs,
      says: "expected p, m, v, g for each parameter, then lr, step, scale",
    }],
  },
  {
    op: "adamw",
    title: "of two parameters",
    inputs: adamw(2),
    attrs: adamwAttrs,
    gives: Array(6).fill("f64[2,3]"),
    gradient: false,
    flops: 15 * 12,
    like: (p0, p1, m0, m1, v0, v1, g0, g1, ...scalars) => {
      const [lr, step, scale] = scalars;
      const [a, b] = [adamwLike(p0, m0, v0, g0, lr, step, scale), adamwLike(p1, m1, v1, g1, lr, step, scale)];
      return a.flatMap((x, i) => [x, b[i]]);
    },
  },
  {
    op: "map",
    inputs: [r(s23), r(s23)],
    attrs: {
      program: { constants: [0.5], steps: [["mul", 0, 1], ["add", 3, 2], ["silu", 4]], results: [5, 3] },
      dtype: "f64",
      shape: s23,
    },
    gives: ["f64[2,3]", "f64[2,3]"],
    gradient: false,
    flops: 3 * 6,
    like: (a, b) => [a.mul(b).add(0.5).silu(), a.mul(b)],
    refuses: [{
      inputs: [r(s23), r(s4)],
      attrs: { program: { constants: [], steps: [], results: [0] }, dtype: "f64", shape: [2, 3] },
      says: "operands differ in shape",
    }],
  },
  {
    op: "random",
    inputs: [n([2], 0, 1000)],
    attrs: { kind: "uniform", name: "w", a: 0, b: 1, dtype: "f64", shape: s23 },
    gives: same,
    like: (seed) => {
      const box = (starts: number[]) => ({
        kind: "uniform",
        name: "w",
        a: 0,
        b: 1,
        dtype: "f64",
        shape: [1, 3],
        whole: s23,
        starts,
        ends: s23,
      });
      return [seed.apply("random", [], box([0, 0]))[0].concat(seed.apply("random", [], box([1, 0])), 0)];
    },
    refuses: [{
      inputs: [n([2], 0, 1)],
      attrs: { kind: "gauss", name: "w", a: 0, b: 1, dtype: "f64", shape: [] },
      says: `kind "gauss" is none of uniform, normal, truncated_normal`,
    }],
  },
  ...sliceCases,
  ...integerCases,
];
