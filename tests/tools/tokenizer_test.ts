import { gzipSync } from "node:zlib";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { run } from "../../tools/tokenizer.ts";
import { UsageError } from "../../tools/tool.ts";
import { CheckpointError } from "../../train/checkpoint/error.ts";
import { temporaryFolder } from "../data/fixture.ts";

async function command(...args: string[]): Promise<{ code: number; text: string }> {
  const lines: string[] = [], code = await run(args, (text) => lines.push(text));
  return { code, text: lines.join("\n") };
}

Deno.test("a tokenizer is learned from files of text and from lines of JSON, and opens", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder;
  await Deno.writeTextFile(`${path}/a.txt`, "the thing that they think\n".repeat(50));
  await Deno.writeTextFile(
    `${path}/b.jsonl`,
    `${JSON.stringify({ body: "Gr\u00fc\u00dfe, Gr\u00fc\u00dfe" })}\n`.repeat(80),
  );
  const shard = gzipSync(`${JSON.stringify({ body: "zzzz zzzz" })}\n`.repeat(90));
  await Deno.writeFile(`${path}/c.jsonl.gz`, shard);
  const { code, text } = await command(
    ...["train", "--data", `${path}/a.txt`, "--data", `${path}/b.jsonl`, "--data", `${path}/*.gz`],
    ...["--vocab-size=270", "--out", `${path}/made`, "--field", "body"],
  );
  assertEquals([code, text], [0, `${path}/made has a tokenizer of 270 tokens`]);
  const tokenizer = await Tokenizer.open(`${path}/made`);
  assertEquals([tokenizer.bosId, tokenizer.eosId], [268, 269]);
  assertEquals(tokenizer.encode("Gr\u00fc\u00dfe").length < 7, true);
  assertEquals(tokenizer.encode("zzzz").length, 1);
  assertEquals(tokenizer.decode(tokenizer.encode("Gr\u00fc\u00dfe, \u{1f600}")), "Gr\u00fc\u00dfe, \u{1f600}");
});

Deno.test("text with fewer pairs than asked for gives a smaller tokenizer, and says so", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "abc");
  const { text } = await command(
    "train",
    "--data",
    folder.path,
    "--vocab-size",
    "9999",
    "--out",
    `${folder.path}/made`,
  );
  assertStringIncludes(text, "a tokenizer of 260 tokens; the text has no pair for more");
});

Deno.test("a tokenizer is not overwritten, and what cannot be made is refused before the text is read", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/tokenizer.json`, "mine");
  const train = (size: string) => command("train", "--data", "none/", "--vocab-size", size, "--out", folder.path);
  await assertRejects(() => train("300"), CheckpointError, "has a tokenizer");
  await assertRejects(() => train("3"), DataError, "Cannot make a tokenizer of 3 tokens");
  assertEquals(await Deno.readTextFile(`${folder.path}/tokenizer.json`), "mine");
});

Deno.test("anything but what it knows is refused with how it is called", async () => {
  const cases = [[], ["train"], ["train", "--data", "a"], ["train", "--data", "a", "--vocab-size", "9", "--what"], [
    "learn",
  ]];
  for (const args of cases) {
    await assertRejects(() => command(...args), UsageError, "\n\nUsage: npx -y deno task tokenizer train");
  }
  assertEquals((await command("--help")).code, 0);
});
