import { Buffer } from "node:buffer";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import fc from "fast-check";
import { shardName } from "../../data/c4.ts";
import { SAMPLE } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { readJsonLines } from "../../data/json_lines.ts";
import { shardFile } from "../../data/source.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { temporaryFolder } from "./fixture.ts";
import { hashIds, hashTexts, unicodeLines } from "./unicode_lines.ts";

const tokenizer = await Tokenizer.open(SAMPLE);
const json = JSON.parse(await Deno.readTextFile(new URL("tokenizer.json", SAMPLE)));
const config = JSON.parse(await Deno.readTextFile(new URL("tokenizer_config.json", SAMPLE)));

async function sampleTexts(...shards: [split: "train" | "validation", count: number][]): Promise<string[]> {
  const read = ([split, count]: [split: "train" | "validation", count: number]) =>
    Array.fromAsync(
      readJsonLines(shardFile(new URL(shardName(split, 0, count), SAMPLE)), { from: 0, every: 1, offset: 0 }),
    );
  return (await Promise.all(shards.map(read))).flat().map(({ text }) => text);
}

/** A folder with a changed copy of the sample's tokenizer. */
async function changed(change: { json?: string; config?: string }) {
  const folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/tokenizer.json`, change.json ?? JSON.stringify(json));
  await Deno.writeTextFile(`${folder.path}/tokenizer_config.json`, change.config ?? JSON.stringify(config));
  return folder;
}

Deno.test("the sample's tokenizer has 2,048 ids, the last two special", () => {
  assertEquals(tokenizer.vocabSize, 2048);
  assertEquals([tokenizer.bosId, tokenizer.eosId], [2046, 2047]);
  assertEquals(tokenizer.decode([2046, 2047]), "<|begin_of_text|><|end_of_text|>");
});

Deno.test("the bytes of a text follow from how often its tokens occur, and special tokens have none", async () => {
  const bytes = await Tokenizer.open("bytes"), [sample] = await sampleTexts(["validation", 1]);
  for (const text of ["", " we \u00e9\u{1f600}\n", sample]) {
    for (const one of [tokenizer, bytes]) {
      const counts = new Float64Array(one.vocabSize);
      for (const id of one.encode(text, { bos: true, eos: true })) counts[id]++;
      assertEquals(one.textBytes(counts), new TextEncoder().encode(text).length);
    }
  }
});

Deno.test("Hugging Face's own tokenizer gives the same ids on the sample", async () => {
  const other = new HuggingFace(json, config);
  for (const text of await sampleTexts(["validation", 1])) {
    assertEquals([...tokenizer.encode(text)], other.encode(text, { add_special_tokens: false }).ids);
  }
});

Deno.test("Hugging Face's own tokenizer gives the same ids on any text", () => {
  const other = new HuggingFace(json, config);
  fc.assert(fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), (text) => {
    assertEquals([...tokenizer.encode(text)], other.encode(text, { add_special_tokens: false }).ids);
  }));
});

Deno.test("decoding gives the text back", async () => {
  for (const text of await sampleTexts(["validation", 1])) assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
    assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  }));
});

Deno.test("special tokens stand around a text where asked, and never come from it", () => {
  const plain = [...tokenizer.encode("end")];
  assertEquals([...tokenizer.encode("end", { bos: true })], [2046, ...plain]);
  assertEquals([...tokenizer.encode("end", { eos: true })], [...plain, 2047]);
  assertEquals([...tokenizer.encode("", { bos: true, eos: true })], [2046, 2047]);
  const spelled = tokenizer.encode("<|end_of_text|>");
  assert(spelled.length > 1 && !spelled.includes(2047));
  assertEquals(tokenizer.decode(spelled), "<|end_of_text|>");
});

Deno.test("a tokenizer opens from its folder, from tokenizer.json, and without special tokens", async () => {
  await using folder = await changed({ config: JSON.stringify({ eos_token: { content: "<|end_of_text|>" } }) });
  for (const path of [folder.path, `${folder.path}/`, `${folder.path}/tokenizer.json`]) {
    const opened = await Tokenizer.open(path);
    assertEquals([opened.bosId, opened.eosId], [null, 2047]);
    assertEquals([...opened.encode("a", { bos: true, eos: true })], [...tokenizer.encode("a"), 2047]);
  }
});

Deno.test("an ordinary entry of the vocabulary may begin a document", async () => {
  await using folder = await changed({ config: JSON.stringify({ bos_token: "A" }) });
  assertEquals((await Tokenizer.open(folder.path)).bosId, json.model.vocab["A"]);
});

Deno.test("a missing tokenizer is told with its path, its neighbours and what to do", async () => {
  await using folder = await temporaryFolder();
  const open = () => Tokenizer.open(folder.path);
  const error = await assertRejects(open, DataError, `there is no ${folder.path}/tokenizer.json (its folder is empty)`);
  assertEquals(error.code, "no_such_file");
  assert(error.message.includes("set model.hf_assets_path"));
  await Deno.writeTextFile(`${folder.path}/tokenizer.txt`, "");
  await assertRejects(open, DataError, "(its folder holds tokenizer.txt)");
  await assertRejects(() => Tokenizer.open(`${folder.path}/none`), DataError, "(nor its folder)");
});

Deno.test("a missing tokenizer_config.json is told", async () => {
  await using folder = await changed({});
  await Deno.remove(`${folder.path}/tokenizer_config.json`);
  await assertRejects(() => Tokenizer.open(folder.path), DataError, "/tokenizer_config.json (its folder holds");
});

Deno.test("a damaged tokenizer.model is told, be it SentencePiece's or tiktoken's", async (t) => {
  const goldens = new URL("../goldens/tokenizers/", import.meta.url);
  const model = await Deno.readFile(new URL("sentencepiece_bpe/tokenizer.model", goldens));
  const ranks = await Deno.readTextFile(new URL("tiktoken/tokenizer.model", goldens));
  const cases: [string, Uint8Array | string, string][] = [
    ["nothing", "", "it has no pieces"],
    ["other text", "tokens\n", "tokenizer.model: "],
    ["half a model", model.subarray(0, 5000), "tokenizer.model: "],
    ["ranks with a line that is none", ranks.replace("\n", "\nnone\n"), 'line 2 is no token: "none"'],
    ["ranks with a line of no base64", ranks.replace("\n", "\n? 1\n"), 'line 2 is no token: "? 1"'],
    ["ranks with one twice", ranks.replace("\n", "\nAA== 0\n"), "line 2 has rank 0 again"],
    ["ranks without the first", ranks.slice(ranks.indexOf("\n") + 1), "it has no token of rank 0"],
    ["half the ranks", ranks.split("\n").slice(0, 200).join("\n") + "\n", "it has no token of the byte 2"],
  ];
  for (const [name, content, message] of cases) {
    await t.step(name, async () => {
      await using folder = await temporaryFolder();
      await Deno.writeFile(`${folder.path}/tokenizer.model`, new Uint8Array(Buffer.from(content)));
      const error = await assertRejects(() => Tokenizer.open(folder.path), DataError, message);
      assertEquals(error.code, "bad_tokenizer");
    });
  }
});

Deno.test("a damaged tokenizer is told", async (t) => {
  const cases: [string, Parameters<typeof changed>[0], string][] = [
    ["not JSON", { json: "{" }, "/tokenizer.json: "],
    ["no tokenizer", { json: "{}" }, "/tokenizer.json: "],
    ["null", { json: "null" }, "/tokenizer.json: "],
    ["a configuration that is not JSON", { config: "{" }, "/tokenizer_config.json: "],
    ["an unknown token", { config: '{"bos_token": "<s>"}' }, 'its bos_token is "<s>"'],
    ["a token that is no text", { config: '{"eos_token": 7}' }, "its eos_token is 7"],
  ];
  for (const [name, change, message] of cases) {
    await t.step(name, async () => {
      await using folder = await changed(change);
      const error = await assertRejects(() => Tokenizer.open(folder.path), DataError, message);
      assertEquals(error.code, "bad_tokenizer");
    });
  }
});

Deno.test("ids outside the vocabulary do not decode", () => {
  assertThrows(
    () => tokenizer.decode([5, 2048]),
    DataError,
    "Cannot decode token 2048\n  expected: ids from 0 to 2047",
  );
  assertThrows(() => tokenizer.decode([-1]), DataError, "Cannot decode token -1");
});

Deno.test("tokenizers give the ids of Python's on 10,000 lines out of all planes of Unicode, and on the sample", async (t) => {
  const folder = new URL("../goldens/tokenizers/", import.meta.url), lines = unicodeLines(10_000);
  const { text, ...goldens } = JSON.parse(await Deno.readTextFile(new URL("hashes.json", folder)));
  const documents = await sampleTexts(["train", 4], ["validation", 1]);
  assertEquals([hashTexts(lines), hashTexts(documents)], [text.lines, text.documents], "the texts differ, not the ids");
  for (const [name, hashes] of Object.entries<Record<string, string>>(goldens)) {
    await t.step(name, async () => {
      const tokenizer = await Tokenizer.open(name === "sample" ? SAMPLE : new URL(`${name}/`, folder));
      const ids = (texts: string[]) => hashIds(texts, (text) => tokenizer.encode(text));
      assertEquals({ lines: ids(lines), documents: ids(documents) }, hashes);
    });
  }
});
