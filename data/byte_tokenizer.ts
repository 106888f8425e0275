/**
 * A tokenizer that needs no file: a token for each byte, whose id is the byte, and two that begin and end a document. It is
 * byte-level BPE without merges, so whatever reads a `tokenizer.json` or GGUF reads it, too.
 * @module
 */
import { addedToken, BYTE_LEVEL, byteCharacters, byteLevelJson, type TokenizerFiles } from "./tokenizer_json.ts";

/** What stands for it in place of a tokenizer's folder; a folder of that name is `./bytes`. */
export const BYTES = "bytes";

const [BEGIN, END] = ["<|begin_of_text|>", "<|end_of_text|>"];

/** Number of its tokens. */
export const BYTE_TOKENS = 258;

/** What its files would say. */
export function byteTokenizer(): TokenizerFiles {
  const json = byteLevelJson({
    tokens: byteCharacters(),
    merges: [],
    parts: [{ ...BYTE_LEVEL, use_regex: true }],
    added: [addedToken(256, BEGIN), addedToken(257, END)],
  });
  return { json, config: { bos_token: BEGIN, eos_token: END, tokenizer_class: "PreTrainedTokenizerFast" } };
}
