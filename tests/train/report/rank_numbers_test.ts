import { assert, assertEquals } from "@std/assert";
import { RankNumbers } from "../../../train/report/rank_numbers.ts";

Deno.test("a rank tells means since the last report, and all are put together by rank", async () => {
  const numbers = new RankNumbers(),
    exchange = (mine: ArrayLike<number>) =>
      Promise.resolve(Float64Array.from([...Array.from(mine), ...Array.from(mine, (n) => 10 * n)]));
  numbers.step({ loadingMs: 1, nativeMs: 20 });
  numbers.step({ loadingMs: 3, nativeMs: 40 });
  const first = await numbers.gather({ exchange }, 5);
  assertEquals([first.loading_ms, first.native_ms, first.loss], [[2, 20], [30, 300], [5, 50]]);
  assert(first.memory_gib[0] > 0);
  numbers.step({ loadingMs: 7, nativeMs: 8 });
  assertEquals((await numbers.gather({ exchange }, 1)).loading_ms, [7, 70]);
});
