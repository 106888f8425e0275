import { assertEquals } from "@std/assert";
import { converted, newArray, numbersOf, setNumbers } from "../../train/typed_array.ts";

Deno.test("numbers go into bf16 rounded to nearest, ties to even, and come back exactly", () => {
  const type = { dtype: "bf16", shape: [8] } as const, array = newArray(type), above = 1 + 2 ** -7;
  setNumbers(array, "bf16", [1, -2.5, 1 + 2 ** -8, above + 2 ** -8, 3e38 * 1.2, 2 ** -133, Infinity, NaN]);
  const expected = [1, -2.5, 1, 1 + 2 ** -6, Infinity, 2 ** -133, Infinity, NaN];
  assertEquals([...numbersOf(array, "bf16")], expected);
  assertEquals(array.byteLength, 16);
});

Deno.test("other types hold what they are given", () => {
  const array = newArray({ dtype: "i32", shape: [2, 1] });
  setNumbers(array, "i32", [7, -1]);
  const copy = numbersOf(array, "i32");
  array[0] = 0;
  assertEquals([...copy], [7, -1]);
});

Deno.test("bytes of another type hold the nearest values, wherever they lie in a buffer", () => {
  const buffer = new Uint8Array(20), values = [1 / 3, -2];
  buffer.set(new Uint8Array(new Float64Array(values).buffer), 3);
  const f32 = converted(buffer.subarray(3, 19), "f64", "f32");
  assertEquals([...new Float32Array(f32.buffer)], values.map(Math.fround));
  const [bf16, back] = [converted(f32, "f32", "bf16"), converted(converted(f32, "f32", "bf16"), "bf16", "f64")];
  assertEquals([bf16.length, [...new Float64Array(back.buffer)]], [4, [0.333984375, -2]]);
  assertEquals(converted(f32, "f32", "f32"), f32);
});
