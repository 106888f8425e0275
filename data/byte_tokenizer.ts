/**
 * A tokenizer that needs no file: a token for each byte, whose id is the byte, and two that begin and end a document. It is
 * byte-level BPE without merges, so whatever reads a `tokenizer.json` or GGUF reads it, too.
 * @module
 */
import type { TokenizerFiles } from "./gguf_tokenizer.ts";

/** What stands for it in place of a tokenizer's folder; a folder of that name is `./bytes`. */
export const BYTES = "bytes";

const [BEGIN, END] = ["<|begin_of_text|>", "<|end_of_text|>"];

/** Number of its tokens. */
export const BYTE_TOKENS = 258;

/** What its files would say. */
export function byteTokenizer(): TokenizerFiles {
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const plain = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    json: {
      ...{ version: "1.0", truncation: null, padding: null },
      added_tokens: [{ id: 256, content: BEGIN, ...plain }, { id: 257, content: END, ...plain }],
      ...{ normalizer: null, pre_tokenizer: level, post_processor: null, decoder: level },
      model: {
        ...{ type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
        ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false },
        vocab: Object.fromEntries(byteCharacters().map((character, byte) => [character, byte])),
        merges: [],
      },
    },
    config: { bos_token: BEGIN, eos_token: END, tokenizer_class: "PreTrainedTokenizerFast" },
  };
}

/** How byte-level BPE writes each byte, as GPT-2 does: itself where it prints, else the next character from U+0100 on. */
function byteCharacters(): string[] {
  let next = 0x100;
  const prints = (byte: number) => byte > 0x20 && byte < 0x7f || byte > 0xa0 && byte !== 0xad;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(prints(byte) ? byte : next++));
}
