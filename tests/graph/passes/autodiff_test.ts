import { assertEquals, assertThrows } from "@std/assert";
import { type Arr, arr } from "../../../graph/array.ts";
import { Builder, f64, i32 } from "../../../graph/builder.ts";
import { interpret, type Memory } from "../../../graph/interpret.ts";
import { type Graph, isReal, type State } from "../../../graph/ir.ts";
import type { Vjp } from "../../../graph/op.ts";
import { ops } from "../../../graph/ops/mod.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print, scopeText } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { grad, trace, traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { golden } from "../../golden.ts";
import { assertClose, assertSameMeaning, forSeeds, Random, randomGraph, randomInputs } from "../random_graphs.ts";
import { at } from "../origins.ts";

const parameters = (graph: Graph): string[] => graph.states.filter((s) => s.kind === "parameter").map((s) => s.name);
const realInputs = (graph: Graph): string[] => graph.inputs.filter((i) => isReal(i.value.dtype)).map((i) => i.name);

Deno.test("autodiff leaves the forward graph's meaning alone", () => {
  forSeeds(200, (seed) => {
    const forward = randomGraph(seed), text = print(forward);
    const graph = verify(autodiff(forward, { of: "loss", states: parameters(forward), inputs: realInputs(forward) }));
    assertEquals(print(forward), text, "the graph it was given has changed");
    assertEquals(graph.nodes.slice(0, forward.nodes.length), [...forward.nodes]);
    const outputs = graph.outputs.slice(0, forward.outputs.length);
    assertSameMeaning(forward, { ...graph, outputs }, seed, 0);
  });
});

/** The loss when everything named moves along a direction by `step`. */
function lossAlong(graph: Graph, seed: number, directions: Map<string, Arr>, step: number): number {
  const { inputs, memory } = randomInputs(graph, seed);
  const moved = (name: string, x: Arr) =>
    directions.has(name) ? arr(x.shape, x.data.map((v, i) => v + step * directions.get(name)!.data[i])) : x;
  const other: Memory = new Map([...memory].map(([name, x]) => [name, moved(name, x)]));
  const given = Object.fromEntries(Object.entries(inputs).map(([name, x]) => [name, moved(name, x)]));
  return interpret(graph, { inputs: given, memory: other }).loss.data[0];
}

Deno.test("gradients of random graphs are the derivative along random directions", () => {
  const H = 1e-5;
  forSeeds(100, (seed) => {
    const forward = randomGraph(seed), states = parameters(forward), inputs = realInputs(forward);
    const graph = autodiff(forward, { of: "loss", states, inputs });
    const start = randomInputs(forward, seed), random = new Random(seed);
    // Gradients that were there before are overwritten in the first microbatch.
    for (const s of graph.states) {
      if (s.kind === "gradient") start.memory.set(s.name, arr(s.shape, arr(s.shape).data.fill(9)));
    }
    const read = new Set(forward.nodes.filter((n) => n.op === "read").flatMap((n) => n.attrs.states as string[]));
    const out = interpret(graph, start);
    let expected = 0, scale = 1;
    const directions = new Map<string, Arr>();
    for (const name of [...states.filter((s) => read.has(s)), ...inputs]) {
      const gradient = out[`gradient/${name}`] ?? start.memory.get(`gradient/${name}`);
      if (!gradient || gradient.data.every((x) => x === 9)) continue; // a parameter that the loss does not depend on
      const direction = arr(gradient.shape, gradient.data.map(() => random.real(-1, 1)));
      directions.set(name, direction);
      gradient.data.forEach((g, i) => expected += g * direction.data[i]);
      scale = Math.max(scale, ...gradient.data.map(Math.abs));
    }
    const difference = (lossAlong(forward, seed, directions, H) - lossAlong(forward, seed, directions, -H)) / (2 * H);
    assertClose(arr([], [expected]), arr([], [difference]), 1e-5 * scale, "derivative along a direction");
  });
});

Deno.test("no gradient flows through integers, nor is what they are stored in refused", () => {
  const seen: State = { name: "seen", kind: "buffer", dtype: "i32", shape: [1] };
  const graph = traceGraph("g", [{ name: "w", kind: "parameter", ...f64(4) }, seen], (builder) => {
    const w = new Tensor(builder, builder.read("w")), [values, ids] = w.topK(2);
    builder.assign("seen", ids.slice([0], [1]).value);
    return { loss: values.mul(ids.add(10).cast("f64")).sum().add(w.cast("i32").cast("f64").sum()) };
  });
  const memory: Memory = new Map([["w", arr([4], [1, 7, 3, 5])]]);
  interpret(verify(autodiff(graph, { of: "loss", states: ["w"] })), { memory });
  assertEquals([...memory.get("gradient/w")!.data], [0, 11, 0, 13]);
  assertEquals([...memory.get("seen")!.data], [1]);
});

Deno.test("a second microbatch adds to the gradients of the first", () => {
  const forward = traceGraph("g", [{ name: "w", kind: "parameter", ...f64(2) }], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2)));
    // Read twice: one gradient begins the step, the other adds to it.
    const [a, b] = [builder.read("w"), builder.read("w")].map((v) => new Tensor(builder, v));
    return { loss: x.mul(a).sum().add(b.square().sum()) };
  });
  const graph = autodiff(forward, { of: "loss", seed: 0.5, states: ["w"] });
  assertEquals(graph.states.at(-1), { name: "gradient/w", kind: "gradient", of: "w", ...f64(2) });
  const memory: Memory = new Map([["w", arr([2], [1, 2])], ["gradient/w", arr([2], [100, 100])]]);
  interpret(graph, { inputs: { x: [10, 20] }, memory, first: true });
  assertEquals([...memory.get("gradient/w")!.data], [0.5 * (10 + 2), 0.5 * (20 + 4)]);
  interpret(graph, { inputs: { x: [1, 1] }, memory, first: false });
  assertEquals([...memory.get("gradient/w")!.data], [6 + 0.5 * (1 + 2), 12 + 0.5 * (1 + 4)]);
});

Deno.test("a loss that reads what its graph has stored of the same parameter is refused, other state may be read", () => {
  const state = (name: string, kind: State["kind"]): State => ({ name, kind, ...f64(2) });
  const graph = (put: "accumulate" | "assign", stored: (w: Tensor) => Tensor) =>
    traceGraph("g", [state("w", "parameter"), state("s", "sum")], (builder) => {
      const w = new Tensor(builder, builder.read("w"));
      builder[put]("s", stored(w).value);
      const s = new Tensor(builder, builder.emit("read", [], { states: ["s"], dtype: "f64", shape: [2] })[0]);
      return { loss: w.add(s.exp()).sum(), of_s: s.sum(), of_w: w.sum() };
    });
  const options = (of: string) => ({ of, states: ["w"] });
  const refused = `depends on state "s", into which accumulate(`;
  assertThrows(() => autodiff(graph("accumulate", (w) => w.mul(3)), options("loss")), TypeError, refused);
  assertThrows(() => autodiff(graph("accumulate", (w) => w), options("of_s")), TypeError, "use that value itself");
  assertThrows(() => autodiff(graph("assign", (w) => w), options("loss")), TypeError, "into which assign(");
  // What is stored is not on the way, or does not depend on the parameter.
  assertEquals(autodiff(graph("accumulate", (w) => w), options("of_w")).states.length, 3);
  assertEquals(autodiff(graph("accumulate", (w) => w.constant(1, [2])), options("loss")).states.length, 3);
});

Deno.test("of a read of several states, each that is asked for gets the gradient of its rows", () => {
  const states = [2, 1, 3].map((rows, i): State => ({ name: "pqr"[i], kind: "parameter", ...f64(rows, 2) }));
  const forward = traceGraph("g", states, (builder) => {
    const all = new Tensor(builder, builder.read("p", "q", "r"));
    return { loss: all.mul(new Tensor(builder, builder.input("x", f64(6, 2)))).sum() };
  });
  const graph = verify(autodiff(forward, { of: "loss", states: ["p", "r"] }));
  const memory: Memory = new Map(states.map(({ name, shape }) => [name, arr(shape)]));
  interpret(graph, { inputs: { x: Array.from({ length: 12 }, (_, i) => i) }, memory, first: true });
  const gradients = ["p", "q", "r"].map((name) => memory.get(`gradient/${name}`)?.data);
  assertEquals(gradients, [Float64Array.of(0, 1, 2, 3), undefined, Float64Array.of(6, 7, 8, 9, 10, 11)]);
});

Deno.test("a cotangent of another type than its value is refused, with the op that gave it", () => {
  const op = ops.get("square")!, { vjp } = op;
  const forward = trace((x) => x.square().sum(), f64(3));
  try {
    Object.assign(op, { vjp: ({ inputs: [x] }: Vjp) => [x.sum()] });
    const says = "= square(%0): the cotangent of %0 is f64[], expected f64[3]";
    assertThrows(() => autodiff(forward, { of: "y0", inputs: ["x0"] }), TypeError, says);
  } finally {
    Object.assign(op, { vjp });
  }
});

Deno.test("a gradient is a graph that can be differentiated again", () => {
  const first = trace(grad((x) => x.mul(x).mul(x).sum()), f64(3));
  assertEquals(interpret(first, { inputs: { x0: [1, 2, 3] } })["gradient/x0"].data, Float64Array.of(3, 12, 27));
  const builder = Builder.extend(first);
  builder.output("sum", new Tensor(builder, first.outputs[0].value).sum().value);
  const second = autodiff(builder.finish(), { of: "sum", inputs: ["x0"], keep: false });
  assertEquals(interpret(second, { inputs: { x0: [1, 2, 3] } })["gradient/x0"].data, Float64Array.of(6, 12, 18));
});

Deno.test("the gradient of an input that does not matter is zero, of integers there is none", () => {
  const forward = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2)));
    builder.input("unused", f64(3));
    builder.input("ids", i32(2));
    return { loss: x.sum() };
  });
  const graph = autodiff(forward, { of: "loss", inputs: ["x", "unused", "ids"], keep: false });
  assertEquals(graph.outputs.map((o) => o.name), ["gradient/x", "gradient/unused"]);
  assertEquals(
    [...interpret(graph, { inputs: { x: [1, 2], unused: [1, 2, 3], ids: [0, 0] } })["gradient/unused"].data],
    [0, 0, 0],
  );
});

Deno.test("work that the asked gradients do not need is dead", () => {
  const forward = traceGraph("g", [], (builder) => {
    const [x, w] = [f64(2, 3), f64(4, 3)].map((t, i) => new Tensor(builder, builder.input(`x${i}`, t)));
    return { loss: x.contract("a b, c b -> a c", w).sum() };
  });
  const graph = autodiff(forward, { of: "loss", inputs: ["x1"], keep: false });
  assertEquals(graph.nodes.filter((n) => n.op === "contract").map((n) => n.outputs[0].shape), [[2, 4], [2, 3], [4, 3]]);
  assertEquals(simplify(graph).nodes.filter((n) => n.op === "contract").map((n) => n.outputs[0].shape), [[4, 3]]);
});

Deno.test("backward nodes come from where their forward node does, and are in backward", () => {
  const forward = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2)));
    builder.origin = at("layers.0");
    const y = x.exp();
    builder.origin = at("head");
    return { loss: y.sum() };
  });
  const scopes = autodiff(forward, { of: "loss", inputs: ["x"] }).nodes.map((n) => `${n.op} ${scopeText(n)}`);
  assertEquals(scopes, ["exp layers.0", "reduce head", "constant ", "broadcast head'", "mul layers.0'"]);
});

Deno.test("autodiff refuses what has no scalar loss, and ops without a vjp", () => {
  const graph = trace((x) => ({ y: x.exp(), z: x.apply("add_rmsnorm", [x, x], { eps: 1 })[0].sum() }), f64(2));
  assertThrows(() => autodiff(graph, { of: "y" }), TypeError, `expected a real scalar output "y"`);
  assertThrows(() => autodiff(graph, { of: "nothing" }), TypeError, `expected a real scalar output "nothing"`);
  assertThrows(() => autodiff(graph, { of: "z", inputs: ["x0"] }), TypeError, `op "add_rmsnorm" has no vjp`);
});

Deno.test("autodiff prints the gradient of a small model", () => {
  const forward = traceGraph("mlp", [{ name: "w", kind: "parameter", ...f64(4, 3) }], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3)));
    builder.origin = at("layers.0");
    const y = x.contract("b i, o i -> b o", new Tensor(builder, builder.read("w"))).silu();
    builder.origin = at("loss");
    return { loss: y.square().sum() };
  });
  golden("graph/autodiff", print(verify(autodiff(forward, { of: "loss", seed: 0.5, states: ["w"], inputs: ["x"] }))));
});
