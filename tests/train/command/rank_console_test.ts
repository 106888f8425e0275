import { assertEquals } from "@std/assert";
import { RankConsole } from "../../../train/command/rank_console.ts";

Deno.test("a rank's lines say whose they are; those of ranks that are not shown are kept back, but for errors", () => {
  const before = { log: console.log, error: console.error }, out: string[] = [], errors: string[] = [];
  console.log = (text: string) => out.push(text);
  console.error = (text: string) => errors.push(text);
  try {
    const own = { log: console.log, error: console.error };
    {
      using rank = new RankConsole(2);
      console.log("a\n%d", 1);
      rank.show([0, 1]);
      console.log("hidden");
      console.error(new RangeError("no").message);
      rank.show([0, 2]);
      console.log("b");
      rank.show("all");
      console.log({ c: 1 });
    }
    assertEquals({ log: console.log, error: console.error }, own);
  } finally {
    Object.assign(console, before);
  }
  assertEquals(out, ["[rank2] a\n[rank2] 1", "[rank2] b", "[rank2] { c: 1 }"]);
  assertEquals(errors, ["[rank2] no"]);
});
