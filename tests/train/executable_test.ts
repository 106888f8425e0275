import { takeCalls } from "./counting.ts"; // first: it counts what the others call
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { TitanError } from "../../ffi/error.ts";
import { f32, f64, i32 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { grad, trace, traceGraph } from "../../graph/trace.ts";
import { compile, Executable } from "../../train/executable.ts";
import type { TypedArray } from "../../train/typed_array.ts";

const f = (x: Tensor): Tensor => x.matmul(x.transpose(0, 1)).softmax(-1).sum();

Deno.test("the gradient of a function runs natively as the interpreter runs it", async () => {
  const x = Array.from({ length: 64 }, (_, i) => Math.sin(i));
  const weighted = (x: Tensor): Tensor => x.matmul(x.transpose(0, 1)).softmax(-1).mul(x).sum();
  await using g = compile(grad(weighted), f64(8, 8));
  const expected = Object.values(interpret(g.graph, { inputs: { x0: x } }))[0].data, actual = await g.run(x);
  assert(expected.some((v) => Math.abs(v) > 0.1));
  actual.forEach((v, i) => assert(Math.abs(v - expected[i]) <= 1e-12, `element ${i} is ${v}, expected ${expected[i]}`));
});

Deno.test("rows of a softmax sum to one, whatever the input: the gradient is zero", async () => {
  await using g = compile(grad(f), f32(8, 8));
  const gradient = await g.run(new Float32Array(64).fill(1));
  assert(gradient instanceof Float32Array);
  assert(gradient.length === 64 && gradient.every((v) => Math.abs(v) < 1e-5), `${gradient}`);
});

Deno.test("results come by name, in their own types, and in arrays of their own", async () => {
  const both = (x: Tensor, n: Tensor) => ({ scaled: x.mul(n.cast("f64")), sum: x.sum(), n });
  await using g = compile(both, f64(2, 2), i32(2, 2));
  const first = await g.runAll([1, 2, 3, 4], [1, 0, 2, 0]), second = await g.runAll([0, 0, 0, 0], [1, 1, 1, 1]);
  const expected: Record<string, TypedArray> = {
    scaled: Float64Array.of(1, 0, 6, 0),
    sum: Float64Array.of(10),
    n: Int32Array.of(1, 0, 2, 0),
  };
  assertEquals(first, expected);
  assertEquals(second.sum, Float64Array.of(0));
});

Deno.test("runs that are asked for at once take their turns", async () => {
  await using square = compile((x) => x.square(), f64(1));
  for (let round = 0; round < 2; round++) {
    const results = await Promise.all([1, 2, 3].map((x) => square.run([x])));
    assertEquals(results.map(([y]) => y), [1, 4, 9]);
  }
});

Deno.test("nothing native happens before the first run, and a closed function holds nothing", async () => {
  takeCalls();
  {
    await using square = compile((x) => x.square(), f64(3));
    await assertRejects(() => square.run([1]), TypeError);
    assertEquals(takeCalls(), {});
    await square.run([1, 2, 3]);
    await square.run([4, 5, 6]);
  }
  const { titan_device_open, titan_device_close, titan_program_create, titan_program_destroy, ...rest } = takeCalls();
  assertEquals([titan_device_open, titan_device_close, titan_program_create, titan_program_destroy], [1, 1, 1, 1]);
  assertEquals(rest.titan_program_run, 2);
});

Deno.test("arguments that do not fit are refused by number and length", async () => {
  await using product = compile((x, y) => x.mul(y), f32(2, 2), f32(2, 2));
  const count = await assertRejects(() => product.run([1, 2, 3, 4]), TypeError);
  assertEquals(count.message, `Cannot run "function": expected 2 arrays, got 1`);
  const length = await assertRejects(() => product.run([1, 2, 3, 4], [1, 2, 3]), TypeError);
  assertEquals(length.message, `Cannot run "function": argument 1 has 3 numbers, expected 4 for [2,2]`);
  assertEquals(await product.run([1, 2, 3, 4], [1, 2, 3, 4]), Float32Array.of(1, 4, 9, 16));
});

Deno.test("one result cannot be asked of a function that has two", async () => {
  await using pair = compile(function pair(x) {
    return [x, x.neg()];
  }, f32(1));
  await assertRejects(() => pair.run([1]), TypeError, `Cannot run "pair" for one result: it has y0, y1; use runAll`);
});

Deno.test("functions whose shapes do not fit are refused when they are compiled", () => {
  assertThrows(() => compile((x) => x.add(x.transpose(0, 1)), f32(2, 3)), TypeError, `Cannot apply "add"`);
  assertThrows(() => compile(grad((x) => x.square()), f32(3)), TypeError, "expected one scalar result, got [3]");
});

Deno.test("a graph with states is not a function", () => {
  const state = { name: "w", kind: "parameter", ...f32(2) } as const;
  const graph = traceGraph("step", [state], () => {});
  assertThrows(() => new Executable(graph), TypeError, `Cannot make graph "step" executable: it has states ("w")`);
});

Deno.test("what the device refuses is told, and closing then is no second error", async () => {
  await using square = new Executable(trace((x) => x.square(), f32(1)), { threads: 5000 });
  await assertRejects(() => square.run([1]), TitanError, "more than 4096 threads");
});
