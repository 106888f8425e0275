import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { f32, f64, i32 } from "../../graph/builder.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { Tensor } from "../../graph/tensor.ts";
import { trace, traceGraph } from "../../graph/trace.ts";
import { Embedding, Linear, RMSNorm } from "../../model/layers.ts";
import { bind } from "../../model/module.ts";

const weight = (shape: number[], data: number[]): Memory =>
  new Map([["weight", { shape, data: Float64Array.from(data) }]]);

Deno.test("a linear layer multiplies the last dim, whatever leads it", () => {
  const linear = new Linear(2, 3), memory = weight([3, 2], [1, 2, 3, 4, 5, 6]);
  const run = (shape: number[], x: number[]) => {
    const graph = trace((t: Tensor) => bind(linear, t, () => linear.forward(t)), f64(...shape));
    return interpret(graph, { inputs: { x0: x }, memory }).y0;
  };
  assertEquals(run([2], [1, 10]), { shape: [3], data: Float64Array.of(21, 43, 65) });
  assertEquals(run([2, 2], [1, 10, 2, 0]), { shape: [2, 3], data: Float64Array.of(21, 43, 65, 2, 6, 10) });
  assertEquals(run([1, 1, 1, 2], [1, 10]), { shape: [1, 1, 1, 3], data: Float64Array.of(21, 43, 65) });
});

Deno.test("the product of a batch of sequences is written as the plans expect it", () => {
  const linear = new Linear(2, 3);
  const graph = trace((t: Tensor) => bind(linear, t, () => linear.forward(t)), f32(4, 5, 2));
  assertEquals(graph.nodes.at(-1)!.attrs.dims, "b t i, o i -> b t o");
});

Deno.test("a linear layer names both sizes when its input does not fit", () => {
  const linear = new Linear(2, 3);
  const run = () => trace((t: Tensor) => bind(linear, t, () => linear.forward(t)), f32(4, 5));
  assertThrows(run, TypeError, `shapes [4,5], [3,2]: "i" is 5 and 2`);
});

Deno.test("an embedding looks up rows", () => {
  const embedding = new Embedding(3, 2);
  const graph = traceGraph("lookup", [], (builder) => {
    const ids = new Tensor(builder, builder.input("ids", i32(2, 2)));
    return { y: bind(embedding, { builder, dtype: "f64" }, () => embedding.forward(ids)) };
  });
  const { y } = interpret(graph, { inputs: { ids: [2, 0, 0, 1] }, memory: weight([3, 2], [1, 2, 3, 4, 5, 6]) });
  assertEquals(y, { shape: [2, 2, 2], data: Float64Array.of(5, 6, 1, 2, 1, 2, 3, 4) });
});

Deno.test("RMSNorm divides by the root of the mean square", () => {
  const norm = new RMSNorm(2, 0.5);
  const graph = trace((t: Tensor) => bind(norm, t, () => norm.forward(t)), f64(1, 2));
  const { y0 } = interpret(graph, { inputs: { x0: [3, 4] }, memory: weight([2], [1, 10]) });
  // (9 + 16) / 2 + 0.5 = 13
  assertAlmostEquals(y0.data[0], 3 / Math.sqrt(13), 1e-15);
  assertAlmostEquals(y0.data[1], 40 / Math.sqrt(13), 1e-15);
});
