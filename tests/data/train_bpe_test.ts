import { assertEquals } from "@std/assert";
import { shardName } from "../../data/c4.ts";
import { SAMPLE } from "../../data/dataset.ts";
import { readJsonLines } from "../../data/json_lines.ts";
import { shardFile } from "../../data/source.ts";
import { trainBpe, WordCounts } from "../../data/train_bpe.ts";

Deno.test("Python's tokenizers learns the same merges from the sample", async () => {
  const counts = new WordCounts(), shard = shardFile(new URL(shardName("train", 0, 4), SAMPLE));
  const golden = await Deno.readTextFile(new URL("../goldens/tokenizers/trained.json", import.meta.url));
  let left = 400;
  for await (const { text } of readJsonLines(shard, { from: 0, every: 1, offset: 0 })) if (left-- > 0) counts.add(text);
  const { tokens, merges } = trainBpe(counts, 1024);
  assertEquals(merges, JSON.parse(golden));
  assertEquals(tokens.length, 1024);
});

Deno.test("the commonest pair becomes a token first, of equal ones that of the lower numbers", () => {
  const learn = (counts: [string, number][], size: number) => trainBpe(counts, size).merges;
  assertEquals(learn([["abc", 2], ["bc", 1], ["xy", 3]], 258), [["b", "c"], ["x", "y"]]);
  assertEquals(learn([["aaaa", 1]], 300), [["a", "a"], ["aa", "aa"]]);
  assertEquals(learn([["\u00e9", 5]], 300), [["\u00c3", "\u00a9"]]);
  assertEquals(trainBpe([], 300).tokens.length, 256);
});
