import { assertEquals } from "@std/assert";
import { arr, forEachIndex, stridesOf, zip } from "../../graph/array.ts";

Deno.test("an array without data is zeros, and other numbers are copied to f64", () => {
  assertEquals(arr([2, 2]).data, Float64Array.of(0, 0, 0, 0));
  assertEquals(arr([2], Int32Array.of(1, -2)).data, Float64Array.of(1, -2));
  const data = Float64Array.of(1);
  assertEquals(arr([], data).data === data, true);
});

Deno.test("strides are row-major", () => {
  assertEquals(stridesOf([2, 3, 4]), [12, 4, 1]);
  assertEquals(stridesOf([]), []);
});

Deno.test("forEachIndex walks several stride systems in row-major order", () => {
  const seen: number[][] = [];
  forEachIndex([2, 3], [[3, 1], [1, 2], [0, 1]], (offsets, flat) => seen.push([flat, ...offsets]));
  assertEquals(seen, [[0, 0, 0, 0], [1, 1, 2, 1], [2, 2, 4, 2], [3, 3, 1, 0], [4, 4, 3, 1], [5, 5, 5, 2]]);
});

Deno.test("forEachIndex visits a scalar once and an empty shape never", () => {
  let visits = 0;
  forEachIndex([], [[]], () => visits++);
  assertEquals(visits, 1);
  forEachIndex([2, 0], [[0, 1]], () => visits++);
  assertEquals(visits, 1);
});

Deno.test("zip applies a function to the elements of arrays of one shape", () => {
  const out = zip([arr([2], [1, 2]), arr([2], [10, 20])], (a, b) => a + b);
  assertEquals([out.shape, [...out.data]], [[2], [11, 22]]);
});
