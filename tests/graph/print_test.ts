import { assertEquals } from "@std/assert";
import { f32, i32 } from "../../graph/builder.ts";
import { nodeText, print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { trace, traceGraph } from "../../graph/trace.ts";
import type { Graph, State } from "../../graph/ir.ts";
import { at } from "./origins.ts";

const states: State[] = [
  { name: "norm.weight", kind: "parameter", ...f32(4) },
  { name: "unused", kind: "sum", ...f32() },
];
const example: Graph = traceGraph("example", states, (builder) => {
  const ids = new Tensor(builder, builder.input("ids", i32(2), undefined, true)),
    x = new Tensor(builder, builder.input("x", f32(2, 4)));
  builder.origin = at("layers.0.norm");
  const [y] = x.apply("rmsnorm", [new Tensor(builder, builder.read("norm.weight"))], { eps: 0.00001 });
  builder.origin = at("");
  const picked = ids.apply("embedding", [y])[0].reshape("a (b c) -> (a b) c", { b: 2 });
  builder.accumulate("norm.weight", y.sum(0).value);
  return { picked };
});

Deno.test("a graph prints its inputs, touched states, nodes and outputs", () => {
  assertEquals(
    print(example),
    `graph example
  input %0: i32[2] "ids" counts
  input %1: f32[2,4] "x"
  parameter "norm.weight": f32[4]
  %2: f32[4] = read() states=[norm.weight]  @layers.0.norm
  %3: f32[2,4], %4: f32[2] = rmsnorm(%1, %2) eps=0.00001  @layers.0.norm
  %5: f32[2,4] = embedding(%0, %3)
  %6: f32[4,2] = reshape(%5) dims="a (b c) -> (a b) c" sizes={b:2}
  %7: f32[4] = reduce(%3) dims="a b -> b" kind=sum
  accumulate(%7) states=[norm.weight] begin=true
  output %6 "picked"
`,
  );
});

Deno.test("values are numbered as they appear, whatever their ids", () => {
  const shifted = (graph: Graph): Graph => {
    const value = <V extends { id: number }>(v: V): V => ({ ...v, id: v.id * 7 + 100 });
    const known = new Map<object, ReturnType<typeof value>>();
    const move = <V extends { id: number }>(v: V): V => {
      if (!known.has(v)) known.set(v, value(v));
      return known.get(v) as V;
    };
    return {
      ...graph,
      inputs: graph.inputs.map((i) => ({ ...i, value: move(i.value) })),
      nodes: graph.nodes.map((n) => ({ ...n, inputs: n.inputs.map(move), outputs: n.outputs.map(move) })),
      outputs: graph.outputs.map((o) => ({ ...o, value: move(o.value) })),
    };
  };
  assertEquals(print(shifted(example)), print(example));
});

Deno.test("different graphs print differently", () => {
  const texts = [
    trace((x) => x.exp(), f32(2)),
    trace((x) => x.log(), f32(2)),
    trace((x) => x.exp(), f32(3)),
    trace((x) => x.mul(2), f32(2)),
    trace((x) => x.mul(3), f32(2)),
  ].map((g) => print({ ...g, name: "g" }));
  assertEquals(new Set(texts).size, texts.length);
});

Deno.test("a node alone prints the ids of its values", () => {
  assertEquals(nodeText(example.nodes[2]), `%${example.nodes[2].outputs[0].id}: f32[2,4] = embedding(%0, %3)`);
});
