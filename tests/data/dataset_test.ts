import { gzipSync } from "node:zlib";
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { isOwnText, type OneSpec, openDataset, SAMPLE, texts, Unigrams } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { c4Lines, temporaryFolder, writeShards } from "./fixture.ts";
import { HubServer } from "./hub_server.ts";

async function allTexts(spec: OneSpec): Promise<string[]> {
  const { shards } = await openDataset(spec);
  const documents = await Promise.all(
    shards.map((shard) => Array.fromAsync(shard.read({ from: 0, every: 1, offset: 0 }, 0))),
  );
  return documents.flat().map((document) => "text" in document ? document.text : "");
}

Deno.test("the sample has four train shards and one of other text", async () => {
  const train = await openDataset({ name: "c4_test" });
  assertEquals(train.shards.map(({ name }) => name), [0, 1, 2, 3].map((n) => `c4-train.0000${n}-of-00004.json.gz`));
  const [trained, heldOut] = [await allTexts({ name: "c4_test" }), await allTexts({ name: "c4_validation" })];
  assertEquals([trained.length, heldOut.length], [4855, 233]);
  const known = new Set(trained);
  assertEquals(heldOut.filter((text) => known.has(text)), []);
  assert(trained.reduce((sum, text) => sum + text.length, 0) > 10_000_000);
});

Deno.test("names are known in any case, and an unknown one is an error even with a path", async () => {
  assertEquals((await openDataset({ name: "C4_Test", path: null })).name, "c4_test");
  const open = () => openDataset({ name: "c5", path: "." });
  const error = await assertRejects(
    open,
    DataError,
    'There is no dataset "c5"\n  expected: c4, c4_test, c4_validation, text',
  );
  assertEquals(error.code, "unknown_dataset");
  await assertRejects(() => openDataset({ name: "constructor" }), DataError, 'There is no dataset "constructor"');
});

Deno.test("c4 without a path is that of the hub, and its shards are known without a question", async () => {
  for (
    const [name, count, first] of [
      ["c4", 1024, "c4-train.00000-of-01024"],
      ["C4/realnewslike", 512, "c4-train.00000-of-00512"],
      ["c4_validation/en", 8, "c4-validation.00000-of-00008"],
    ] as const
  ) {
    const { shards } = await openDataset({ name });
    assertEquals([shards.length, shards[0].name], [count, `${first}.json.gz`]);
  }
  for (const name of ["c4/de", "c4_test/en", "text/en", "c4/"]) {
    assertEquals((await assertRejects(() => openDataset({ name }), DataError)).code, "unknown_dataset");
  }
});

Deno.test("shards of a repository on the hub are read by their address, at the commit that it has", async () => {
  await using folder = await temporaryFolder();
  await using server = new HubServer();
  const shard = (text: string) => gzipSync(c4Lines([text]));
  const [first, second] = ["en/c4-train.00000-of-00002.json.gz", "en/c4-train.00001-of-00002.json.gz"];
  const validation = "en/c4-validation.00000-of-00001.json.gz", talk = `{"messages": [{"role": "user"}]}\n`;
  server.add("datasets/org/mine", {
    [first]: shard("a"),
    [second]: shard("b"),
    [validation]: shard("v"),
    "talk/t.jsonl": talk,
  });
  const before = ["HF_ENDPOINT", "HF_HOME"].map((name) => [name, Deno.env.get(name)] as const);
  Deno.env.set("HF_ENDPOINT", server.endpoint);
  Deno.env.set("HF_HOME", folder.path);
  try {
    const cache = { folder: `${folder.path}/streamed`, bytes: 1e6 }, path = "hf://datasets/org/mine/en";
    assertEquals(await allTexts({ name: "c4", path, cache }), ["a", "b"]);
    assertEquals(await allTexts({ name: "c4_validation", path, cache }), ["v"]);
    assertEquals(await allTexts({ name: "files", path: `${path}/*validation*`, cache }), ["v"]);
    assertEquals((await Array.fromAsync(Deno.readDir(cache.folder))).length, 3);
    const chat = { name: "chat", path: "hf://datasets/org/mine/talk", cache };
    const { shards: [told] } = await openDataset(chat, { textOf: (messages) => JSON.stringify(messages) });
    const spoken = await Array.fromAsync(told.read({ from: 0, every: 1, offset: 0 }, 0));
    assertEquals([spoken, isOwnText(chat)], [[{ index: 0, text: '[{"role":"user"}]' }], false]);
    const { identity } = await openDataset({ name: "c4", path, cache });
    server.add("datasets/org/mine", { [first]: shard("c"), [second]: shard("b") }); // of the same names and sizes
    assertNotEquals((await openDataset({ name: "c4", path, cache })).identity, identity);
  } finally {
    for (const [name, value] of before) value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
  }
});

Deno.test("a path replaces the place of any dataset: a folder's shards of its split, or one file", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [["a"], ["b"], ["c"]]);
  writeShards(folder.path, [["v"]], "validation");
  for (const name of ["c4", "c4_test"]) assertEquals(await allTexts({ name, path: folder.path }), ["a", "b", "c"]);
  assertEquals(await allTexts({ name: "c4_validation", path: folder.path }), ["v"]);
  assertEquals(await allTexts({ name: "c4", path: `${folder.path}/c4-train.00001-of-00003.json.gz` }), ["b"]);
});

Deno.test("a folder without shards of the split, and one that is not there, are errors", async () => {
  await using folder = await temporaryFolder();
  const open = (name: string, path = folder.path) => () => openDataset({ name, path });
  const empty = await assertRejects(open("c4"), DataError, `No train shard in ${folder.path}: the folder is empty`);
  assertEquals(empty.code, "empty_dataset");
  writeShards(folder.path, [["a"], ["b"]]);
  const message =
    `No validation shard in ${folder.path}: none of its 2 files\n  expected: names like c4-validation.00000-of-00008.json.gz`;
  await assertRejects(open("c4_validation"), DataError, message);
  const none = await assertRejects(open("c4", `${folder.path}/none`), DataError, `there is no ${folder.path}/none`);
  assertEquals(none.code, "no_such_file");
});

Deno.test("text files of one's own are a dataset whose size is known", async () => {
  await using folder = await temporaryFolder();
  for (const name of ["b.md", "a.md"]) await Deno.writeTextFile(`${folder.path}/${name}`, `text of ${name}`);
  const spec = texts(`${folder.path}/*.md`);
  assertEquals((await openDataset(spec)).documents, 2);
  assertEquals(await allTexts(structuredClone(spec)), ["text of a.md", "text of b.md"]);
  assertEquals((await assertRejects(() => openDataset(texts()), DataError, "no text files")).code, "empty_dataset");
});

Deno.test("the dataset text is what texts() of its path is, and asks for a path", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "one");
  await Deno.writeTextFile(`${folder.path}/b.jsonl`, '{"body": "two"}\n{"body": "three"}\n');
  const named = { name: "Text", path: folder.path, field: "body" };
  assertEquals(await allTexts(named), ["one", "two", "three"]);
  const [own, program] = await Promise.all(
    [named, { ...texts(folder.path), field: "body" }].map((s) => openDataset(s)),
  );
  assertEquals([own.identity, own.description], [program.identity, program.description]);
  assertEquals(own.description, `3 documents, in 2 text files (${folder.path})`);
  const training = await openDataset({ ...named, part: "training" }), rest = { ...named, part: "held-out" as const };
  assertEquals(training.description, `2 documents (1 more are held out), in 2 text files (${folder.path})`);
  assertEquals((await openDataset(rest)).description, `1 of 3 documents, held out, in 2 text files (${folder.path})`);
  const error = await assertRejects(() => openDataset({ name: "text" }), DataError, "--training.dataset_path notes/");
  assertEquals(error.code, "dataset_needs_path");
});

/** Entropy of ids that are counted in one go. */
function unigramEntropy(ids: Iterable<number>, vocabSize: number): number {
  const unigrams = new Unigrams(vocabSize);
  unigrams.add(ids);
  return unigrams.entropy();
}

Deno.test("unigram entropy is the mean loss of a model that knows the frequencies alone", () => {
  assertAlmostEquals(unigramEntropy([0, 1, 2, 3], 4), Math.log(4));
  assertAlmostEquals(unigramEntropy([0, 0, 0, 1], 2), -(0.75 * Math.log(0.75) + 0.25 * Math.log(0.25)));
  assertEquals(unigramEntropy([5, 5], 6), 0);
  assertThrows(() => unigramEntropy([4], 4), RangeError, "Token 4 is not in a vocabulary of 4");
  assertEquals(unigramEntropy([0, -100, 1, -100], 2), Math.log(2));
  assertThrows(() => unigramEntropy([], 4), RangeError, "no tokens");
});

Deno.test("the held-out text has a unigram entropy of 6.34 nats under the sample's tokenizer", async () => {
  const tokenizer = await Tokenizer.open(SAMPLE);
  const ids = (await allTexts({ name: "c4_validation" })).flatMap((text) => [
    ...tokenizer.encode(text, { bos: true, eos: true }),
  ]);
  assertEquals(ids.length, 135_337);
  assertAlmostEquals(unigramEntropy(ids, tokenizer.vocabSize), 6.3439, 1e-4);
});

Deno.test("a folder of plain text is told how it is read", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "text");
  const { problem } = await assertRejects(() => openDataset({ name: "c4", path: folder.path }), DataError);
  assertEquals([problem.code, problem.fix], [
    "empty_dataset",
    `read plain text as dataset "text": --training.dataset text --training.dataset_path ${folder.path}`,
  ]);
});
