import { assertEquals, assertThrows } from "@std/assert";
import { sequenceOrder } from "../../parallel/balance.ts";

Deno.test("head and tail: rank r gets chunks r and 2 cp - 1 - r", () => {
  assertEquals([...sequenceOrder(8, 2, "headtail")], [0, 1, 6, 7, 2, 3, 4, 5]);
  assertEquals([...sequenceOrder(6, 3, "headtail")], [0, 5, 1, 4, 2, 3]);
});

Deno.test("every rank attends to the same number of keys", () => {
  for (const cp of [2, 3, 4]) {
    const seqLen = 12 * cp, order = [...sequenceOrder(seqLen, cp, "headtail")];
    assertEquals(order.toSorted((a, b) => a - b), order.map((_, i) => i));
    const pairs = Array.from(
      { length: cp },
      (_, r) => order.slice(12 * r, 12 * (r + 1)).reduce((sum, position) => sum + position + 1, 0),
    );
    assertEquals(pairs, pairs.map(() => seqLen * (seqLen + 1) / 2 / cp));
  }
});

Deno.test("without a balancer, or on one rank, the text keeps its order", () => {
  assertEquals([...sequenceOrder(6, 2, null)], [0, 1, 2, 3, 4, 5]);
  assertEquals([...sequenceOrder(5, 1, "headtail")], [0, 1, 2, 3, 4]);
});

Deno.test("a sequence that does not fall into equal chunks is refused", () => {
  assertThrows(() => sequenceOrder(10, 2, "headtail"), RangeError, "expected a multiple of 4");
});
