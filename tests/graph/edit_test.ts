import { assertEquals, assertThrows } from "@std/assert";
import { f64 } from "../../graph/builder.ts";
import { Editor, hasEffect, inOrder, touchedStates } from "../../graph/edit.ts";
import type { Graph, State } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { trace, traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import { assertSameMeaning, forSeeds, Random, randomGraph } from "./random_graphs.ts";
import { at } from "./origins.ts";

const state = (name: string): State => ({ name, kind: "sum", ...f64() });
const ops = (graph: Graph): string => graph.nodes.map((n) => n.op).join(" ");

Deno.test("a node is added where another stands, and comes from where that does", () => {
  const graph = traceGraph("g", [], (builder) => {
    builder.origin = at("layers.0'");
    return { y: new Tensor(builder, builder.input("x", f64(2))).exp().log() };
  });
  const text = print(graph), edit = new Editor(graph), [exp, log] = graph.nodes;
  const tanh = edit.add(log, "tanh", exp.outputs);
  edit.replace(log.outputs[0], tanh.outputs[0]);
  const after = verify(edit.finish());
  assertEquals([ops(after), tanh.scope, tanh.phase, tanh.block], ["exp tanh", "layers.0", "backward", "layers.0"]);
  assertEquals(print(graph), text);
});

Deno.test("replacements chain, and reach outputs", () => {
  const graph = trace((x) => x.exp().log().neg(), f64(2)), [exp, log, neg] = graph.nodes, edit = new Editor(graph);
  edit.replace(log.outputs[0], exp.outputs[0]);
  edit.replace(exp.outputs[0], graph.inputs[0].value);
  edit.replace(neg.outputs[0], log.outputs[0]);
  assertEquals(edit.current(neg.outputs[0]), graph.inputs[0].value);
  const after = verify(edit.finish());
  assertEquals([ops(after), after.outputs[0].value], ["", graph.inputs[0].value]);
});

Deno.test("what nothing needs goes, effects stay unless they are dropped", () => {
  const graph = traceGraph("g", [state("a"), state("b")], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64()));
    x.exp();
    builder.accumulate("a", x.value);
    builder.assign("b", x.value);
  });
  const edit = new Editor(graph);
  edit.drop(graph.nodes[2]);
  assertEquals(ops(edit.finish()), "accumulate");
});

Deno.test("a node whose operands are made later moves behind them", () => {
  const graph = trace((x) => x.exp().add(x.tanh()), f64(2)), [exp, tanh, add] = graph.nodes, edit = new Editor(graph);
  const sum = edit.add(exp, "mul", [exp.outputs[0], tanh.outputs[0]]);
  edit.replace(add.outputs[0], sum.outputs[0]);
  assertEquals(ops(verify(edit.finish())), "exp tanh mul");
});

Deno.test("any shuffle that keeps the order of state is put in order again without a change of meaning", () => {
  forSeeds(100, (seed) => {
    const graph = randomGraph(seed), random = new Random(seed);
    // Nodes that touch state stay where they are; the others are shuffled among their places.
    const free = random.shuffle(graph.nodes.filter((n) => touchedStates(n).length === 0));
    const nodes = graph.nodes.map((n) => touchedStates(n).length === 0 ? free.pop()! : n);
    const after = verify({ ...graph, nodes: inOrder(nodes) });
    assertEquals(after.nodes.length, graph.nodes.length);
    assertSameMeaning(graph, after, seed, 0);
  });
});

Deno.test("nodes that are in order are left in it", () => {
  forSeeds(30, (seed) => {
    const { nodes } = randomGraph(seed);
    assertEquals(inOrder(nodes), [...nodes]);
  });
});

Deno.test("a node that needs itself is an error", () => {
  const [a, b] = trace((x) => x.exp().log(), f64(2)).nodes;
  assertThrows(() => inOrder([{ ...a, inputs: b.outputs }, b]), Error, "needs itself");
});

Deno.test("effects are state changes, by op or by the attribute into", () => {
  const graph = traceGraph("g", [state("a")], (builder) => {
    builder.assign("a", builder.read("a"));
  });
  assertEquals(graph.nodes.map(hasEffect), [false, true]);
  assertEquals(graph.nodes.map(touchedStates), [["a"], ["a"]]);
  const into = { ...graph.nodes[0], attrs: { into: ["a"] } };
  assertEquals([hasEffect(into), touchedStates(into)], [true, ["a"]]);
});

Deno.test("a collective of one rank's graph stays where nothing needs it, as other ranks wait for it there", () => {
  const left = (group: Record<string, number[]>) => {
    const graph = traceGraph("g", [], (builder) => {
      const x = new Tensor(builder, builder.input("x", f64(2))).exp();
      x.apply("all_reduce", [], { axes: ["tp"], size: 2, by: "sum", ...group });
      return { y: x.log() };
    });
    const edit = new Editor(graph), last = graph.nodes.at(-1)!;
    edit.add(last, "exp", last.inputs); // which nothing needs either
    return ops(edit.finish());
  };
  assertEquals([left({ group: [0, 1] }), left({})], ["exp all_reduce log", "exp log"]);
});
