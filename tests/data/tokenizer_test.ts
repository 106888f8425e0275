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

const tokenizer = await Tokenizer.open(SAMPLE);
const json = JSON.parse(await Deno.readTextFile(new URL("tokenizer.json", SAMPLE)));
const config = JSON.parse(await Deno.readTextFile(new URL("tokenizer_config.json", SAMPLE)));

async function sampleTexts(): Promise<string[]> {
  const shard = new URL(shardName("validation", 0, 1), SAMPLE);
  return (await Array.fromAsync(readJsonLines(shardFile(shard), { from: 0, every: 1, offset: 0 }))).map(({ text }) =>
    text
  );
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

Deno.test("Hugging Face's own tokenizer gives the same ids on the sample", async () => {
  const other = new HuggingFace(json, config);
  for (const text of await sampleTexts()) {
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
  for (const text of await sampleTexts()) assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
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
  await Deno.writeTextFile(`${folder.path}/tokenizer.model`, "");
  await assertRejects(open, DataError, "(its folder holds tokenizer.model)");
  await assertRejects(() => Tokenizer.open(`${folder.path}/none`), DataError, "(nor its folder)");
});

Deno.test("a missing tokenizer_config.json is told", async () => {
  await using folder = await changed({});
  await Deno.remove(`${folder.path}/tokenizer_config.json`);
  await assertRejects(() => Tokenizer.open(folder.path), DataError, "/tokenizer_config.json (its folder holds");
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
