import { assert, assertEquals, assertMatch } from "@std/assert";
import { ranks, results, testRanks } from "../native/mpirun.ts";

const script = new URL("process_group_rank.ts", import.meta.url);

testRanks("ranks exchange numbers, again and again", async () => {
  for (const { rank: _, ...found } of await results({ size: 3, script, args: ["exchange"] })) {
    assertEquals(found, { first: [0, 0.5, 1, 0.5, 2, 0.5], second: [0, 0, -1, 1 / 3, -2, 2 / 3], one: [7, 7, 7] });
  }
});

testRanks("a rank that has failed does not wait for the others at its end", async () => {
  const { code, seconds, results: [first] } = await ranks({ size: 2, script, args: ["fail"] });
  assertEquals([code, first.rank], [5, 0]);
  assert(seconds < 10, `it took ${seconds} s`);
});

testRanks("ranks that are started by one library and joined by another are told apart", async () => {
  const { code, stderr } = await ranks({ size: 2, script, args: ["stranger"] });
  assert(code !== 0);
  // The rank that fails first ends the other one.
  assertMatch(stderr, /This process is rank ([01]) of 3 to the environment, and rank \1 of 2 to Open MPI/);
});
