import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { BYTE_TOKENS, BYTES } from "../../data/byte_tokenizer.ts";
import { Tokenizer } from "../../data/tokenizer.ts";

const tokenizer = await Tokenizer.open(BYTES);

Deno.test("the tokens of a text are its bytes in UTF-8, whatever the text", () => {
  fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
    const bytes = [...new TextEncoder().encode(text)];
    assertEquals([...tokenizer.encode(text)], bytes);
    assertEquals([...tokenizer.decodeBytes(bytes)], bytes);
  }));
});

Deno.test("every byte is the token of its number, alone as well", () => {
  for (let byte = 0; byte < 256; byte++) assertEquals([...tokenizer.decodeBytes([byte])], [byte]);
});

Deno.test("two more tokens begin and end a document, and in a text they are ordinary", () => {
  const { bosId, eosId, vocabSize } = tokenizer;
  assertEquals([bosId, eosId, vocabSize], [256, 257, BYTE_TOKENS]);
  assertEquals([...tokenizer.encode("a", { bos: true, eos: true })], [256, 97, 257]);
  const named = tokenizer.decode([257]);
  assertEquals([...tokenizer.encode(named)], [...new TextEncoder().encode(named)]);
  assertEquals([...tokenizer.encode(named, { special: true })], [257]);
});
