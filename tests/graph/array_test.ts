import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { setNumbers } from "../../train/typed_array.ts";
import { arr, forEachIndex, nearestOf, stridesOf, zip } from "../../graph/array.ts";

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

/** FNV-1a of 64 bits over 32-bit words, as `csrc/tests/float8_test.cpp` has it. */
function hash(octets: Uint8Array<ArrayBuffer>): string {
  let value = 0xcbf29ce484222325n;
  for (const word of new Uint32Array(octets.buffer)) {
    value = (value ^ BigInt(word)) * 0x100000001b3n & 0xffffffffffffffffn;
  }
  return `0x${value.toString(16).padStart(16, "0")}`;
}

Deno.test("all bf16 are rounded to float8 as PyTorch rounds them, by the hashes that hold the native casts", async () => {
  const goldens = await Deno.readTextFile(new URL("../../csrc/tests/float8_goldens.h", import.meta.url));
  const bits = new Uint32Array(1).fill(0), number = new Float32Array(bits.buffer);
  for (const [dtype, name] of [["f8e4m3", "E4M3"], ["f8e5m2", "E5M2"]] as const) {
    const octets = new Uint8Array(1 << 16), nearest = nearestOf(dtype), numbers = new Float64Array(1 << 16);
    for (let i = 0; i < octets.length; i++) {
      bits[0] = i << 16;
      numbers[i] = nearest(number[0]);
    }
    setNumbers(octets, dtype, numbers);
    // A NaN has no sign here.
    octets.forEach((octet, i) => octets[i] = Number.isNaN(numbers[i]) ? octet & 0x7f | i >>> 8 & 0x80 : octet);
    assertStringIncludes(goldens, `${name} = {${hash(octets)}, `);
  }
});

Deno.test("float8 is rounded to even at ties, saturates without infinities, and keeps subnormal numbers and the sign of zero", () => {
  const [e4m3, e5m2] = [nearestOf("f8e4m3"), nearestOf("f8e5m2")];
  assertEquals([1.0625, 1.1875, 1.06251, 464, 1e9, -Infinity].map(e4m3), [1, 1.25, 1.125, 448, 448, -448]);
  assertEquals([1.125, 1.375, 57344, 61439, 61440, -Infinity].map(e5m2), [1, 1.5, 57344, 57344, Infinity, -Infinity]);
  assertEquals([2 ** -9, 2 ** -10, 3 * 2 ** -10, -(2 ** -10)].map(e4m3), [2 ** -9, 0, 2 ** -8, -0]);
  assertEquals([2 ** -16, 2 ** -17, 3 * 2 ** -17].map(e5m2), [2 ** -16, 0, 2 ** -15]);
  assertEquals([NaN].map(e4m3).concat([NaN].map(e5m2)), [NaN, NaN]);
  assertThrows(() => nearestOf("f64"), RangeError, "expected bf16 or f8e4m3 or f8e5m2");
});
