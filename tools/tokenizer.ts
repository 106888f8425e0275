/** Makes tokenizers: `deno task tokenizer train --data notes/ --vocab-size 4096`.
 * @module */
import { openDataset, texts } from "../data/dataset.ts";
import { newTokenizer } from "../data/new_tokenizer.ts";
import type { Shard } from "../data/shard.ts";
import { WordCounts } from "../data/train_bpe.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { CheckpointError } from "../train/checkpoint/error.ts";
import { writeLasting } from "../train/checkpoint/files.ts";
import { runCommand, tellUsage } from "./tool.ts";

const USAGE =
  `Usage: npx -y deno task tokenizer train --data PATH [--data PATH ...] --vocab-size N [--out FOLDER] [--field KEY] [--chat]

Learns a byte-level BPE of N tokens from text, and writes it as tokenizer.json and tokenizer_config.json, which Hugging Face's
tokenizers and transformers read, too; --model.hf_assets_path FOLDER trains with it.

  --data PATH      a file, a folder with .txt, .md or .jsonl, or a pattern; of .parquet, .json and what is compressed (.gz, .zst) too
  --vocab-size N   number of tokens: 256 bytes, learned ones, and those that begin and end a text
  --out FOLDER     where to write it; tokenizer where it is not said
  --field KEY      of .jsonl: the key of the text; "text" where it is not said
  --chat           adds <|im_start|>, <|im_end|> and the chat template ChatML`;

/** Files that are read from their beginnings, as dataset "files" has them. */
const SHARDS = /\.(json|parquet|gz|zst)$/i;

/** Milliseconds from one line about the progress to the next. */
const PROGRESS_MS = 5000;

/** Runs a command; returns its exit code.
 * @param note is told how far it is. */
export async function run(
  args: readonly string[],
  print: (text: string) => void,
  note: (text: string) => void = () => {},
): Promise<number> {
  const [command, ...rest] = args, data: string[] = [], options = new Map<string, string>();
  for (let i = 0; i < rest.length; i++) {
    const [, name, value] = /^--(data|vocab-size|out|field)(?:=(.*))?$/.exec(rest[i]) ?? [];
    if (name === "data") data.push(value ?? rest[++i] ?? "");
    else if (name !== undefined) options.set(name, value ?? rest[++i] ?? "");
    else options.set(rest[i], "");
  }
  const known = ["vocab-size", "out", "field", "--chat"],
    wrong = [...options.keys()].some((name) => !known.includes(name));
  if (command !== "train" || data.length === 0 || !options.has("vocab-size") || wrong) {
    return tellUsage(USAGE, args, print);
  }
  const out = options.get("out") ?? "tokenizer", vocabSize = Number(options.get("vocab-size"));
  newTokenizer(new WordCounts(), { vocabSize, chat: options.has("--chat") }); // a wrong size is told before all text is read
  if (exists(`${out}/tokenizer.json`)) {
    throw new CheckpointError(
      `${out} has a tokenizer`,
      "a new folder",
      "name another behind --out, or remove that one",
    );
  }
  const words = await count(data, options.get("field"), note);
  const { json, config } = newTokenizer(words, { vocabSize, chat: options.has("--chat") });
  Deno.mkdirSync(out, { recursive: true });
  await writeLasting(`${out}/tokenizer_config.json`, `${JSON.stringify(config, null, 2)}\n`);
  await writeLasting(`${out}/tokenizer.json`, `${JSON.stringify(json, null, 2)}\n`);
  const made = await Tokenizer.open(out), fewer = made.vocabSize < vocabSize ? `; the text has no pair for more` : "";
  print(`${out} has a tokenizer of ${made.vocabSize.toLocaleString("en-US")} tokens${fewer}`);
  return 0;
}

/** The words of all documents. */
async function count(data: string[], field: string | undefined, note: (text: string) => void): Promise<WordCounts> {
  const words = new WordCounts(), shards: Shard[] = [];
  for (const path of data) {
    const spec = SHARDS.test(path) ? { name: "files", path, field } : { ...texts(path), field };
    shards.push(...(await openDataset(spec)).shards);
  }
  let [documents, told] = [0, performance.now()];
  const far = () =>
    `${documents.toLocaleString("en-US")} documents, ${(words.bytes / 1e6).toFixed(1)} MB, ` +
    `${words.size.toLocaleString("en-US")} different words`;
  for (const shard of shards) {
    for await (const document of shard.read({ from: 0, every: 1, offset: 0 }, 0)) {
      if ("text" in document) words.add(document.text); // texts are no files of tokens
      documents++;
      if (performance.now() - told < PROGRESS_MS) continue;
      told = performance.now();
      note(far());
    }
  }
  note(far());
  return words;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

if (import.meta.main) Deno.exit(await runCommand(() => run(Deno.args, console.log, console.error)));
