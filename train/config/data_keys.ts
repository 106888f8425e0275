/** Keys of `[data]`. @module */
import { z } from "zod";
import { count, flag, key, section, text } from "./key_types.ts";

/** `[data]`: how documents become rows of a batch. */
export interface DataConfig {
  tokenizer: "bytes" | null;
  text_field: string;
  shuffle: boolean;
  lanes: number | null;
}

/** Its keys. */
export const dataKeys = section("How documents become rows of a batch.", {
  tokenizer: key(
    z.enum(["bytes"]).nullable(),
    null,
    '"bytes": a token for each byte and two that begin and end a document, without a file, and model.vocab_size is 258 where it is not set; not set, the tokenizer of model.hf_assets_path.',
  ),
  text_field: key(text, "text", "Of text: the key that has the text in each line of a .jsonl."),
  shuffle: key(
    flag,
    true,
    "Of text: documents in another order in each epoch, which follows from debug.seed; off: as they lie, sorted by path.",
  ),
  lanes: key(
    count.nullable(),
    null,
    "Independent streams of documents to train on, whatever the batch; not set, those of the checkpoint, else 8, or as many as text is enough for.",
    "streams",
  ),
});
