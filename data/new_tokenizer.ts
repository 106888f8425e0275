/** A tokenizer of one's own: byte-level BPE that is learned from text, as the folder that Hugging Face's `tokenizers` reads.
 * @module */
import { DataError } from "./error.ts";
import { addedToken, byteLevelJson, LLAMA3, splitBy, type TokenizerFiles } from "./tokenizer_json.ts";
import { trainBpe, type WordCounts } from "./train_bpe.ts";

const [BEGIN, END] = ["<|begin_of_text|>", "<|end_of_text|>"];

/** Tokens of chats, and the template ChatML that has them. */
const [TURN, TURN_END] = ["<|im_start|>", "<|im_end|>"];
const CHATML = `{{ bos_token }}{% for message in messages %}{{ '${TURN}' + message['role'] + '\\n' }}` +
  `{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '${TURN_END}' }}{% endgeneration %}` +
  `{% else %}{{ message['content'] + '${TURN_END}' }}{% endif %}{{ '\\n' }}{% endfor %}` +
  `{% if add_generation_prompt %}{{ '${TURN}assistant\\n' }}{% endif %}`;

/** What a new tokenizer is to have. */
export interface NewTokenizerOptions {
  /** Number of tokens: bytes, learned ones, and those that stand for no text. */
  readonly vocabSize: number;
  /** Is it for chats? It then has tokens and a template for them. */
  readonly chat?: boolean;
}

/** Learns a tokenizer from counted words; it has fewer tokens than asked for where the text has no more pairs.
 * @throws {DataError} when the vocabulary is too small to have a token for each byte. */
export function newTokenizer(words: WordCounts, { vocabSize, chat = false }: NewTokenizerOptions): TokenizerFiles {
  const special = [BEGIN, END, ...(chat ? [TURN, TURN_END] : [])], least = 256 + special.length;
  if (!(Number.isSafeInteger(vocabSize) && vocabSize >= least)) {
    throw new DataError({
      code: "bad_option",
      what: `Cannot make a tokenizer of ${vocabSize} tokens`,
      expected: `a whole number from ${least} on: 256 bytes and ${special.join(", ")}`,
      fix: "write such a number behind --vocab-size; 2048 to 32768 is usual",
    });
  }
  const { tokens, merges } = trainBpe(words, vocabSize - special.length);
  const added = special.map((text, n) => addedToken(tokens.length + n, text));
  const config = {
    ...{ bos_token: BEGIN, eos_token: chat ? TURN_END : END, tokenizer_class: "PreTrainedTokenizerFast" },
    ...(chat ? { chat_template: CHATML } : {}),
  };
  return { json: byteLevelJson({ tokens, merges, added, parts: splitBy(LLAMA3) }), config };
}
