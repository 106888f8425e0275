import { assertEquals, assertThrows } from "@std/assert";
import { f32, f64, i32 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { trace } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";

/** Shape and elements of what `fn` makes of arrays. */
function run(fn: (...x: Tensor[]) => Tensor, ...inputs: [shape: number[], data: number[]][]): [number[], number[]] {
  const graph = verify(trace(fn, ...inputs.map(([shape]) => f64(...shape))));
  const { y0 } = interpret(graph, { inputs: Object.fromEntries(inputs.map(([, data], i) => [`x${i}`, data])) });
  return [[...y0.shape], [...y0.data]];
}

const m: [number[], number[]] = [[2, 3], [1, 2, 3, 4, 5, 6]];
const v: [number[], number[]] = [[3], [10, 20, 30]];
const c: [number[], number[]] = [[2, 1], [100, 200]];

Deno.test("shapes broadcast as in NumPy, from either side", () => {
  assertEquals(run((x, y) => x.add(y), m, v), [[2, 3], [11, 22, 33, 14, 25, 36]]);
  assertEquals(run((x, y) => y.sub(x), m, v), [[2, 3], [9, 18, 27, 6, 15, 24]]);
  assertEquals(run((x, y) => x.add(y), m, c), [[2, 3], [101, 102, 103, 204, 205, 206]]);
  assertEquals(run((x, y) => x.add(y), v, c), [[2, 3], [110, 120, 130, 210, 220, 230]]);
  assertEquals(run((x) => x.mul(2), m), [[2, 3], [2, 4, 6, 8, 10, 12]]);
  assertThrows(
    () => trace((x, y) => x.add(y), f64(2, 3), f64(2)),
    TypeError,
    `Cannot apply "add" to shapes [2,3] and [2]: sizes 3 and 2 differ`,
  );
});

Deno.test("broadcastTo keeps dims that are 1 on both sides, and adds leading ones", () => {
  assertEquals(run((x) => x.broadcastTo([1, 2, 1]), [[2, 1], [5, 6]]), [[1, 2, 1], [5, 6]]);
  assertEquals(run((x) => x.broadcastTo([2, 2]), [[], [7]]), [[2, 2], [7, 7, 7, 7]]);
  assertEquals(trace((x) => x.broadcastTo([2, 3]), f64(2, 3)).nodes, []);
});

Deno.test("expandDims adds a dim at any place, counted from either end", () => {
  const shapes = [0, 1, 2, -1, -2, -3].map((dim) => run((x) => x.expandDims(dim), m)[0]);
  assertEquals(shapes, [[1, 2, 3], [2, 1, 3], [2, 3, 1], [2, 3, 1], [2, 1, 3], [1, 2, 3]]);
  assertEquals(run((x) => x.expandDims(), [[], [7]]), [[1], [7]]);
  assertThrows(
    () => trace((x) => x.expandDims(3), f64(2, 3)),
    RangeError,
    "Cannot add dim 3 to a tensor of 2 dims: expected -3 to 2",
  );
});

Deno.test("sums, maxima and means go over the dims asked for, counted from either end", () => {
  assertEquals(run((x) => x.sum(), m), [[], [21]]);
  assertEquals(run((x) => x.sum(-1), m), [[2], [6, 15]]);
  assertEquals(run((x) => x.max(0, { keepDims: true }), m), [[1, 3], [4, 5, 6]]);
  assertEquals(run((x) => x.mean([0, 1]), m), [[], [3.5]]);
  assertEquals(run((x) => x.mean(0), m), [[3], [2.5, 3.5, 4.5]]);
  assertThrows(() => trace((x) => x.sum(2), f64(2, 3)), RangeError, "Cannot use dim 2 of a tensor of 2 dims");
});

Deno.test("a softmax sums to one along its dim and does not overflow", () => {
  const [shape, data] = run((x) => x.softmax(0), [[2, 2], [1000, 0, 1001, 0]]);
  assertEquals(shape, [2, 2]);
  const p = 1 / (1 + Math.E);
  data.forEach((x, i) => assertEquals(Math.abs(x - [p, 0.5, 1 - p, 0.5][i]) < 1e-15, true, `${data}`));
});

Deno.test("matmul takes matrices, shared and absent leading dims", () => {
  const w: [number[], number[]] = [[3, 2], [1, 0, 0, 1, 1, 1]];
  assertEquals(run((x, y) => x.matmul(y), m, w), [[2, 2], [4, 5, 10, 11]]);
  assertEquals(run((x, y) => x.reshape("a b -> 1 a b").matmul(y), m, w), [[1, 2, 2], [4, 5, 10, 11]]);
  const batched = (x: Tensor, y: Tensor) => x.reshape("a b -> a 1 b").matmul(y.transpose(0, 1).reshape("a b -> a b 1"));
  assertEquals(run(batched, m, w), [[2, 1, 1], [4, 11]]);
  assertThrows(
    () => trace((x, y) => x.matmul(y), f64(3), f64(3, 2)),
    TypeError,
    "Cannot multiply shapes [3] and [3,2]",
  );
  assertThrows(() => trace((x, y) => x.matmul(y), f64(2, 3), f64(2, 3, 2)), TypeError, "expected [..., m, k]");
});

Deno.test("dims are swapped, split, sliced and joined", () => {
  assertEquals(run((x) => x.transpose(0, -1), m), [[3, 2], [1, 4, 2, 5, 3, 6]]);
  assertEquals(run((x) => x.transpose("a b -> b a"), m), [[3, 2], [1, 4, 2, 5, 3, 6]]);
  assertEquals(run((x) => x.slice([0, 1], [2, 2]), m), [[2, 2], [2, 3, 5, 6]]);
  assertEquals(run((x, y) => x.concat([y], -1), m, c), [[2, 4], [1, 2, 3, 100, 4, 5, 6, 200]]);
});

Deno.test("comparisons make ones and zeros for select", () => {
  assertEquals(run((x) => x.less(3), m), [[2, 3], [1, 1, 0, 0, 0, 0]]);
  assertEquals(run((x) => x.lessEqual(3), m), [[2, 3], [1, 1, 1, 0, 0, 0]]);
  assertEquals(run((x) => x.equal(3).select(x.neg(), x), m), [[2, 3], [1, 2, -3, 4, 5, 6]]);
});

Deno.test("rows are taken, put and summed by index, and an index that is no row counts for nothing", () => {
  const x: [number[], number[]] = [[3, 2], [1, 2, 3, 4, 5, 6]], ids: [number[], number[]] = [[4], [2, -1, 0, 3]];
  const at = (i: Tensor) => i.cast("i32");
  assertEquals(run((x, i) => x.take(at(i)), x, ids), [[4, 2], [5, 6, 0, 0, 1, 2, 0, 0]]);
  assertEquals(run((x, i) => x.take(at(i)).scatterAdd(at(i), 3), x, ids), [[3, 2], [1, 2, 0, 0, 5, 6]]);
  const put = (x: Tensor, i: Tensor) => x.putRows(at(i), x.constant(9, [4, 2]));
  assertEquals(run(put, x, ids), [[3, 2], [9, 9, 3, 4, 9, 9]]);
  assertEquals(run((i) => at(i).oneHot(3, "f64"), [[2, 2], [0, 2, -1, 3]]), [[2, 2, 3], [
    1,
    0,
    0,
    0,
    0,
    1,
    ...Array(6).fill(0),
  ]]);
});

Deno.test("the largest come first, of equal ones the lower index, and not-a-number before all", () => {
  const x: [number[], number[]] = [[2, 4], [1, 3, 3, 2, 0, -Infinity, NaN, Infinity]];
  assertEquals(run((x) => x.topK(3)[0], x), [[2, 3], [3, 3, 2, NaN, Infinity, 0]]);
  assertEquals(run((x) => x.topK(3)[1], x), [[2, 3], [1, 2, 3, 2, 3, 0]]);
  assertEquals(run((x) => x.argmax(), x), [[2], [1, 2]]);
  assertEquals(run((x) => x.argmax(), [[3], [1, 5, 5]]), [[], [1]]);
});

Deno.test("running sums go along any dim, counted from either end, with or without their own element", () => {
  assertEquals(run((x) => x.cumsum(), m), [[2, 3], [1, 3, 6, 4, 9, 15]]);
  assertEquals(run((x) => x.cumsum(0, { exclusive: true }), m), [[2, 3], [0, 0, 0, 1, 2, 3]]);
  assertEquals(run((x) => x.cumsum(-2, { reverse: true }), m), [[2, 3], [5, 7, 9, 4, 5, 6]]);
});

Deno.test("integers are compared and computed exactly, and reals become integers without their fraction", () => {
  const large = 2 ** 30, graph = trace((i) => [i.less(large + 1), i.add(large).add(large), i.equal(large)], i32(2));
  const { y0, y1, y2 } = interpret(graph, { inputs: { x0: [large, large + 1] } });
  assertEquals([[...y0.data], [...y1.data], [...y2.data]], [[1, 0], [-large, 1 - large], [1, 0]]);
  const cut = run((x) => x.cast("i32"), [[6], [1.9, -1.9, -0.1, NaN, 1e10, -Infinity]]);
  assertEquals(cut, [[6], [1, -1, 0, 0, 2 ** 31 - 1, -(2 ** 31)]]);
});

Deno.test("a cast to its own type is no node, and constants take the tensor's type", () => {
  const graph = trace((x, n) => x.cast("f32").add(n.cast("f32")).add(1), f32(2), i32(2));
  assertEquals(graph.nodes.map((n) => n.op), ["cast", "add", "constant", "add"]);
  assertEquals(graph.nodes[2].outputs[0].dtype, "f32");
  assertThrows(
    () => trace((n) => n.constant(0.5), i32(2)),
    TypeError,
    "Cannot make an i32 constant of 0.5: expected an integer",
  );
});

Deno.test("an op without a method of its own is applied by name", () => {
  const graph = trace((x, w) => x.apply("rmsnorm", [w], { eps: 1 })[0], f64(2, 3), f64(3));
  assertEquals(graph.nodes[0].outputs.length, 2);
});
