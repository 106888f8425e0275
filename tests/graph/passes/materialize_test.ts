import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { f64 } from "../../../graph/builder.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { needsCopies } from "../../../graph/place.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { type TensorFunction, trace, traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { assertSameMeaning, forSeeds } from "../random_graphs.ts";
import { countOps, llamaBlock, opsOf, randomStep } from "./graphs.ts";
import { fuse, materialize, placeValues } from "./on_cpu.ts";

function assertRuns(graph: Graph): void {
  const places = placeValues(graph), unfit = graph.nodes.filter((n) => needsCopies(n, places));
  assertEquals(unfit.map((n) => n.op), []);
}

function apply(graph: Graph): Graph {
  const text = print(graph), after = verify(materialize(verify(graph)));
  assertEquals(print(graph), text, "the graph it was given has changed");
  assertSameMeaning(graph, after, 1);
  assertRuns(after);
  return after;
}

Deno.test("materialize keeps the meaning of random graphs, and leaves nothing that a kernel cannot follow", () => {
  let copies = 0;
  forSeeds(240, (seed) => {
    const step = randomStep(seed), before = seed % 3 ? fuse(step) : step, after = verify(materialize(before));
    assertSameMeaning(before, after, seed);
    assertRuns(after);
    copies += countOps(after).copy ?? 0;
  });
  assert(copies > 100, `${copies} copies`);
});

Deno.test("where kernels can follow every view the graph stays the same one", () => {
  const graph = trace(
    (x, w) => x.transpose(0, 1).contract("a b, b c -> a c", w.slice([0, 1], [2, 2])),
    f64(2, 3),
    f64(2, 4),
  );
  assertStrictEquals(placeValues(graph).isView(graph.nodes[0]), true);
  assertEquals(print(apply(graph)), print(graph));
});

Deno.test("a collective is given packed memory that other ranks see: copies of what is strided, and of the host's inputs", () => {
  const graph = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3))),
      attrs = { axes: ["tp"], size: 2, group: [0, 1], by: "sum" };
    const reduce = (t: Tensor) => t.apply("all_reduce", [], attrs)[0];
    return { x: reduce(x), y: reduce(x.exp()), z: reduce(x.exp().transpose(0, 1)) };
  });
  const after = verify(materialize(graph)), inputs = new Map(after.nodes.map((n) => [n.outputs[0], n]));
  assertRuns(after);
  const reduced = after.nodes.filter((n) => n.op === "all_reduce").map((n) => inputs.get(n.inputs[0])!.op);
  assertEquals(reduced, ["copy", "exp", "copy"]);
});

Deno.test("a step of a Llama needs no copy at all", () => {
  const fused = fuse(llamaBlock());
  assertEquals(print(apply(fused)), print(fused));
});

Deno.test("a product whose dims have no common stride is made of copies, in the order of a matrix product", () => {
  const scores: TensorFunction = (q, k) => q.transpose("b t h k -> h t b k").contract("h t b k, b s h k -> b h t s", k);
  const after = apply(trace(scores, f64(2, 3, 2, 4), f64(2, 5, 2, 4)));
  const product = after.nodes.find((n) => n.op === "contract")!;
  assertEquals(countOps(after), { transpose: 4, copy: 2, contract: 1 });
  assertEquals(product.attrs.dims, "b h t k, b h k s -> b h t s");
});

Deno.test("a packed product that the next kernel cannot follow is copied too", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w, u] = [f64(2, 3, 4, 2), f64(2, 4), f64(2)].map((type, i) =>
      new Tensor(builder, builder.input(`x${i}`, type))
    );
    // Rows "b c a" do not follow each other in x; made in that order, those of the result do not.
    const y = x.contract("a b c d, d o -> o b c a", w);
    return { y: y.apply("rmsnorm", [u], { eps: 0.1 })[0] };
  });
  assertEquals(opsOf(apply(graph)), [
    "transpose",
    "copy",
    "transpose",
    "copy",
    "contract",
    "transpose",
    "copy",
    "rmsnorm",
  ]);
});

Deno.test("a product that is added into state is made apart and added", () => {
  const gradient: State = { name: "gradient/w", kind: "gradient", of: "w", ...f64(5, 2) };
  const graph = traceGraph("g", [gradient], (builder) => {
    const dy = builder.input("dy", f64(3, 4, 5)), x = builder.input("x", f64(4, 3, 2));
    builder.emit("contract", [dy, x], { dims: "b t o, t b i -> o i", into: ["gradient/w"], begin: true });
  });
  const after = apply(graph);
  assertEquals(opsOf(after).slice(-3), ["contract", "transpose", "accumulate"]);
  assertEquals(after.nodes.at(-1)!.attrs, { states: ["gradient/w"], begin: true });
});

Deno.test("only operands that are not packed are copied, and a node with two results keeps both", () => {
  const after = apply(trace((x, w) => x.transpose(0, 1).apply("rmsnorm", [w], { eps: 0.1 }), f64(3, 2), f64(3)));
  assertEquals(opsOf(after), ["transpose", "copy", "rmsnorm"]);
  assertEquals(after.nodes[2].inputs[1], after.inputs[1].value);
});

const total: State = { name: "total", kind: "sum", ...f64(2, 2) };

Deno.test("the old value of a state is copied where it is used after a change, as a view or as a result", () => {
  const used = traceGraph("g", [total], (builder) => {
    const old = new Tensor(builder, builder.read("total")), x = new Tensor(builder, builder.input("x", f64(2, 2)));
    builder.accumulate("total", x.value, false);
    return { y: old.transpose(0, 1).exp() };
  });
  const result = traceGraph("g", [total], (builder) => {
    const old = new Tensor(builder, builder.read("total"));
    builder.assign("total", old.exp().value);
    return { old: old.transpose(0, 1) };
  });
  const itself = traceGraph("g", [total], (builder) => {
    const old = new Tensor(builder, builder.read("total"));
    builder.accumulate("total", old.transpose(0, 1).value, false);
  });
  for (const graph of [used, result, itself]) assertEquals(countOps(apply(graph)).copy, 1);
});

Deno.test("a state that is changed before it is read, or after its last use, is not copied", () => {
  const graph = traceGraph("g", [total], (builder) => {
    builder.accumulate("total", builder.input("x", f64(2, 2)), false);
    const old = new Tensor(builder, builder.read("total"));
    builder.assign("total", old.exp().value);
  });
  assertEquals(print(apply(graph)), print(graph));
});
