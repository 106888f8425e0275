/** Keys of `[data]` and `[training.dataloader]`. @module */
import { z } from "zod";
import { BYTES } from "./bytes.ts";
import { count, countOrZero, flag, key, positive, section, text } from "./key_types.ts";

/** `[data]`: how documents become rows of a batch. */
export interface DataConfig {
  tokenizer: "bytes" | null;
  text_field: string;
  shuffle: boolean;
  shuffle_window: number | null;
  lanes: number | null;
  sources: SourceConfig[];
  on_error: "refuse" | "skip";
  max_document_bytes: string;
  token_bytes: 2 | 4;
  cache_dir: string | null;
  cache_size: string;
  packing: "windows" | "documents" | "best-fit" | null;
  messages_field: string;
  mask_prompt: boolean;
  too_long: "cut" | "drop";
}

/** `[[data.sources]]`: one source of a mixture. */
export interface SourceConfig {
  dataset: string;
  dataset_path: string | null;
  weight: number;
  name: string | null;
  text_field: string | null;
}

/** `[training.dataloader]`: who reads. */
export interface DataloaderConfig {
  num_workers: number;
  prefetch_factor: number | null;
}

const source = z.strictObject({
  dataset: text,
  dataset_path: text.nullable().default(null),
  weight: positive,
  name: text.nullable().default(null),
  text_field: text.nullable().default(null),
});

/** Keys of `[data]`. */
export const dataKeys = section("How documents become rows of a batch.", {
  tokenizer: key(
    z.enum(["bytes"]).nullable(),
    null,
    '"bytes": a token for each byte and two that begin and end a document, without a file, and model.vocab_size is 258 where it is not set; not set, the tokenizer of model.hf_assets_path.',
  ),
  text_field: key(
    text,
    "text",
    "The key that has the text in each line of JSON, or the column that has it in a .parquet.",
  ),
  shuffle: key(
    flag,
    true,
    "Documents in another order in each epoch, which follows from debug.seed; off: as they lie, sorted by path.",
  ),
  shuffle_window: key(
    countOrZero.nullable(),
    null,
    "Of shards, whose order is another in each epoch too: documents that are shuffled together; 0: all as they lie; not set, 0 of c4, which is in no order, and 1024 of files.",
    "documents",
  ),
  lanes: key(
    count.nullable(),
    null,
    "Independent streams of documents to train on, whatever the batch; not set, those of the checkpoint, else 8, or on several data ranks the next multiple of the rows of a microbatch of them all, or as many as text is enough for.",
    "streams",
  ),
  sources: key(
    z.array(source).meta({
      expected: "tables [[data.sources]] with dataset and weight, and dataset_path, name and text_field where needed",
    }),
    [],
    "A mixture to train on, in place of training.dataset: of each source a share of the rows, by its weight beside those of the others.",
  ),
  on_error: key(
    z.enum(["refuse", "skip"]),
    "refuse",
    "A document that cannot be used ends the run; skip: it is left out and counted, as is the rest of a shard that is cut off or damaged.",
  ),
  max_document_bytes: key(
    z.string().regex(BYTES).meta({ expected: 'bytes such as "256MiB"' }),
    "256MiB",
    "A document with more text cannot be used, and is never held in memory.",
  ),
  token_bytes: key(
    z.union([z.literal(2), z.literal(4)]),
    2,
    "Of files of tokens, .bin, without a header of llm.c: bytes of a token.",
    "bytes",
  ),
  cache_dir: key(
    text.nullable(),
    null,
    "Folder for files of the hub that are streamed, shared by the ranks of a host; not set, libtitan in HF_HOME. What was not read for the longest time is removed from it.",
  ),
  cache_size: key(
    z.string().regex(BYTES).meta({ expected: 'bytes such as "20GiB"' }),
    "20GiB",
    "What that folder may take: more than the files of the hub that the ranks of a host read at once.",
  ),
  packing: key(
    z.enum(["windows", "documents", "best-fit"]).nullable(),
    null,
    'How documents become rows: "windows" cuts the stream of all every seq_len tokens; "documents" does too, with positions that restart in each; "best-fit" cuts no document that fits, and pads. With the last two attention stays inside of a document. Not set: "windows", but of chat "best-fit".',
  ),
  messages_field: key(text, "messages", "Of chat: the key that has the messages, each with role and content."),
  mask_prompt: key(
    flag,
    true,
    "Of chat: the tokens that the assistant says are learned, and no others; off: all are.",
  ),
  too_long: key(
    z.enum(["cut", "drop"]),
    "cut",
    "Of chat: a conversation longer than training.seq_len + 1 tokens keeps its beginning, or is left out; both are counted.",
  ),
});

/** Keys of `[training.dataloader]`. */
export const dataloaderKeys = section("Who reads the data that is trained on.", {
  num_workers: key(
    countOrZero,
    0,
    "Threads that read and tokenise on each rank, each lanes of its own; 0: one, as the thread that trains never reads.",
    "threads",
  ),
  prefetch_factor: key(count.nullable(), null, "Batches that are ready beside the one in use; not set, 3.", "batches"),
});
