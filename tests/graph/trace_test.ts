import { assertEquals, assertThrows } from "@std/assert";
import { f32, f64 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import { print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { grad, trace, traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import { golden } from "../golden.ts";

const f = (x: Tensor) => x.matmul(x.transpose(0, 1)).softmax(-1).sum();

Deno.test("a function is traced once: its arguments are inputs, its results outputs", () => {
  let calls = 0;
  const g = (a: Tensor, b: Tensor) => {
    calls++;
    return [a.add(b), a.mul(b)];
  };
  const graph = verify(trace(g, f32(2), f32(2)));
  assertEquals(calls, 1);
  assertEquals(graph.name, "g");
  assertEquals([graph.inputs, graph.outputs].map((l) => l.map((n) => n.name)), [["x0", "x1"], ["y0", "y1"]]);
  assertEquals(trace((x) => ({ twice: x.add(x) }), f32(2)).outputs[0].name, "twice");
  assertEquals(trace((x) => x, f32(2)).name, "function");
});

Deno.test("the gradient of a function has an output for each input", () => {
  const graph = verify(trace(grad((x, y) => x.mul(y).sum()), f64(2), f64(2)));
  const out = interpret(graph, { inputs: { x0: [1, 2], x1: [3, 4] } });
  assertEquals(Object.entries(out).map(([k, a]) => [k, ...a.data]), [["gradient/x0", 3, 4], ["gradient/x1", 1, 2]]);
});

Deno.test("the gradient of softmax rows that sum to one is zero", () => {
  const out = interpret(trace(grad(f), f64(3, 3)), { inputs: { x0: [1, 2, 3, -1, 0, 1, 2, 2, -2] } });
  assertEquals(out["gradient/x0"].data.every((x) => Math.abs(x) < 1e-14), true);
});

Deno.test("only a function with one scalar result has a gradient", () => {
  const two = (x: Tensor) => [x.sum(), x.sum()];
  assertThrows(() => trace(grad((x) => x.exp()), f64(2)), TypeError, "expected one scalar result, got [2]");
  assertThrows(
    () => trace(grad(two), f64(2)),
    TypeError,
    `Cannot take the gradient of "two": expected one scalar result, got [], []`,
  );
});

Deno.test("a graph without results is traced for its effects", () => {
  const graph = traceGraph("update", [{ name: "s", kind: "sum", ...f64() }], (builder) => {
    builder.assign("s", new Tensor(builder, builder.read("s")).add(1).value);
  });
  assertEquals([graph.outputs.length, graph.nodes.length], [0, 4]);
});

Deno.test("a function and its gradient print", () => {
  golden("graph/trace", `${print(trace(f, f32(8, 8)))}\n${print(verify(trace(grad(f), f32(8, 8))))}`);
});
