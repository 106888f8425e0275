import { assertEquals } from "@std/assert";
import { f32, f64, i32 } from "../../graph/builder.ts";
import { consumers, isReal, numel, producers, sameType, sizeBytes, typeText, ValueMap } from "../../graph/ir.ts";
import { trace } from "../../graph/trace.ts";

Deno.test("types have elements, bytes and a text", () => {
  assertEquals([numel([2, 3]), numel([])], [6, 1]);
  assertEquals([sizeBytes(f32(2, 3)), sizeBytes(f64(2, 3)), sizeBytes(i32())], [24, 48, 4]);
  assertEquals([typeText(f32(4, 128)), typeText(i32())], ["f32[4,128]", "i32[]"]);
  assertEquals([isReal("f32"), isReal("f64"), isReal("i32")], [true, true, false]);
});

Deno.test("types are the same when element type, rank and sizes are", () => {
  assertEquals(sameType(f32(2, 3), f32(2, 3)), true);
  assertEquals([f64(2, 3), f32(2), f32(2, 3, 1), f32(3, 2)].some((t) => sameType(t, f32(2, 3))), false);
});

Deno.test("producers and consumers of values: a node that reads a value twice counts once", () => {
  const graph = trace((x) => ({ y: x.mul(x).exp(), z: x.exp() }), f64(2));
  const [mul, exp, exp2] = graph.nodes, x = graph.inputs[0].value;
  assertEquals(consumers(graph).get(x), [mul, exp2]);
  assertEquals(consumers(graph).get(exp.outputs[0]), undefined);
  assertEquals(producers(graph).get(mul.outputs[0]), mul);
  assertEquals(producers(graph).get(x), undefined);
});

Deno.test("what is known of a value is not known of another graph's value of the same number", () => {
  const [one, other] = [1, 2].map(() => trace((x) => x.exp(), f64(2))), known = new ValueMap<string>(one);
  const [value, same] = [one, other].map((g) => g.nodes[0].outputs[0]);
  known.set(value, "this");
  assertEquals([known.get(value), known.has(value)], ["this", true]);
  assertEquals([same.id, known.get(same), known.has(same)], [value.id, undefined, false]);
  assertEquals(producers(one).get(same), undefined);
});
