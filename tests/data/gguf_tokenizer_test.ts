import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Tokenizer as HuggingFace } from "@huggingface/tokenizers";
import fc from "fast-check";
import { SAMPLE } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { toGgufTokenizer } from "../../data/gguf_tokenizer.ts";
import type { TokenizerJson } from "../../data/tokenizer_json.ts";
import { Tokenizer } from "../../data/tokenizer.ts";

const golden = new URL("../goldens/gguf/", import.meta.url).pathname;
const { files } = await Tokenizer.open(SAMPLE);
const options = { size: 2048, from: "sample", bos: true, template: null };

Deno.test("a SentencePiece vocabulary gives the ids that SentencePiece and llama.cpp give", async () => {
  const tokenizer = await Tokenizer.open(`${golden}sentencepiece.gguf`);
  const goldens: Record<string, number[]> = JSON.parse(await Deno.readTextFile(`${golden}sentencepiece.json`));
  assertEquals([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId, tokenizer.addsBos], [450, 1, 2, true]);
  for (const [text, ids] of Object.entries(goldens)) {
    assertEquals([...tokenizer.encode(text)], ids, JSON.stringify(text));
    assertEquals(tokenizer.decode(ids), text.replaceAll("▁", " "));
  }
});

Deno.test("Hugging Face's own tokenizer reads the tokenizer.json that is made of a GGUF file alike", async () => {
  const tokenizer = await Tokenizer.open(`${golden}sentencepiece.gguf`), { json, config } = tokenizer.files;
  const other = new HuggingFace(json, config);
  fc.assert(fc.property(fc.string({ unit: "grapheme-ascii", minLength: 1, maxLength: 40 }), (text) => {
    assertEquals([...tokenizer.encode(text)], other.encode(text, { add_special_tokens: false }).ids);
  }));
  for (const text of ["<s>Hello</s>", "Hello <s> you", "<s>[INST] Hi [/INST]", "a</s>b"]) {
    const ids = other.encode(text, { add_special_tokens: false }).ids;
    assertEquals([...tokenizer.encode(text, { special: true })], ids);
  }
  assertEquals([...tokenizer.encode("Hello", { bos: true })], other.encode("Hello").ids);
});

Deno.test("what llama.cpp has no name for is refused, rather than written as something near", () => {
  const refused = (json: Partial<TokenizerJson>, what: string) =>
    assertThrows(() => toGgufTokenizer({ ...files, json: { ...files.json, ...json } }, options), DataError, what);
  refused({ pre_tokenizer: { type: "Whitespace" } }, "no name for how it splits text");
  refused({ pre_tokenizer: { type: "ByteLevel", add_prefix_space: true } }, "no name for how it splits text");
  refused({ normalizer: { type: "NFC" } }, '"normalizer":{"type":"NFC"}');
  refused({ model: { ...files.json.model, type: "Unigram" } }, 'its model is "Unigram"');
  assertThrows(() => toGgufTokenizer(files, { ...options, size: 2047 }), DataError, "it has 2048 tokens");
});

Deno.test("a way to split text has one name with merges that count, and another where whole words come first", () => {
  const pre = (ignore_merges: boolean) => {
    const json = { ...files.json, model: { ...files.json.model, ignore_merges } };
    return toGgufTokenizer({ ...files, json }, options).get("tokenizer.ggml.pre")?.value;
  };
  assertEquals([pre(false), pre(true)], ["dbrx", "llama-bpe"]);
});

Deno.test("rows of a model without a token get names that no text has", () => {
  const made = toGgufTokenizer(files, { ...options, size: 2050 });
  const tokens = made.get("tokenizer.ggml.tokens")!.value as string[];
  assertEquals(tokens.slice(2046), ["<|begin_of_text|>", "<|end_of_text|>", "[PAD2048]", "[PAD2049]"]);
  assertEquals((made.get("tokenizer.ggml.token_type")!.value as number[]).slice(2045), [1, 3, 3, 5, 5]);
});

Deno.test("a GGUF file without a tokenizer says so, and what to do", async () => {
  const error = await assertRejects(() => Tokenizer.open(`${golden}scaled.gguf`), DataError, "has no tokenizer");
  assertEquals(error.code, "bad_gguf");
});
