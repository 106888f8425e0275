import { assertEquals } from "@std/assert";
import { ReadingPlaces } from "../../data/reading.ts";

Deno.test("another thread sees where each worker reads, and which has not begun", () => {
  const places = ReadingPlaces.make(3), seen = new ReadingPlaces(places.memory);
  places.tell(1, { source: 1, shard: 0, document: 2 ** 33 });
  places.tell(2, { source: 0, shard: 1023, document: 5 });
  places.tell(2, { source: 0, shard: 0, document: 0 });
  assertEquals([0, 1, 2].map((worker) => seen.of(worker)), [
    undefined,
    { source: 1, shard: 0, document: 2 ** 33 },
    { source: 0, shard: 0, document: 0 },
  ]);
});
