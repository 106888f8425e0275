import { assertEquals, assertStrictEquals } from "@std/assert";
import { f64, i32 } from "../../../graph/builder.ts";
import { type Graph, type State, type Type, typeText } from "../../../graph/ir.ts";
import {
  applyRules,
  joinEqualNodes,
  removeDeadNodes,
  reshapeAttrs,
  rules,
  simplify,
} from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { constant, Tensor } from "../../../graph/tensor.ts";
import { grad, type TensorFunction, trace, traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { golden } from "../../golden.ts";
import { assertFits, assertSameMeaning, forSeeds, randomGraph } from "../random_graphs.ts";
import { randomMixed } from "./graphs.ts";
import { at } from "../origins.ts";

/** Ops of a graph after `simplify`, in order. */
function opsOf(fn: TensorFunction, ...shapes: number[][]): string {
  const graph = trace(fn, ...shapes.map((s) => f64(...s))), after = verify(simplify(graph));
  assertSameMeaning(graph, after, 1);
  return after.nodes.map((n) => n.op).join(" ");
}

Deno.test("simplify keeps the meaning of random graphs", () => {
  forSeeds(300, (seed) => {
    const before = verify(seed % 3 === 0 ? randomMixed(seed) : randomGraph(seed)), text = print(before);
    const after = verify(simplify(before));
    assertEquals(print(before), text, "the graph it was given has changed");
    assertSameMeaning(before, after, seed);
    assertStrictEquals(simplify(after), after, "a simplified graph is left alone");
  });
});

for (const [name, rule] of rules) {
  Deno.test(`rule ${name} alone keeps the meaning of random graphs, and fits in some`, () => {
    let hits = 0;
    forSeeds(200, (seed) => {
      if (hits === 10) return;
      const before = joinEqualNodes(seed % 2 === 0 ? randomGraph(seed) : randomMixed(seed)),
        after = verify(applyRules(before, [[name, rule]]));
      if (after === before) return;
      hits++;
      assertSameMeaning(before, after, seed);
    });
    assertFits(hits);
  });
}

Deno.test("equal nodes are joined and the first one's scope stays", () => {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(3)));
    builder.origin = at("first");
    const a = x.tanh();
    builder.origin = at("second");
    return { y: a.mul(x.tanh()).add(x.exp().mul(a)).add(a.mul(x.exp())) };
  });
  const nodes = simplify(graph).nodes;
  assertEquals(nodes.map((n) => n.op), ["tanh", "mul", "exp", "mul", "add", "add"]);
  assertEquals(nodes[0].scope, "first");
});

Deno.test("factors of integers stay apart, as their product may be too large; what was cut off stays cut off", () => {
  const ops = (fn: TensorFunction, ...types: Type[]) => simplify(trace(fn, ...types)).nodes.map((n) => n.op).join(" ");
  assertEquals(ops((i) => i.mul(70000).mul(70000), i32(2)), "constant mul mul");
  assertEquals(ops((i) => i.add(0).mul(1), i32(2)), "");
  assertEquals(ops((x) => x.cast("i32").cast("bf16"), { dtype: "bf16", shape: [2] }), "cast cast");
  assertEquals(ops((x) => x.cast("f32").cast("bf16"), { dtype: "bf16", shape: [2] }), "");
});

Deno.test("sums and products are joined whatever the order of their operands, differences are not", () => {
  assertEquals(opsOf((x, y) => [x.add(y), y.add(x), x.mul(y), y.mul(x)], [2], [2]), "add mul");
  assertEquals(opsOf((x, y) => [x.sub(y), y.sub(x), x.less(y), y.less(x)], [2], [2]), "sub sub less less");
});

Deno.test("constants 0 and -0 are not the same", () => {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64()));
    return { a: x.div(constant(builder, 0, f64())), b: x.div(constant(builder, -0, f64())) };
  });
  assertEquals(simplify(graph).nodes.length, 4);
  assertSameMeaning(graph, simplify(graph), 1);
});

const state = (name: string): State => ({ name, kind: "sum", ...f64(2) });

Deno.test("reads of a state are joined up to the next change of it", () => {
  const graph = traceGraph("g", [state("a"), state("b")], (builder) => {
    const read = () => new Tensor(builder, builder.read("a"));
    const one = read().mul(read());
    builder.accumulate("b", one.value);
    const two = read().exp();
    builder.accumulate("a", two.value, false);
    const three = read();
    builder.assign("b", three.value);
    return { y: one.add(two).add(three) };
  });
  const after = verify(simplify(graph));
  assertEquals(after.nodes.filter((n) => n.op === "read").length, 2);
  assertSameMeaning(graph, after, 1);
});

Deno.test("effects are never joined or removed, and states stay declared", () => {
  const graph = traceGraph("g", [state("a"), state("unused")], (builder) => {
    const x = builder.input("x", f64(2));
    builder.accumulate("a", x);
    builder.accumulate("a", x);
    new Tensor(builder, x).exp();
  });
  const after = simplify(graph);
  assertEquals(after.nodes.map((n) => n.op), ["accumulate", "accumulate"]);
  assertEquals(after.states.map((s) => s.name), ["a", "unused"]);
  assertEquals(removeDeadNodes(graph).nodes.length, 2);
});

Deno.test("reshapes of reshapes are one, and none where the shape comes back", () => {
  assertEquals(opsOf((x) => x.reshape("a b -> a b 1").reshape("a b 1 -> a b").exp(), [2, 3]), "exp");
  assertEquals(opsOf((x) => x.reshape("a (b c) -> a b c", { b: 2 }).reshape("a b c -> (a b) c"), [3, 4]), "reshape");
  assertEquals(
    opsOf((x) => x.reshape("a b -> (a b)").reshape("(c d) -> c d", { c: 3 }).exp(), [2, 3]),
    "reshape reshape exp",
  );
});

Deno.test("a reshape is written by the finest dims of both shapes", () => {
  assertEquals(reshapeAttrs([2, 3, 8], [6, 4, 2]), {
    dims: "a b (c d) -> (a b) c d",
    sizes: { a: 2, b: 3, c: 4, d: 2 },
  });
  assertEquals(reshapeAttrs([1, 4], [4, 1, 1]), { dims: "1 a -> a 1 1", sizes: { a: 4 } });
  assertEquals(reshapeAttrs([], [1]), { dims: " -> 1", sizes: {} });
  assertEquals(reshapeAttrs([4, 6], [6, 4]), undefined);
});

Deno.test("transposes of transposes are one, and none where the order comes back", () => {
  assertEquals(opsOf((x) => x.transpose(0, 1).transpose(0, 1).exp(), [2, 3]), "exp");
  assertEquals(opsOf((x) => x.transpose(0, 1).transpose(0, 2), [2, 3, 4]), "transpose");
});

Deno.test("broadcasts of broadcasts and slices of slices are one", () => {
  assertEquals(opsOf((x) => x.broadcastTo([4, 3]).broadcastTo([2, 4, 3]), [3]), "broadcast");
  assertEquals(opsOf((x) => x.slice([1, 0], [3, 3]).slice([0, 1], [2, 2]), [4, 3]), "slice");
  assertEquals(opsOf((x) => x.slice([0, 0], [4, 3]).exp(), [4, 3]), "exp");
});

Deno.test("a value cut in pieces and put together again is itself", () => {
  assertEquals(opsOf((x) => x.slice([0], [2]).concat([x.slice([2], [3])]).exp(), [5]), "exp");
  assertEquals(opsOf((x) => x.slice([1], [2]).concat([x.slice([3], [1])]).exp(), [5]), "slice exp");
  assertEquals(opsOf((x) => x.slice([2], [3]).concat([x.slice([0], [2])]), [5]), "slice slice concat");
});

Deno.test("transposes fold into products on both sides", () => {
  const graph = trace(
    (x, w) => x.transpose(0, 1).contract("a b, b c -> a c", w.transpose(0, 1)).transpose(0, 1),
    f64(3, 2),
    f64(4, 3),
  );
  const after = simplify(graph);
  assertEquals(after.nodes.map((n) => n.attrs.dims), ["b a, c b -> c a"]);
  assertSameMeaning(graph, after, 1);
});

Deno.test("a product that is also used as it is keeps its transpose", () => {
  const ops = opsOf(
    (x, w) => {
      const y = x.contract("a b, b c -> a c", w);
      return { y, z: y.transpose(0, 1) };
    },
    [2, 3],
    [3, 4],
  );
  assertEquals(ops, "contract transpose");
  const renamed = opsOf(
    (x, w) => {
      const y = x.contract("a b, b c -> a c", w).reshape("a b -> a b");
      return { y: y.exp(), z: y.transpose(0, 1) };
    },
    [2, 3],
    [3, 4],
  );
  assertEquals(renamed, "contract exp transpose");
});

Deno.test("a gradient after folding has the einsum that the forward product's gradient would have", () => {
  const graph = trace(
    grad((x, w) => x.contract("b i, i o -> b o", w.transpose(0, 1)).silu().sum()),
    f64(2, 3),
    f64(4, 3),
  );
  const dims = simplify(graph).nodes.filter((n) => n.op === "contract").map((n) => n.attrs.dims);
  assertEquals(dims, ["b i, o i -> b o", "b o, o i -> b i", "b o, b i -> o i"]);
});

Deno.test("constants are folded, spread and joined into one factor", () => {
  assertEquals(opsOf((x) => x.constant(2).mul(x.constant(3)).broadcastTo([4]).add(x), [4]), "constant add");
  assertEquals(opsOf((x) => x.mul(2).mul(3).mul(0.5), [4]), "constant mul");
  const pieces = (a: number, b: number): TensorFunction => (x) =>
    x.constant(a, [1]).concat([x.constant(b, [2])]).add(x);
  assertEquals(opsOf(pieces(2, 2), [3]), "constant add");
  assertEquals(opsOf(pieces(2, 3), [3]), "constant constant concat add");
  const value = simplify(trace((x) => x.constant(4).sqrt().add(x), f64())).nodes[0].attrs.value;
  assertEquals(value, 2);
});

Deno.test("what would not be finite or modest in f32 is not folded", () => {
  assertEquals(opsOf((x) => x.mul(1e20).mul(1e20), [2]), "constant mul mul");
  assertEquals(opsOf((x) => x.constant(0).log().add(x), []), "constant log add");
});

Deno.test("neutral operands and double negations go", () => {
  assertEquals(opsOf((x) => x.add(0).sub(0).mul(1).div(1).neg().neg().exp(), [2]), "exp");
  assertEquals(opsOf((x) => x.constant(1, [2]).mul(x.constant(0, [2]).add(x)).exp(), [2]), "exp");
  assertEquals(opsOf((x, y) => x.add(y.neg()), [2], [2]), "sub");
  assertEquals(opsOf((x, y) => x.sub(y.neg()), [2], [2]), "add");
  assertEquals(opsOf((x) => x.constant(0, [2]).sub(x), [2]), "constant sub");
});

Deno.test("silu and its gradient share the sigmoid", () => {
  assertEquals(opsOf((x) => x.silu(), [2]), "sigmoid mul");
  const graph = simplify(trace(grad((x) => x.silu().sum()), f64(2)));
  assertEquals(graph.nodes.filter((n) => n.op === "sigmoid").length, 1);
});

Deno.test("sums keep their order", () => {
  const sum: TensorFunction = (x, y, z) => x.add(1).add(y.add(2)).add(z.add(3));
  const graph = trace(sum, f64(2), f64(2), f64(2));
  assertEquals(print(simplify(graph)), print(graph));
});

Deno.test("simplify prints what is left of a small example", () => {
  const graph: Graph = traceGraph("example", [{ name: "w", kind: "parameter", ...f64(3, 3) }], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3))),
      ids = new Tensor(builder, builder.input("ids", i32(2)));
    builder.origin = at("layers.0");
    const w = () => new Tensor(builder, builder.read("w"));
    const e = x.contract("a b, b c -> a c", w().transpose(0, 1)).exp();
    const y = e.div(e.sum(-1, { keepDims: true })).mul(1).mul(2).mul(3);
    builder.origin = at("layers.1");
    return {
      y: ids.apply("embedding", [w()])[0].add(y).sub(
        y.neg().reshape("a b -> (a b) 1").reshape("(a b) 1 -> a b", { b: 3 }),
      ),
    };
  });
  assertEquals(typeText(graph.outputs[0].value), "f64[2,3]");
  golden("graph/simplify", `${print(graph)}\nafter simplify\n\n${print(verify(simplify(graph)))}`);
});
