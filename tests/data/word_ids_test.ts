import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Kitoken } from "kitoken/full";
import { openDataset, SAMPLE } from "../../data/dataset.ts";
import { splitBy, type TokenizerJson } from "../../data/tokenizer_json.ts";
import { WordIds, wordsOf } from "../../data/word_ids.ts";

const bytes = await Deno.readFile(new URL("tokenizer.json", SAMPLE));
const json: TokenizerJson = JSON.parse(new TextDecoder().decode(bytes)), kitoken = Kitoken.from_tokenizers(bytes);
const whole = (text: string) => kitoken.encode(text, false);

Deno.test("words have the ids of the text, whatever its characters, and again when all are kept", () => {
  const words = new WordIds(wordsOf(json)!, whole);
  const hard = [
    "'S 'ſ I'LL",
    "a\u0085b",
    "\ufeffa\ufeff b",
    "x \u00a0 \u2028\n\r\n  y",
    "１２３４ ٣٤٥",
    "🏳️‍🌈 e\u0301",
    "\u{10ffff}\u{e0001}",
    " \t\n",
  ];
  const character = fc.oneof(
    fc.constantFrom(...hard, " ", "\n", "'", "s", "S", "1"),
    fc.string({ unit: "binary", maxLength: 4 }),
  );
  fc.assert(
    fc.property(fc.array(character, { maxLength: 30 }), (parts) => {
      const text = parts.join("");
      for (let n = 0; n < 2; n++) assertEquals([...words.encode(text)], [...whole(text)], JSON.stringify(text));
    }),
    { numRuns: 3000 },
  );
});

Deno.test("texts of the sample have the ids of the tokenizer", async () => {
  const words = new WordIds(wordsOf(json)!, whole), { shards: [shard] } = await openDataset({ name: "c4_test" });
  for await (const document of shard.read({ from: 0, every: 8, offset: 0 }, 0)) {
    if ("text" in document) assertEquals(words.encode(document.text), whole(document.text));
  }
});

Deno.test("a word is merged once, a long one each time, and what the pattern leaves out lets the text be merged whole", () => {
  const asked: string[] = [];
  const words = new WordIds(/[a-z]+| /g, (text) => (asked.push(text), Uint32Array.of(text.length)));
  const long = "x".repeat(40);
  assertEquals([...words.encode(`ab cd ab ${long} ${long}`)], [2, 1, 2, 1, 2, 1, 40, 1, 40]);
  assertEquals(asked, ["ab", " ", "cd", long, long]);
  assertEquals([...words.encode("ab 3")], [4]);
});

Deno.test("other tokenizers have no words", () => {
  const { model } = json, pre = json.pre_tokenizer as object;
  const others: Partial<TokenizerJson>[] = [
    { normalizer: { type: "NFC" } },
    { pre_tokenizer: null },
    { pre_tokenizer: { ...pre, pretokenizers: [...splitBy("\\s+"), ...splitBy("a")] } },
    { model: { ...model, type: "Unigram" } },
    { added_tokens: [{ id: 3, content: "x", special: false }] },
  ];
  for (const other of others) assertEquals(wordsOf({ ...json, ...other }), undefined);
  assert(wordsOf({ ...json, pre_tokenizer: { type: "ByteLevel", add_prefix_space: false } }) instanceof RegExp);
});
