import { assertEquals } from "@std/assert";
import { compare, windows } from "../../tools/compare_losses.ts";

Deno.test("windows are means of steps, the last one of those that are left", () => {
  assertEquals(windows([1, 3, 5, 7, 10], 2), [2, 6, 10]);
});

Deno.test("a curve's distance to its twin stands beside the spread of all others", () => {
  const { distance, spread } = compare([4, 2], [[4, 3], [5, 2.5], [4.5, 2]], 1);
  assertEquals(distance, [0, 1]);
  assertEquals(spread, [1, 1]);
});
