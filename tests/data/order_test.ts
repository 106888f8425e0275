import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { shuffled, windowed } from "../../data/order.ts";
import type { Document, Shard } from "../../data/shard.ts";

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

/** A shard whose documents are named by their places, but for some that are left out. */
function numbered(size: number, holes: readonly number[] = []): Shard {
  return {
    name: "numbered",
    async *read({ from, every, offset }) {
      for (let index = 0; index < size; index++) {
        if (index >= from && index % every === offset && !holes.includes(index)) yield { index, text: String(index) };
      }
      await Promise.resolve();
    },
  };
}

Deno.test("a window of documents is shuffled, each is read once in an epoch, and a place in the middle is found again", async () => {
  const small = (max: number) => fc.integer({ min: 1, max });
  await fc.assert(
    fc.asyncProperty(small(80), small(20), small(4), fc.array(fc.nat(80)), async (size, window, every, holes) => {
      const offset = size % every, shard = windowed(numbered(size, holes), { seed: 7, window, number: 3 });
      const read = (from: number, epoch: number) => Array.fromAsync(shard.read({ from, every, offset }, epoch));
      const all = await read(0, 1),
        plain = await Array.fromAsync(numbered(size, holes).read({ from: 0, every, offset }, 1));
      const texts = (documents: readonly Document[]) =>
        documents.map((document) => "text" in document ? document.text : "");
      assertEquals(texts(all).sort(), texts(plain).sort());
      for (const { index } of all) assertEquals(index % every, offset);
      const far = all.map((document, n) =>
        Math.abs(Math.floor(Number(texts([document])[0]) / every / window) - Math.floor(all[n].index / every / window))
      );
      assertEquals(far.filter((windows) => windows > 0), [], "a document stays in its window");
      for (const [n, { index }] of all.entries()) assertEquals(await read(index, 1), all.slice(n));
    }),
    { numRuns: 50 },
  );
});

Deno.test("epochs and shards have orders of their own", async () => {
  const orderOf = async (number: number, epoch: number) => {
    const shard = windowed(numbered(40), { seed: 7, window: 40, number });
    return JSON.stringify(await Array.fromAsync(shard.read({ from: 0, every: 1, offset: 0 }, epoch)));
  };
  const orders = await Promise.all([[0, 0], [0, 1], [1, 0]].map(([number, epoch]) => orderOf(number, epoch)));
  assertEquals(new Set(orders).size, 3);
  assertEquals(await orderOf(0, 1), orders[1]);
});
