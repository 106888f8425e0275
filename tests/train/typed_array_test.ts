import { assertEquals, assertThrows } from "@std/assert";
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

Deno.test("numbers go into f16 rounded to nearest, ties to even, and come back exactly", () => {
  const half = (numbers: number[], Kind: typeof Float32Array | typeof Float64Array = Float32Array) => {
    const from = Kind === Float32Array ? "f32" : "f64", bytes = new Uint8Array(new Kind(numbers).buffer);
    const [f16, bits] = [converted(bytes, from, "f16"), new Uint16Array(numbers.length)];
    new Uint8Array(bits.buffer).set(f16);
    return { bits: [...bits], back: [...new Float32Array(converted(f16, "f16", "f32").buffer)] };
  };
  assertEquals(half([1, -2, 0.5, -0, Infinity, -Infinity]).bits, [0x3c00, 0xc000, 0x3800, 0x8000, 0x7c00, 0xfc00]);
  assertEquals(half([NaN]).back, [NaN]);
  // Halfway between two neighbours, and just beside: the one that is even, the one that is near.
  const ties = [1 + 2 ** -11, 1 + 3 * 2 ** -11, 1 + 2 ** -11 + 2 ** -20, 2 ** -25, 3 * 2 ** -25, 65519];
  assertEquals(half(ties).bits, [0x3c00, 0x3c02, 0x3c01, 0, 2, 0x7bff]);
  // By way of f32 this would be halfway, and then 1.
  assertEquals(half([1 + 2 ** -11 + 2 ** -40], Float64Array).bits, [0x3c01]);
});

Deno.test("a finite number that f16 has not is refused rather than made infinite", () => {
  const bytes = (x: number) => new Uint8Array(new Float32Array([1, x]).buffer);
  for (const x of [65520, -1e6, 3e38]) {
    assertThrows(
      () => converted(bytes(x), "f32", "f16"),
      RangeError,
      "is too large for f16, whose numbers end at 65504",
    );
  }
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
