import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { f64, i32 } from "../../graph/builder.ts";
import type { Graph, Node, State, Value } from "../../graph/ir.ts";
import { needsCopies, ownsBase, type Places } from "../../graph/place.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { isPacked, packed } from "../../graph/view.ts";
import { kernelViews, placeValues } from "./passes/on_cpu.ts";

type Inputs = Record<string, Tensor>;

/** A graph over inputs by name, its places, and what stands where. */
function placed(types: Record<string, ReturnType<typeof f64>>, body: (inputs: Inputs) => Tensor | Tensor[]) {
  const graph = traceGraph("g", [], (builder) => {
    const inputs = Object.fromEntries(
      Object.entries(types).map(([name, type]) => [name, new Tensor(builder, builder.input(name, type))]),
    );
    return Object.fromEntries([body(inputs)].flat().map((t, i) => [`y${i}`, t]));
  });
  return { graph, places: placeValues(graph) };
}

/** Ops that have something to run: no views, and a concat only with the number of pieces that it copies. */
function runs(graph: Graph, places: Places): string {
  return graph.nodes.filter((n) => n.op !== "read" && !places.isView(n)).flatMap((n) =>
    n.op !== "concat" ? [n.op] : places.copiedPieces(n).length === 0 ? [] : [`concat:${places.copiedPieces(n).length}`]
  ).join(" ");
}

const find = (graph: Graph, op: string): Node => graph.nodes.find((n) => n.op === op)!;
const place = (places: Places, value: Value) => places.of.get(value)!;

Deno.test("reshapes, transposes, slices and broadcasts are views of their input", () => {
  const { graph, places } = placed(
    { x: f64(2, 6) },
    ({ x }) =>
      x.reshape("a (b c) -> a b c", { b: 2 }).transpose("a b c -> c a b").slice([1, 0, 0], [2, 2, 2])
        .broadcastTo([3, 2, 2, 2]),
  );
  assertEquals(runs(graph, places), "");
  const { base, view } = place(places, graph.outputs[0].value);
  assertEquals([base.kind, base.names], ["input", ["x"]]);
  assertEquals(view, { offset: 1, shape: [3, 2, 2, 2], strides: [0, 1, 6, 3] });
});

Deno.test("a reshape that strides cannot say is a copy", () => {
  const { graph, places } = placed({ x: f64(2, 3) }, ({ x }) => x.transpose(0, 1).reshape("a b -> (a b)"));
  assertEquals(runs(graph, places), "reshape");
  assert(ownsBase(place(places, graph.outputs[0].value)));
});

Deno.test("a read is the memory of its states, one after another", () => {
  const state = (name: string, rows: number): State => ({ name, kind: "parameter", ...f64(rows, 2) });
  const graph = traceGraph("g", [state("a", 3), state("b", 1)], (builder) => {
    const both = new Tensor(builder, builder.read("a", "b"));
    return { b: both.slice([3, 0], [1, 2]) };
  });
  const { base, view } = place(placeValues(graph), graph.outputs[0].value);
  assertEquals([base.kind, base.names, base.size, view.offset], ["state", ["a", "b"], 8, 6]);
});

Deno.test("pieces of a concat are made inside it, through reshapes too", () => {
  const { graph, places } = placed(
    { x: f64(2, 3, 4) },
    ({ x }) =>
      x.exp().reshape("a b c -> a (b c)").concat([x.slice([0, 0, 0], [2, 1, 4]).tanh().reshape("a 1 c -> a c")], 1),
  );
  assertEquals(runs(graph, places), "exp tanh");
  const whole = place(places, graph.outputs[0].value), exp = place(places, find(graph, "exp").outputs[0]);
  const tanh = place(places, find(graph, "tanh").outputs[0]);
  assertStrictEquals(exp.base, whole.base);
  assertEquals(exp.view, { offset: 0, shape: [2, 3, 4], strides: [16, 4, 1] });
  assertEquals([tanh.view.offset, tanh.view.strides[0]], [12, 16]);
  assert(ownsBase(whole) && !ownsBase(exp));
});

Deno.test("the first piece of a concat is packed but owns nothing, and reshaped uses of it are views", () => {
  const { graph, places } = placed({ x: f64(2, 3) }, ({ x }) => {
    const e = x.exp();
    return [e.reshape("a b -> (a b)").concat([x.reshape("a b -> (a b)").tanh()]), e.reshape("a b -> a 1 b")];
  });
  assertEquals(runs(graph, places), "exp tanh");
  const exp = place(places, find(graph, "exp").outputs[0]);
  assert(isPacked(exp.view) && exp.view.offset === 0 && !ownsBase(exp));
});

Deno.test("a reshape whose input could not lie in the concat is copied there", () => {
  const { graph, places } = placed(
    { x: f64(6), y: f64(2, 1) },
    ({ x, y }) => x.exp().reshape("(a b) -> a b", { a: 2 }).concat([y.tanh()], 1),
  );
  assertEquals(runs(graph, places), "exp tanh concat:1");
});

Deno.test("a concat inside another is made there", () => {
  const { graph, places } = placed({ x: f64(2, 2) }, ({ x }) => x.exp().concat([x.neg()]).concat([x.tanh()]));
  assertEquals(runs(graph, places), "exp neg tanh");
  assertEquals(place(places, find(graph, "neg").outputs[0]).view.offset, 4);
});

Deno.test("what lies elsewhere already is copied: inputs, states, views, and what another concat holds", () => {
  const { graph, places } = placed({ x: f64(2, 2) }, ({ x }) => {
    const e = x.exp();
    return [e.concat([x, e.transpose(0, 1)]), e.concat([e])];
  });
  // The second concat is placed first and has one e; the other e, and all of the first, are copies.
  assertEquals(runs(graph, places), "exp concat:3 concat:1");
});

Deno.test("a value stays out of a concat when a kernel that reads it could not follow", () => {
  const sum = (x: Tensor, y: Tensor) => x.apply("rmsnorm", [y], { eps: 1 })[0];
  const columns = placed({ x: f64(4, 2, 3), w: f64(3) }, ({ x, w }) => {
    const e = x.exp().reshape("a b c -> (a b) c");
    return [e.concat([sum(e, w)], 1), sum(e, w)];
  });
  assertEquals(runs(columns.graph, columns.places), "exp rmsnorm rmsnorm");
  // Between other columns the rows of [4,2,3] do not follow each other.
  const inner = placed({ x: f64(4, 2, 3), w: f64(3) }, ({ x, w }) => {
    const e = x.exp();
    return [e.concat([x], 1), sum(e, w)];
  });
  assertEquals(runs(inner.graph, inner.places), "exp concat:2 rmsnorm");
  assertEquals(needsCopies(find(inner.graph, "rmsnorm"), inner.places), false);
});

Deno.test("the gradients of q, k and v are written beside each other", () => {
  const head = f64(2, 3, 4, 2),
    { graph, places } = placed(
      { q: head, k: head, v: head, o: head, lse: f64(2, 4, 3), positions: i32(2, 3) },
      ({ q, k, v, o, lse, positions }) => {
        const parts = q.apply("attention_backward", [k, v, o, lse, o, positions, positions], { scale: 1 });
        const [dq, dk, dv] = parts.map((t) => t.reshape("b t h k -> b t (h k)"));
        return dq.concat([dk, dv], 2);
      },
    );
  assertEquals(runs(graph, places), "attention_backward");
  const views = find(graph, "attention_backward").outputs.map((v) => place(places, v).view);
  assertEquals(views.map((v) => v.offset), [0, 8, 16]);
  assertEquals(views[1].strides, [72, 24, 2, 1]);
});

Deno.test("kernels that work by rows need a dense last dim and a common stride of the others", () => {
  const { graph } = placed({ x: f64(2, 3, 4), w: f64(4) }, ({ x, w }) => x.apply("rmsnorm", [w], { eps: 1 })[0]);
  const [node] = graph.nodes, [w, y, rstd] = [packed([4]), packed([2, 3, 4]), packed([2, 3])];
  const views = kernelViews(node, [packed([2, 3, 4]), w, y, rstd]);
  assert(typeof views !== "string");
  assertEquals(views.map((v) => v.shape), [[6, 4], [4], [6, 4], [6]]);
  const apart = { offset: 0, shape: [2, 3, 4], strides: [100, 4, 1] };
  assertEquals(kernelViews(node, [apart, w, y, rstd]), "leading dims of operand 0 have no common stride");
  const sparse = { offset: 0, shape: [2, 3, 4], strides: [24, 8, 2] };
  assertEquals(kernelViews(node, [packed([2, 3, 4]), w, sparse, rstd]), "operand 2 is not dense in its last dim");
});

Deno.test("a value that is added into state lies there, and owns no memory", () => {
  const gradient: State = { name: "gradient/w", kind: "gradient", of: "w", ...f64(3, 4) };
  const graph = traceGraph("g", [gradient], (builder) => {
    const [x, dy] = [builder.input("x", f64(2, 4)), builder.input("dy", f64(2, 3))];
    builder.emit("contract", [dy, x], { dims: "b o, b i -> o i", into: ["gradient/w"], begin: true });
  });
  const at = place(placeValues(graph), graph.nodes[0].outputs[0]);
  assertEquals([at.base.kind, at.base.names, isPacked(at.view), ownsBase(at)], ["state", ["gradient/w"], true, false]);
});
