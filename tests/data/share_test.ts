import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import type { Dataset } from "../../data/dataset.ts";
import { partsOf, share } from "../../data/share.ts";

Deno.test("each document is read by one lane, and no lane reads more than another but for a share of one shard", () => {
  const count = fc.integer({ min: 1, max: 60 });
  fc.assert(fc.property(count, count, (lanes, shards) => {
    const owned = Array.from({ length: shards }, () => new Set<number>()), every = new Map<number, number>();
    const sizes = Array.from({ length: lanes }, (_, lane) => {
      const parts = share(lane, lanes, shards);
      for (const part of parts) {
        assertEquals(every.get(part.shard) ?? part.every, part.every);
        every.set(part.shard, part.every);
        assert(!owned[part.shard].has(part.offset), "two lanes read the same");
        owned[part.shard].add(part.offset);
      }
      return parts.reduce((sum, part) => sum + 1 / part.every, 0);
    });
    owned.forEach((offsets, shard) => {
      assertEquals([...offsets].sort((a, b) => a - b), Array.from({ length: every.get(shard)! }, (_, n) => n));
    });
    assert(Math.min(...sizes) > 0 && Math.max(...sizes) - Math.min(...sizes) <= 0.5, String(sizes));
  }));
});

Deno.test("lanes take whole shards where there are enough, and every k-th document where k share one", () => {
  assertEquals(share(1, 4, 8), [{ shard: 1, every: 1, offset: 0 }, { shard: 5, every: 1, offset: 0 }]);
  assertEquals(share(5, 8, 4), [{ shard: 1, every: 2, offset: 1 }]);
  assertEquals(share(3, 4, 6), [{ shard: 3, every: 1, offset: 0 }, { shard: 5, every: 2, offset: 1 }]);
});

Deno.test("a lane reads its shards in another order in each epoch where they are shuffled, and always the same ones", () => {
  const dataset = { shards: Array(64), shuffle: 3 } as unknown as Dataset;
  const orders = [0, 1, 2].map((epoch) => partsOf(dataset, 1, 4, epoch).map(({ shard }) => shard));
  assertEquals(new Set(orders.map(String)).size, 3);
  for (const order of orders) assertEquals(order.toSorted((a, b) => a - b), share(1, 4, 64).map(({ shard }) => shard));
  assertEquals(partsOf({ ...dataset, shuffle: undefined }, 1, 4, 2), share(1, 4, 64));
});
