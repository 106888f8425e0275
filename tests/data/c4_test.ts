import { assertEquals } from "@std/assert";
import { shardName } from "../../data/c4.ts";

Deno.test("shards have C4's names", () => {
  assertEquals(shardName("train", 7, 1024), "c4-train.00007-of-01024.json.gz");
  assertEquals(shardName("validation", 0, 8), "c4-validation.00000-of-00008.json.gz");
});
