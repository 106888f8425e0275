import { assert, assertEquals, assertRejects } from "@std/assert";
import { gzipSync } from "node:zlib";
import { readShard, shardName } from "../../data/c4.ts";
import { DataError } from "../../data/error.ts";
import { toUrl } from "../../data/source.ts";
import { c4Lines, isOpen, someTexts, temporaryFolder } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };
const text = (line: string) => new TextEncoder().encode(line);

/** Writes a shard, reads it, and gives its texts. */
async function read(bytes: Uint8Array, take = ALL): Promise<string[]> {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/shard.json.gz`;
  await Deno.writeFile(path, bytes);
  return (await Array.fromAsync(readShard(toUrl(path), take))).map((document) => document.text);
}

Deno.test("shards have C4's names", () => {
  assertEquals(shardName("train", 7, 1024), "c4-train.00007-of-01024.json.gz");
  assertEquals(shardName("validation", 0, 8), "c4-validation.00000-of-00008.json.gz");
});

Deno.test("a shard gives its texts in order", async () => {
  const texts = ["first", "", "é 😀\n\u2028 third"];
  assertEquals(await read(gzipSync(c4Lines(texts))), texts);
});

Deno.test("the last line needs no newline", async () => {
  assertEquals(await read(gzipSync(c4Lines(["a", "b"]).trimEnd())), ["a", "b"]);
});

Deno.test("a shard of several gzip members is read to its end", async () => {
  const texts = someTexts(6);
  const line = c4Lines(texts);
  assertEquals(await read(new Uint8Array([...gzipSync(line.slice(0, 100)), ...gzipSync(line.slice(100))])), texts);
});

Deno.test("lines are joined across chunks, also where a character is cut", async () => {
  const texts = Array.from({ length: 40 }, (_, i) => `${i} ` + "é😀".repeat(20_000 + i)); // 5 MB in chunks of 1 MiB
  assertEquals(await read(gzipSync(c4Lines(texts))), texts);
});

Deno.test("a shard gives every k-th text from a place on", async () => {
  const texts = someTexts(20);
  const shard = gzipSync(c4Lines(texts));
  assertEquals(await read(shard, { from: 0, every: 3, offset: 2 }), texts.filter((_, i) => i % 3 === 2));
  assertEquals(await read(shard, { from: 9, every: 3, offset: 2 }), texts.filter((_, i) => i % 3 === 2 && i >= 9));
  assertEquals(await read(shard, { from: 20, every: 1, offset: 0 }), []);
});

Deno.test("a shard that is left early is closed", { ignore: Deno.build.os !== "linux" }, async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/shard.json.gz`;
  await Deno.writeFile(path, gzipSync(c4Lines(someTexts(50_000)))); // more than one chunk
  for await (const document of readShard(toUrl(path), ALL)) {
    assertEquals(isOpen(path), true);
    if (document.index === 2) break;
  }
  assertEquals(isOpen(path), false);
});

Deno.test("a shard cut off anywhere is an error that names it and the last good line", async () => {
  const whole = gzipSync(c4Lines(someTexts(200)));
  for (const length of [0, 5, 9, Math.floor(whole.length / 2), whole.length - 8, whole.length - 1]) {
    const error = await assertRejects(
      () => read(whole.subarray(0, length)),
      DataError,
      "/shard.json.gz is cut off after line ",
    );
    assertEquals(error.code, "damaged_shard");
  }
});

Deno.test("texts before a cut are delivered, and the error counts them", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/shard.json.gz`;
  const random = Array.from({ length: 60_000 }, (_, i) => String(Math.sin(i))); // hardly shrinks: many chunks
  await Deno.writeFile(path, gzipSync(c4Lines(random)).subarray(0, -100));
  let documents = 0;
  const error = await assertRejects(async () => {
    for await (const document of readShard(toUrl(path), ALL)) {
      assertEquals(document.text, random[document.index]);
      documents++;
    }
  }, DataError);
  assert(documents > 10_000 && documents < 60_000, `${documents}`);
  assert(error.message.includes(`is cut off after line ${documents}: `), error.message);
});

Deno.test("a damaged shard is an error", async (t) => {
  const whole = gzipSync(c4Lines(someTexts(200)));
  const flipped = (at: number) => whole.map((byte, i) => i === at ? byte ^ 0xff : byte);
  const cases: [string, Uint8Array][] = [
    ["in its data", flipped(Math.floor(whole.length / 2))],
    ["in its checksum", flipped(whole.length - 6)],
    ["in its header", flipped(0)],
    ["by text after its end", new Uint8Array([...whole, ...text("more")])],
    ["by not being gzip", text(c4Lines(["a"]))],
  ];
  for (const [name, bytes] of cases) {
    await t.step(name, async () => {
      const error = await assertRejects(() => read(bytes), DataError, "/shard.json.gz is damaged after line 0: ");
      assertEquals(error.code, "damaged_shard");
    });
  }
});

Deno.test("a shard that this user may not read is no damaged one", { ignore: Deno.uid() === 0 }, async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/shard.json.gz`;
  await Deno.writeFile(path, gzipSync(c4Lines(["a"])), { mode: 0 });
  const { code } = await assertRejects(() => Array.fromAsync(readShard(toUrl(path), ALL)), DataError, path);
  assertEquals(code, "unreadable");
});

Deno.test("a file that is no shard at all is told how it is read, or made one", async () => {
  await using folder = await temporaryFolder();
  const refused = async (name: string) => {
    const path = `${folder.path}/${name}`;
    await Deno.writeTextFile(path, c4Lines(["a"]));
    const { problem } = await assertRejects(() => Array.fromAsync(readShard(toUrl(path), ALL)), DataError);
    assertEquals([problem.code, problem.what], ["not_a_shard", `Cannot read ${path} as a shard: it is no gzip file`]);
    return problem.fix.replaceAll(folder.path, "");
  };
  assertEquals(
    await refused("book.txt"),
    'read it as dataset "text": --training.dataset text --training.dataset_path /book.txt',
  );
  assertEquals(await refused("lines.json"), "compress its lines: gzip /lines.json");
});

Deno.test("a line that cannot be used is an error that names the shard and the line", async (t) => {
  const cases: [string, Uint8Array, string][] = [
    ["no JSON", text('{"text": "b'), "Unterminated string"],
    ["an empty line", text(""), "Unexpected end"],
    ["no text", text('{"url": "u", "timestamp": ""}'), 'it has no "text" (keys: url, timestamp)'],
    ["a text that is no string", text('{"text": 3}'), 'it has a "text" that is no string (keys: text)'],
    ["no object", text("[1]"), "it is no object"],
    ["null", text("null"), "it is no object"],
    ["not UTF-8", new Uint8Array([...text('{"text": "'), 0xff, ...text('"}')]), "it is not UTF-8"],
  ];
  for (const [name, line, why] of cases) {
    await t.step(name, async () => {
      const bytes = new Uint8Array([...text(c4Lines(["a", "b"])), ...line, ...text("\n" + c4Lines(["c"]))]);
      const error = await assertRejects(() => read(gzipSync(bytes)), DataError, "Cannot read line 3 of shard ");
      assert(error.message.includes(`/shard.json.gz: ${why}`), error.message);
      assertEquals(error.code, "bad_document");
    });
  }
});

Deno.test("a shard without a line, and one that is not there, are errors", async () => {
  const empty = await assertRejects(() => read(gzipSync("")), DataError, "/shard.json.gz holds no document");
  assertEquals(empty.code, "empty_dataset");
  const none = () => Array.fromAsync(readShard(toUrl("/nowhere/shard.json.gz"), ALL));
  assertEquals((await assertRejects(none, DataError, "shard /nowhere/shard.json.gz")).code, "no_such_file");
});
