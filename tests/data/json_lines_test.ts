import { assert, assertEquals, assertRejects } from "@std/assert";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { DataError } from "../../data/error.ts";
import { readJsonLines } from "../../data/json_lines.ts";
import type { ReadOptions, Take } from "../../data/shard.ts";
import { shardFile, toUrl } from "../../data/source.ts";
import { c4Lines, isOpen, someTexts, temporaryFolder } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };
const text = (line: string) => new TextEncoder().encode(line);

const readAt = (path: string, take: Take = ALL, options?: ReadOptions) =>
  readJsonLines(shardFile(toUrl(path)), take, options);

/** Writes a shard, reads it, and gives its texts. */
async function read(bytes: Uint8Array, take = ALL, options?: ReadOptions, name = "shard.json.gz"): Promise<string[]> {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/${name}`;
  await Deno.writeFile(path, bytes);
  return (await Array.fromAsync(readAt(path, take, options))).map((document) => document.text);
}

Deno.test("a shard gives its texts in order", async () => {
  const texts = ["first", "", "é 😀\n\u2028 third"];
  assertEquals(await read(gzipSync(c4Lines(texts))), texts);
});

Deno.test("the last line needs no newline", async () => {
  assertEquals(await read(gzipSync(c4Lines(["a", "b"]).trimEnd())), ["a", "b"]);
});

Deno.test("a shard is gzip, zstd or plain as its name ends, and empty lines hold no document", async () => {
  const lines = c4Lines(["a", "b"]).replace("\n", "\n\n \r\n");
  assertEquals(await read(zstdCompressSync(lines), ALL, {}, "shard.jsonl.zst"), ["a", "b"]);
  assertEquals(await read(gzipSync(lines), ALL, {}, "shard.jsonl.GZ"), ["a", "b"]);
  assertEquals(await read(text(lines), ALL, {}, "shard.json"), ["a", "b"]);
});

Deno.test("the text has the key that is asked for", async () => {
  assertEquals(await read(text('{"text": "a", "body": "b"}'), ALL, { field: "body" }, "shard.jsonl"), ["b"]);
  const none = () => read(text('{"text": "a"}'), ALL, { field: "toString" }, "shard.jsonl");
  await assertRejects(none, DataError, 'it has no "toString" (keys: text)');
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
  for await (const document of readAt(path)) {
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
    for await (const document of readAt(path)) {
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
  const { code } = await assertRejects(() => Array.fromAsync(readAt(path)), DataError, path);
  assertEquals(code, "unreadable");
});

Deno.test("a line that cannot be used is an error that names the shard and the line", async (t) => {
  const cases: [string, Uint8Array, string][] = [
    ["no JSON", text('{"text": "b'), "Unterminated string"],
    ["no text", text('{"url": "u", "timestamp": ""}'), 'it has no "text" (keys: url, timestamp)'],
    ["a text that is no string", text('{"text": 3}'), 'it has a "text" that is no string (keys: text)'],
    ["no object", text("[1]"), "it is no object"],
    ["null", text("null"), "it is no object"],
    ["not UTF-8", new Uint8Array([...text('{"text": "'), 0xff, ...text('"}')]), "it is not UTF-8"],
  ];
  for (const [name, line, why] of cases) {
    await t.step(name, async () => {
      const bytes = new Uint8Array([...text(c4Lines(["a", "b"])), ...line, ...text("\n" + c4Lines(["c"]))]);
      const error = await assertRejects(
        () => read(gzipSync(bytes)),
        DataError,
        "Cannot read line 3 (byte 114) of shard ",
      );
      assert(error.message.includes(`/shard.json.gz: ${why}`), error.message);
      assertEquals(error.code, "bad_document");
    });
  }
});

Deno.test("a shard without a line, and one that is not there, are errors", async () => {
  const empty = await assertRejects(() => read(gzipSync("")), DataError, "/shard.json.gz holds no document");
  assertEquals(empty.code, "empty_dataset");
  const none = () => Array.fromAsync(readAt("/nowhere/shard.json.gz"));
  assertEquals((await assertRejects(none, DataError, "shard /nowhere/shard.json.gz")).code, "no_such_file");
});

Deno.test("a line beyond the largest document is bad, is not held, and those behind it are read", async () => {
  const long = "x".repeat(20 << 20), bad: string[] = [];
  const onBad = (error: DataError) => void bad.push(error.message);
  const shard = gzipSync(c4Lines(["a", long, "b", "c".repeat(900)]));
  assertEquals(await read(shard, ALL, { maxBytes: 1000, onBad }), ["a", "b", "c".repeat(900)]);
  assertEquals(bad.length, 1);
  assert(/Cannot read line 2 \(byte 57\) of shard \S+: it has more than 1000 bytes\n/.test(bad[0]), bad[0]);
  await assertRejects(() => read(shard, ALL, { maxBytes: 1000 }), DataError, "line 2");
});

Deno.test("what cannot be used is left out and told where that is asked for, and all else is read", async () => {
  const bad: string[] = [], onBad = (error: DataError) => void bad.push(error.code);
  const lines = c4Lines(["a"]) + "{\n" + c4Lines(["b"]) + "[]\n" + c4Lines(["c"]);
  assertEquals(await read(text(lines), ALL, { onBad }, "a.jsonl"), ["a", "b", "c"]);
  const cut = gzipSync(c4Lines(Array.from({ length: 60_000 }, (_, i) => String(Math.sin(i))))).subarray(0, -100);
  const read1 = await read(cut, ALL, { onBad });
  assert(read1.length > 10_000, `${read1.length}`);
  assertEquals(await read(new Uint8Array(0), ALL, { onBad }, "a.jsonl"), []);
  assertEquals(bad, ["bad_document", "bad_document", "damaged_shard", "empty_dataset"]);
});

Deno.test("going on far into a compressed shard without an index is told, once", async () => {
  await using folder = await temporaryFolder();
  const lines = text("{}\n".repeat(6000) + c4Lines(["wanted", "and more"])), told: string[] = [];
  const read = async (name: string, from: number, written: Uint8Array) => {
    await Deno.writeFile(`${folder.path}/${name}`, written);
    const file = shardFile(toUrl(`${folder.path}/${name}`)), options = { onNote: (note: string) => told.push(note) };
    const take = { ...ALL, from };
    for (let n = 0; n < 2; n++) {
      const [first] = await Array.fromAsync(readJsonLines(file, take, options));
      assertEquals(first.text, "wanted");
    }
  };
  await read("a.jsonl", 6000, lines);
  await read("a.jsonl.gz", 6000, gzipSync(lines));
  await read("a.jsonl.zst", 6000, zstdCompressSync(lines));
  assertEquals(told.map((note) => note.replace(folder.path, "")), [
    "reading shard /a.jsonl.gz from its beginning to line 6001, as no place in between is known (it has no index yet)",
    "reading shard /a.jsonl.zst from its beginning to line 6001, as no place in between is known (zstd has no index)",
  ]);
});
