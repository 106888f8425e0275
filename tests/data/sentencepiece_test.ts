import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { Tokenizer } from "../../data/tokenizer.ts";

Deno.test("SentencePiece's model has its tokens around a text, and gives texts back", async () => {
  const goldens = new URL("../goldens/tokenizers/", import.meta.url);
  for (const name of ["sentencepiece_bpe", "sentencepiece_unigram"]) {
    const opened = await Tokenizer.open(new URL(`${name}/`, goldens));
    assertEquals([opened.vocabSize, opened.bosId, opened.eosId], [1024, 1, 2]);
    const text = "It cost \u20ac 5, \u{1f600}!\nAnd then";
    const ids = [...opened.encode(text, { bos: true, eos: true })];
    assertEquals([ids[0], ids.at(-1)], [1, 2]);
    assertEquals(opened.decode(ids.slice(1, -1)), text);
    if (name === "sentencepiece_unigram") {
      assertThrows(() => opened.encode("<s>a", { special: true }), DataError, "special tokens cannot be taken out");
    } else assertEquals([...opened.encode("<s>a</s>", { special: true })], [1, ...opened.encode("a"), 2]);
  }
});
