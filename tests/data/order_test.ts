import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { shuffled } from "../../data/order.ts";

Deno.test("an order has each item once, and follows from its keys", () => {
  const key = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  fc.assert(fc.property(fc.uniqueArray(fc.nat()), key, key, (items, seed, epoch) => {
    const order = shuffled(items, seed, epoch);
    assertEquals(order.toSorted(), items.toSorted());
    assertEquals(shuffled(items.toReversed(), seed, epoch), order);
  }));
});

Deno.test("each seed and each epoch has an order of its own, and large seeds do, too", () => {
  const items = Array.from({ length: 50 }, (_, n) => n),
    keys = [[0, 0], [0, 1], [1, 0], [2 ** 32, 0], [2 ** 32 + 1, 0]];
  assertEquals(new Set(keys.map((key) => String(shuffled(items, ...key)))).size, keys.length);
  assertNotEquals(shuffled(items, 0, 0), items);
});

Deno.test("items that are left out change nothing of the order of the others", () => {
  const items = Array.from({ length: 50 }, (_, n) => n), some = items.filter((n) => n % 3 === 0);
  assertEquals(shuffled(items, 7).filter((n) => some.includes(n)), shuffled(some, 7));
});

Deno.test("every item comes to every place about as often", () => {
  const items = [0, 1, 2, 3, 4, 5, 6, 7], seen = items.map(() => items.map(() => 0));
  for (let epoch = 0; epoch < 8000; epoch++) shuffled(items, 3, epoch).forEach((item, place) => seen[item][place]++);
  assert(seen.flat().every((count) => Math.abs(count - 1000) < 150), String(seen)); // five standard deviations
});
