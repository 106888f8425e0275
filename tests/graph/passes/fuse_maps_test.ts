import { assert, assertEquals } from "@std/assert";
import { f64, i32 } from "../../../graph/builder.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { programOf } from "../../../graph/ops/map.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { constant, Tensor } from "../../../graph/tensor.ts";
import { grad, type TensorFunction, trace, traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { assertSameMeaning } from "../random_graphs.ts";
import { opsOf } from "./graphs.ts";
import { at } from "../origins.ts";
import { fuseMaps } from "./on_cpu.ts";

function apply(graph: Graph): Graph {
  const text = print(graph), after = verify(fuseMaps(verify(graph)));
  assertEquals(print(graph), text, "the graph it was given has changed");
  assertSameMeaning(graph, after, 1);
  return after;
}

/** Steps of each map: `"silu mul"`. */
function programs(graph: Graph): string[] {
  return graph.nodes.filter((n) => n.op === "map").map((n) => programOf(n.attrs).steps.map(([op]) => op).join(" "));
}

const fused = (fn: TensorFunction, ...shapes: number[][]): Graph => apply(trace(fn, ...shapes.map((s) => f64(...s))));

Deno.test("a chain is one map, with its constants inside", () => {
  const after = fused((x) => x.mul(2).add(1).exp().mul(2), [3]);
  assertEquals(opsOf(after), ["map"]);
  const { constants, steps, results } = programOf(after.nodes[0].attrs);
  assertEquals([constants, results], [[2, 1], [6]]);
  assertEquals(steps, [["mul", 0, 1], ["add", 3, 2], ["exp", 4], ["mul", 5, 1]]);
});

Deno.test("what reads one value is one map with several results", () => {
  const after = fused((x) => [x.exp(), x.tanh()], [3]);
  assertEquals(programs(after), ["exp tanh"]);
  assertEquals(after.nodes[0].outputs.length, 2);
});

Deno.test("work on other shapes and of other types stays apart", () => {
  assertEquals(programs(fused((x) => x.exp().transpose(0, 1).tanh(), [2, 3])), ["exp", "tanh"]);
  assertEquals(programs(fused((x) => x.exp().sum(0).tanh(), [2, 2])), ["exp", "tanh"]);
  const mixed = trace((i) => [i.cast("f32").exp(), i.cast("f64").exp()], i32(2));
  assertEquals(programs(apply(mixed)), ["exp", "exp"]);
});

Deno.test("integers are cast where a map loads them", () => {
  const after = apply(trace((i) => i.cast("f64").mul(0.5).exp(), i32(3)));
  assertEquals(opsOf(after), ["map"]);
  assertEquals([after.nodes[0].inputs[0].dtype, after.nodes[0].outputs[0].dtype], ["i32", "f64"]);
});

Deno.test("what makes integers stays apart from a map, which computes in reals", () => {
  const graph = trace((i) => i.add(1).mul(i).less(5).cast("f64").mul(0.5).exp(), i32(3));
  assertEquals(opsOf(apply(graph)), ["add", "mul", "less", "map"]);
  assertEquals(opsOf(apply(trace((x) => x.mul(2).cast("i32"), f64(3)))), ["map", "cast"]);
});

Deno.test("constants -0, 0 and not-a-number keep apart", () => {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2)));
    const number = (value: number): Tensor => constant(builder, value, f64(2));
    return { y: x.div(number(0)), z: x.div(number(-0)), n: x.add(number(NaN)) };
  });
  const [map] = apply(graph).nodes.filter((n) => n.op === "map");
  assertEquals(programOf(map.attrs).constants, [0, -0, NaN]);
});

Deno.test("no path leaves a map and comes back", () => {
  // The product needs a sum over exp, which must be whole by then.
  const after = fused((x) => [x.exp()].map((e) => e.mul(e.sum(0).broadcastTo([2, 3])).tanh()), [2, 3]);
  assertEquals(programs(after), ["exp", "mul tanh"]);
  const norm = fused(
    (x) => [x.sub(x.max(1, { keepDims: true })).exp()].map((e) => e.div(e.sum(1, { keepDims: true }))),
    [2, 3],
  );
  assertEquals(opsOf(norm).filter((op) => op === "map" || op === "reduce"), ["reduce", "map", "reduce", "map"]);
});

Deno.test("two maps never need each other", () => {
  // a1 -> sum -> b1 and b2 -> sum -> a2: {a1, a2} and {b1, b2} could each be one, not both.
  const after = fused(
    (x, y) => {
      const a1 = x.exp(), b2 = y.tanh();
      const b1 = y.mul(a1.sum(0).broadcastTo([2, 3])).sum();
      const a2 = x.mul(b2.sum(0).broadcastTo([2, 3])).sum();
      return [a1.sum(), b2.sum(), a2, b1];
    },
    [2, 3],
    [2, 3],
  );
  assertEquals(programs(after).toSorted(), ["exp", "mul", "tanh mul"]);
});

Deno.test("a path may go through a map that only its parts leave and enter", () => {
  // exp -> sum -> mul, and tanh -> sum -> the last product: with mul and tanh in one map, exp and the product cannot be.
  const after = fused(
    (x, y) => {
      const a = x.exp(), b = y.mul(a.sum(0).broadcastTo([2, 3])), c = y.tanh();
      return [a, b, c, x.mul(c.sum(0).broadcastTo([2, 3]))];
    },
    [2, 3],
    [2, 3],
  );
  assertEquals(programs(after), ["exp", "mul tanh", "mul"]);
});

Deno.test("a change of state between two of its reads is a path too", () => {
  const total: State = { name: "total", kind: "sum", ...f64(2) };
  const graph = traceGraph("g", [total], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2))), y = x.exp();
    builder.accumulate("total", y.value, false);
    return { y: x.mul(new Tensor(builder, builder.read("total"))) };
  });
  assertEquals(programs(apply(graph)), ["exp", "mul"]);
});

Deno.test("SwiGLU is one map forward and one backward, in which what was made again lies", () => {
  const swiglu: TensorFunction = (a, b, w) => a.silu().mul(b).contract("b i, o i -> b o", w).square().sum();
  const forward = fused(swiglu, [2, 3], [2, 3], [4, 3]);
  assertEquals(programs(forward), ["silu mul", "square"]);
  const after = apply(remat(simplify(trace(grad(swiglu), f64(2, 3), f64(2, 3), f64(4, 3)))));
  const [first, , last] = after.nodes.filter((n) => n.op === "map");
  assertEquals(programs(after).map((p) => p.split(" ").length), [3, 1, 9]);
  assertEquals(first.outputs.length, 1, "the sigmoid and silu(a) are not kept");
  // a, b and the gradient of the result; the result again, and the gradients of a and b.
  assertEquals([last.inputs.length, last.outputs.length], [3, 3]);
  // It makes something again, but not only that.
  assertEquals([first.phase, last.phase], ["forward", "backward"]);
});

Deno.test("forward and backward stay apart, and so do parts that are far from each other", () => {
  const graph = (between: (y: Tensor) => Tensor, scope: string) =>
    traceGraph("g", [], (builder) => {
      const x = new Tensor(builder, builder.input("x", f64(2, 2))), y = x.exp(), z = between(y);
      builder.origin = at(scope);
      return { y, z, u: x.tanh() };
    });
  const products = (n: number) => (y: Tensor): Tensor =>
    Array.from({ length: n }).reduce<Tensor>((t) => t.contract("a b, b c -> a c", y), y);
  assertEquals(programs(apply(graph(products(3), ""))), ["exp tanh"]);
  assertEquals(programs(apply(graph(products(3), "'"))), ["exp", "tanh"]);
  assertEquals(programs(apply(graph(products(64), ""))), ["exp", "tanh"]);
});

Deno.test("a program has an end: a longer chain is several maps", () => {
  const after = fused((x) => Array.from({ length: 100 }).reduce<Tensor>((t) => t.tanh(), x), [2]);
  const lengths = programs(after).map((p) => p.split(" ").length);
  assert(lengths.every((n) => n <= 48) && lengths.length === 3, String(lengths));
});

Deno.test("a sum keeps few of its terms where they are made one after another, and any number that are there already", () => {
  const terms = (x: Tensor, w: Tensor) => Array.from({ length: 7 }, (_, i) => x.mul(i + 1).matmul(w));
  const inputs = (graph: Graph) =>
    graph.nodes.filter((n) => n.op === "map" && programOf(n.attrs).steps.some(([op]) => op === "add")).map((n) =>
      n.inputs.length
    );
  const sum = (list: Tensor[]) => list.reduce((a, b) => a.add(b));
  const growing = fused(
    (x, w) => {
      const [first, ...others] = Array.from({ length: 7 }, (_, i) => i);
      return others.reduce((total, i) => total.add(x.mul(i + 1).matmul(w)), x.mul(first).matmul(w));
    },
    [2, 2],
    [2, 2],
  );
  assertEquals(inputs(growing), [3, 3, 3]);
  assertEquals(inputs(fused((x, w) => sum(terms(x, w)), [2, 2], [2, 2])), [7]);
});
