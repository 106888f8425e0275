import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { DataError } from "../../data/error.ts";
import { CHUNK_BYTES } from "../../data/source.ts";
import { TextDocuments, type TextDocumentsOptions } from "../../data/text_documents.ts";
import { temporaryFolder } from "./fixture.ts";

/** Writes files by name and gives their paths. */
async function write(folder: { readonly path: string }, files: Readonly<Record<string, string | Uint8Array>>) {
  for (const [name, content] of Object.entries(files)) {
    await Deno.writeFile(
      `${folder.path}/${name}`,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
  }
  return Object.keys(files).map((name) => `${folder.path}/${name}`);
}

/** Documents of one lane and epoch as `index text`. */
async function read(documents: TextDocuments, epoch = 0, [from, every, offset] = [0, 1, 0]): Promise<string[]> {
  const all = await Array.fromAsync(documents.read({ from, every, offset }, epoch));
  return all.map(({ index, text }) => `${index} ${text}`);
}

const textsOf = async (documents: TextDocuments, epoch?: number) =>
  (await read(documents, epoch)).map((document) => document.replace(/^\d+ /, ""));

const numbered = (count: number) => Array.from({ length: count }, (_, n) => `{"text": "${n}"}\n`).join("");

Deno.test("a file is a document, but of a .jsonl each line that is not empty; every k-th can be read from a place on", async () => {
  await using folder = await temporaryFolder();
  const files = await write(folder, {
    "a.md": "a\nb",
    "b.jsonl": '{"text": "c"}\r\n\n  \n{"id": 7, "text": "d\\n"}\n{"text": "é"}',
    "c.txt": "",
  });
  const documents = await TextDocuments.open(files);
  assertEquals(documents.count, 5);
  assertEquals(await read(documents), ["0 a\nb", "1 c", "2 d\n", "3 é", "4 "]);
  assertEquals(await read(documents, 0, [0, 2, 1]), ["1 c", "3 é"]);
  assertEquals(await read(documents, 0, [2, 2, 1]), ["3 é"]);
  assertEquals(await read(documents, 0, [9, 2, 1]), []);
});

Deno.test("lines are found across the chunks in which a file is read", async () => {
  await using folder = await temporaryFolder();
  const long = (length: number) => JSON.stringify({ text: "x".repeat(length) });
  const lines = [long(CHUNK_BYTES - 12 - 10), long(3), "", long(CHUNK_BYTES), long(1)];
  const [file] = await write(folder, { "a.jsonl": lines.join("\n") });
  const sizes = (await textsOf(await TextDocuments.open([file]))).map((text) => text.length);
  assertEquals(sizes, [CHUNK_BYTES - 22, 3, CHUNK_BYTES, 1]);
});

Deno.test("what cannot be read is an error that names the file and the line", async (t) => {
  await using folder = await temporaryFolder();
  const bad = new Uint8Array([0x41, 10, 0xc3, 0xa9, 10, 0xff, 10]);
  const cases: [string, string | Uint8Array, string][] = [
    ["a.txt", bad, "line 3 of PATH: it is not UTF-8"],
    ["a.jsonl", '{"text": ""}\n\n{"text"}\n', "line 3 of PATH: Expected ':'"],
    ["b.jsonl", '{"text": 7}', 'line 1 of PATH: it has a "text" that is no string (keys: text)'],
    ["c.jsonl", '{"body": "x", "id": 1}', 'line 1 of PATH: it has no "text" (keys: body, id)'],
    ["d.jsonl", "[1]", "line 1 of PATH: it is no object"],
    ["e.jsonl", "null", "line 1 of PATH: it is no object"],
    ["f.jsonl", new Uint8Array([10, 0x22, 0xff, 0x22]), "line 2 of PATH: it is not UTF-8"],
  ];
  for (const [name, content, message] of cases) {
    await t.step(name, async () => {
      const [path] = await write(folder, { [name]: content }), documents = await TextDocuments.open([path]);
      const error = await assertRejects(() => read(documents), DataError, message.replace("PATH", path));
      assertEquals(error.code, "bad_document");
    });
  }
});

Deno.test("a file that is gone, and files of empty lines alone, are errors", async () => {
  await using folder = await temporaryFolder();
  const [empty, file] = await write(folder, { "a.jsonl": "\n \n", "b.txt": "b" });
  const none = () => TextDocuments.open([empty]);
  assertEquals((await assertRejects(none, DataError, `${empty} has no line but empty ones`)).code, "empty_dataset");
  const documents = await TextDocuments.open([file]);
  await Deno.remove(file);
  assertEquals((await assertRejects(() => read(documents), DataError, file)).code, "no_such_file");
});

Deno.test("another key of a line may have its text", async () => {
  await using folder = await temporaryFolder();
  const files = await write(folder, { "a.jsonl": '{"text": "no", "body": "yes"}' });
  assertEquals(await textsOf(await TextDocuments.open(files, { field: "body" })), ["yes"]);
});

Deno.test("in every epoch the lanes have each document once, in another order, and a lane has the same ones", async () => {
  await using folder = await temporaryFolder();
  const files = await write(folder, { "a.jsonl": numbered(30) });
  const count = fc.integer({ min: 1, max: 9 });
  await fc.assert(
    fc.asyncProperty(count, fc.nat(), fc.nat(1000), async (lanes, shuffle, epoch) => {
      const documents = await TextDocuments.open(files, { shuffle });
      const epochs = [];
      for (const one of [epoch, epoch + 1]) {
        const order = [];
        for (let offset = 0; offset < lanes; offset++) order.push(await read(documents, one, [0, lanes, offset]));
        const places = order.flat().map((line) => Number(line.split(" ")[0]));
        assertEquals(places.toSorted((a, b) => a - b), Array.from({ length: 30 }, (_, n) => n));
        epochs.push(order.map((lane) => lane.map((line) => Number(line.split(" ")[1]))));
        // from any place on, a lane goes on with the rest
        const from = places[Math.floor(places.length / lanes / 2)];
        const rest = await read(documents, one, [from, lanes, 0]);
        assertEquals(rest, order[0].filter((line) => Number(line.split(" ")[0]) >= from));
      }
      const [first, second] = epochs;
      assertEquals(first.flat().toSorted((a, b) => a - b), Array.from({ length: 30 }, (_, n) => n));
      first.forEach((lane, n) => assertEquals(lane.toSorted(), second[n].toSorted()));
      assert(String(first) !== String(second), "two epochs with one order");
    }),
    { numRuns: 20 },
  );
  const inOrder = await TextDocuments.open(files);
  for (const epoch of [0, 1]) {
    assertEquals(
      (await textsOf(inOrder, epoch)).map(Number),
      Array.from({ length: 30 }, (_, n) => n),
    );
  }
});

Deno.test("a twentieth of the documents is held out, one at least, and never trained on, whatever the seed", async () => {
  await using folder = await temporaryFolder();
  const part = async (count: number, options: TextDocumentsOptions) => {
    const [file] = await write(folder, { "a.jsonl": numbered(count) });
    return await textsOf(await TextDocuments.open([file], options));
  };
  for (const [count, share] of [[2, 1], [20, 1], [50, 3], [1000, 50]]) {
    const [heldOut, other] = [
      await part(count, { part: "held-out" }),
      await part(count, { part: "held-out", shuffle: 9 }),
    ];
    const training = await part(count, { part: "training", shuffle: 4 });
    assertEquals([heldOut.length, training.length], [share, count - share]);
    assertEquals(other.toSorted(), heldOut.toSorted());
    assertEquals(new Set([...heldOut, ...training]).size, count);
  }
  const places = (await part(1000, { part: "held-out" })).map(Number);
  assert(Math.max(...places) > 900 && Math.min(...places) < 100, "they come from everywhere");
});

Deno.test("of an only document the end is held out: between lines, words or characters", async (t) => {
  await using folder = await temporaryFolder();
  const cases: [string, string, string][] = [
    ["lines", "line\n".repeat(40), "line\n".repeat(2)],
    ["words", "word ".repeat(40), "word ".repeat(2)],
    ["characters", "é".repeat(40), "é".repeat(2)],
    ["the end of a line that ends late", `${"x".repeat(90)}\n${"y".repeat(9)}`, "y".repeat(9)],
  ];
  for (const [name, text, end] of cases) {
    await t.step(name, async () => {
      const [file] = await write(folder, { "book.txt": text });
      const parts = await Promise.all(
        (["training", "held-out"] as const).map((part) => TextDocuments.open([file], { part })),
      );
      assertEquals((await Promise.all(parts.map((p) => textsOf(p)))).flat(), [text.slice(0, -end.length), end]);
    });
  }
  const [line, letter] = await write(folder, { "a.jsonl": '{"text": "a b c"}\n', "b.txt": "a" });
  for (const file of [line, letter]) {
    const error = await assertRejects(() => TextDocuments.open([file], { part: "training" }), DataError, file);
    assertEquals(error.code, "too_short");
  }
});

Deno.test("other documents, another order, another part and another key have another identity", async () => {
  await using folder = await temporaryFolder();
  const [file, more] = await write(folder, { "a.jsonl": numbered(20), "b.txt": "b" });
  const open = async (files: string[], options?: TextDocumentsOptions) =>
    (await TextDocuments.open(files, options)).identity;
  const all = await Promise.all([
    open([file]),
    open([file, more]),
    open([file], { shuffle: 0 }),
    open([file], { shuffle: 1 }),
    open([file], { part: "training" }),
    open([file], { field: "body" }),
  ]);
  assertEquals(new Set(all).size, all.length);
  assertEquals(await open([file], { shuffle: 1 }), all[3]);
});

Deno.test("there are as many lanes as each has text for, one at least", async () => {
  await using folder = await temporaryFolder();
  const files = await write(folder, { "a.txt": "a".repeat(100), "b.txt": "b".repeat(10), "c.txt": "c".repeat(50) });
  const documents = await TextDocuments.open(files);
  assertEquals([1, 10, 11, 1000].map((bytes) => documents.lanes(8, bytes)), [3, 3, 1, 1]);
  assertEquals(documents.lanes(2, 10), 2);
});
