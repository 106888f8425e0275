import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { gzipSync } from "node:zlib";
import { DataError } from "../../data/error.ts";
import { run } from "../../tools/data.ts";
import { UsageError } from "../../tools/tool.ts";
import { c4Lines, temporaryFolder } from "../data/fixture.ts";

async function command(...args: string[]): Promise<{ code: number; lines: string[] }> {
  const lines: string[] = [], code = await run(args, (text) => lines.push(text));
  return { code, lines };
}

Deno.test("rows are shown as text, documents apart", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(
    `${folder.path}/a.jsonl`,
    ["one", "two", "three"].map((text) => JSON.stringify({ text })).join("\n"),
  );
  const keys = [
    "--training.dataset=files",
    `--training.dataset_path=${folder.path}`,
    "--data.tokenizer=bytes",
    "--data.lanes=1",
  ];
  const { code, lines } = await command("show", "--rows", "2", "--training.seq_len=9", "--data.no_shuffle", ...keys);
  assertEquals([code, lines.length], [0, 2]);
  assertEquals(lines[0].replace(/<[^>]*>/g, ""), "row 1  one|two");
});

Deno.test("documents and tokens are counted, and their lengths shown as bars", async () => {
  await using folder = await temporaryFolder();
  const texts = ["a", "bb", "ccccccc", "d".repeat(30)];
  await Deno.writeFile(`${folder.path}/a.jsonl.gz`, gzipSync(c4Lines(texts)));
  const keys = [
    "--training.dataset=files",
    `--training.dataset_path=${folder.path}`,
    "--data.tokenizer=bytes",
    "--data.no_shuffle",
  ];
  const { lines } = await command("stats", ...keys);
  assertMatch(lines[1], /^ {2}4 documents, 48 tokens, [\d,]+ tokens\/s by one worker$/); // with those that begin and end each
  assertEquals(lines[2], "  tokens of a document: 3 to 32, half of them up to 4");
  assertEquals(lines.slice(3).map((line) => line.replace(/\s+/g, " ").trim()), [
    `2 .. 3 ${"#".repeat(40)} 1`,
    `4 .. 7 ${"#".repeat(40)} 1`,
    `8 .. 15 ${"#".repeat(40)} 1`,
    "16 .. 31 0",
    `32 .. 63 ${"#".repeat(40)} 1`,
  ]);
  assertMatch((await command("stats", "--documents", "2", ...keys)).lines[1], /^ {2}2 documents, 7 tokens/);
});

Deno.test("with --json each command prints one object that says the same", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.jsonl`, c4Lines(["one", "two", "three"]));
  const keys = [
    "--training.dataset=files",
    `--training.dataset_path=${folder.path}`,
    "--data.tokenizer=bytes",
    "--data.lanes=1",
    "--data.no_shuffle",
  ];
  const json = async (...args: string[]) => JSON.parse((await command(...args, "--json")).lines.join("\n"));
  const { rows } = await json("show", "--rows", "1", "--training.seq_len=9", ...keys);
  assertEquals(rows[0].map(({ document, learned, tokens }: Record<string, unknown>) => [document, learned, tokens]), [
    [rows[0][0].document, true, 5],
    [rows[0][0].document + 1, true, 4],
  ]);
  const { tokensPerSecond, description: _, ...source } = (await json("stats", ...keys)).sources[0];
  assert(tokensPerSecond > 0);
  const lengths = [{ from: 4, to: 7, documents: 3 }];
  const sizes = { documents: 3, tokens: 17, shortest: 5, median: 5, longest: 7, lengths };
  assertEquals(source, { name: source.name, ...sizes });
  assertEquals(await json("verify", folder.path), { documents: 3, shards: 1, problems: [] });
  await Deno.writeTextFile(`${folder.path}/b.jsonl`, "{}\n");
  assertEquals((await json("verify", folder.path)).problems.length, 1);
});

Deno.test("a folder is verified, and what cannot be used is named", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.jsonl`, c4Lines(["a", "b"]));
  assertEquals(await command("verify", folder.path), { code: 0, lines: ["2 documents in 1 shard; all can be used"] });
  await Deno.writeFile(`${folder.path}/b.json.gz`, gzipSync(c4Lines(["c"])).subarray(0, -9));
  await Deno.writeTextFile(`${folder.path}/c.jsonl`, "{}\n" + c4Lines(["d"]));
  const { code, lines } = await command("verify", folder.path);
  assertEquals(code, 1);
  assert(lines.some((line) => /^Shard \S+b\.json\.gz is cut off after line \d/.test(line)), lines.join("\n"));
  assert(lines.some((line) => /^Cannot read line 1 \(byte 0\) of shard \S+c\.jsonl: it has no "text"/.test(line)));
  assertMatch(lines.at(-1)!, /^\d documents in 3 shards; 2 cannot be used$/);
  await assertRejects(() => command("verify", `${folder.path}/none`), DataError, "Cannot find a file");
});

Deno.test("a command that there is not is refused with the usage", async () => {
  const usage = "Usage: npx -y deno task data COMMAND ...";
  for (const args of [[], ["look"], ["verify"]]) {
    await assertRejects(() => command(...args), UsageError, `\n\n${usage}`);
  }
  const { code, lines } = await command("--help");
  assertEquals([code, lines[0].split("\n")[0]], [0, usage]);
});
