import { assertEquals, assertThrows } from "@std/assert";
import { ChatTemplate } from "../../data/chat_template.ts";
import { DataError } from "../../data/error.ts";
import { newTokenizer } from "../../data/new_tokenizer.ts";
import { WordCounts } from "../../data/train_bpe.ts";

const words = new WordCounts();
words.add("so it was, and so it is");

Deno.test("a new tokenizer has bytes, learned tokens, and behind them those that begin and end a text", () => {
  const { json, config } = newTokenizer(words, { vocabSize: 260 });
  assertEquals(Object.keys(json.model.vocab).length, 258);
  assertEquals(json.added_tokens!.map(({ id, content }) => [id, content]), [
    [258, "<|begin_of_text|>"],
    [259, "<|end_of_text|>"],
  ]);
  assertEquals([config.bos_token, config.eos_token], ["<|begin_of_text|>", "<|end_of_text|>"]);
});

Deno.test("one for chats has their tokens, and a template that marks what the assistant says", () => {
  const { json, config } = newTokenizer(words, { vocabSize: 260, chat: true });
  assertEquals(json.added_tokens!.map(({ content }) => content).slice(2), ["<|im_start|>", "<|im_end|>"]);
  assertEquals(config.eos_token, "<|im_end|>");
  const template = new ChatTemplate(config.chat_template as string, config);
  const messages = [{ role: "user", content: "Hi" }, { role: "assistant", content: "Ho" }];
  assertEquals(
    template.marked(messages),
    "<|begin_of_text|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\ufdd0Ho<|im_end|>\ufdd1\n",
  );
});

Deno.test("a vocabulary without room for the bytes is refused with the least there can be", () => {
  assertThrows(() => newTokenizer(words, { vocabSize: 257 }), DataError, "a whole number from 258 on");
  assertThrows(() => newTokenizer(words, { vocabSize: 259, chat: true }), DataError, "from 260 on");
  assertThrows(() => newTokenizer(words, { vocabSize: NaN }), DataError, "Cannot make a tokenizer of NaN tokens");
});
