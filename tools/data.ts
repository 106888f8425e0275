/** Looks at data as a run reads it: `deno task data show|stats|verify`.
 * @module */
import { styleText } from "node:util";
import { type Batch, IGNORE_INDEX } from "../data/batch.ts";
import { openDataset } from "../data/dataset.ts";
import type { DataError } from "../data/error.ts";
import { Loader, type LoaderOptions } from "../data/loader.ts";
import type { Dataset } from "../data/dataset.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { loadConfig, trainOptions } from "../train/config/config.ts";
import { runCommand } from "./tool.ts";

const USAGE = `Usage: npx -y deno task data COMMAND ...

  show [--rows N] [KEYS]       the first rows that a run with these keys is trained on (4), as text: documents in colours of their
                               own, and in grey the tokens that are read but not learned
  stats [--documents N] [KEYS] how many documents and tokens there are of each source (of all documents, or the first N), how long
                               they are, and how fast they are read
  verify PATH [--field NAME]   reads all files of a folder, and names what cannot be used; exit code 1 where there is something

KEYS are those of train, such as --config FILE or --training.dataset text --training.dataset_path notes/.`;

/** Runs a command; returns its exit code. */
export async function run(args: readonly string[], print: (text: string) => void, colors = false): Promise<number> {
  const [name, ...rest] = args;
  if (name === "show") {
    const { value: rows = "4", others } = taken(rest, "--rows"), options = await optionsOf(others);
    for (const line of await shownRows(options, Number(rows), colors)) print(line);
    return 0;
  }
  if (name === "stats") {
    const { value: most = "Infinity", others } = taken(rest, "--documents");
    await using loader = await Loader.open({ ...await optionsOf(others), batchSize: 1, lanes: 1 });
    for (const { name, dataset } of loader.sources) {
      for (const line of await statistics(name, dataset, loader.tokenizer, Number(most))) print(line);
    }
    return 0;
  }
  const { value: field, others } = taken(rest, "--field");
  if (name === "verify" && others.length === 1) return await verify(others[0], field, print);
  print(USAGE);
  return name === "--help" ? 0 : 1;
}

/** Takes a flag with its value out of arguments. */
function taken(args: readonly string[], flag: string): { readonly value?: string; readonly others: readonly string[] } {
  const at = args.indexOf(flag);
  return at < 0 ? { others: args } : { value: args[at + 1], others: args.toSpliced(at, 2) };
}

/** What a run with these arguments loads. */
async function optionsOf(args: readonly string[]): Promise<LoaderOptions> {
  const named = args.some((arg) => /^--config(=|$)/.test(arg)),
    standard = new URL("../configs/debug.toml", import.meta.url);
  const { config } = await loadConfig(
    named ? args : ["--config", standard.href, ...args],
    (path) => Deno.readTextFile(path.startsWith("file:") ? new URL(path) : path),
  );
  const { data, tokenizer, batch = 1, seqLen = 1, lanes, shuffle, seed, dataloader } = trainOptions(config);
  const { workers: _, ahead: _ahead, ...reads } = dataloader ?? {};
  return { ...reads, dataset: data, tokenizer, batchSize: batch, seqLen, lanes, shuffle: shuffle ? seed : undefined };
}

/** The first rows as text. */
async function shownRows(options: LoaderOptions, count: number, colors: boolean): Promise<string[]> {
  await using loader = await Loader.open(options);
  const lines: string[] = [];
  while (lines.length < count) {
    const batch = await loader.next();
    if (batch === undefined) break;
    for (let row = 0; row < batch.rows && lines.length < count; row++) {
      lines.push(`row ${lines.length + 1}  ${rowText(batch, row, { options, tokenizer: loader.tokenizer, colors })}`);
    }
  }
  return lines;
}

const DOCUMENTS = ["cyan", "yellow", "green", "magenta"] as const;

/** One row: stretches of tokens of one document that are learned, or are not. */
function rowText(
  { tokens, targets, documents }: Batch,
  row: number,
  { options: { seqLen }, tokenizer, colors }: { options: LoaderOptions; tokenizer: Tokenizer; colors: boolean },
): string {
  const at = row * seqLen, isLearned = (t: number) => t === 0 || targets[at + t - 1] !== IGNORE_INDEX;
  const parts: string[] = [];
  for (let from = 0, to = 1; from < seqLen; from = to++) {
    const same = (t: number) => documents[at + t] === documents[at + from] && isLearned(t) === isLearned(from);
    while (to < seqLen && same(to)) to++;
    const text = JSON.stringify(tokenizer.decode(tokens.subarray(at + from, at + to))).slice(1, -1);
    const color = isLearned(from) ? DOCUMENTS[documents[at + from] % DOCUMENTS.length] : "grey";
    parts.push(colors ? styleText(color, text, { validateStream: false }) : isLearned(from) ? text : `[${text}]`);
  }
  return parts.join(colors ? "" : "|");
}

/** Numbers of a source's documents. */
async function statistics(name: string, dataset: Dataset, tokenizer: Tokenizer, most: number): Promise<string[]> {
  const lengths: number[] = [], begun = performance.now();
  reading: for (const shard of dataset.shards) {
    for await (const document of shard.read({ from: 0, every: 1, offset: 0 }, 0)) {
      if (lengths.length >= most) break reading;
      lengths.push(
        "ids" in document ? document.ids.length : tokenizer.encode(document.text, { bos: true, eos: true }).length,
      );
    }
  }
  const seconds = (performance.now() - begun) / 1000, tokens = lengths.reduce((sum, n) => sum + n, 0);
  const sorted = lengths.toSorted((a, b) => a - b),
    at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))];
  const number = (n: number) => Math.round(n).toLocaleString("en-US");
  return [
    `${name}: ${dataset.description}`,
    `  ${number(lengths.length)} documents, ${number(tokens)} tokens, ${
      number(tokens / seconds)
    } tokens/s by one worker`,
    ...(lengths.length > 0
      ? [`  tokens of a document: ${number(at(0))} to ${number(at(1))}, half of them up to ${number(at(0.5))}`]
      : []),
    ...histogram(lengths),
  ];
}

/** How many lengths lie between powers of two, as bars. */
function histogram(lengths: readonly number[]): string[] {
  const bins = lengths.map((length) => Math.floor(Math.log2(Math.max(1, length))));
  const first = Math.min(...new Set(bins)), last = Math.max(...new Set(bins));
  const counts = Array.from({ length: Math.max(0, last - first + 1) }, () => 0);
  for (const bin of bins) counts[bin - first]++;
  return counts.map((count, n) => {
    const range = `${String(2 ** (first + n)).padStart(8)} .. ${String(2 ** (first + n + 1) - 1).padEnd(8)}`;
    return `  ${range} ${"#".repeat(Math.ceil(40 * count / Math.max(...counts)))} ${count}`;
  });
}

/** Reads all files of a path; 1 where something cannot be used. */
async function verify(path: string, field: string | undefined, print: (text: string) => void): Promise<number> {
  let [documents, bad] = [0, 0];
  const onBad = ({ problem }: DataError) => {
    bad++;
    print(problem.what);
  };
  const { shards } = await openDataset({ name: "files", path, field }, { onBad });
  for (const { read } of shards) {
    for await (const _ of read({ from: 0, every: 1, offset: 0 }, 0)) documents++;
  }
  const count = (n: number, what: string) => `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;
  print(
    `${count(documents, "document")} in ${count(shards.length, "shard")}; ${
      bad === 0 ? "all can be used" : `${bad} cannot be used`
    }`,
  );
  return bad === 0 ? 0 : 1;
}

if (import.meta.main) {
  Deno.exit(await runCommand(() => run(Deno.args, console.log, Deno.stdout.isTerminal() && !Deno.noColor)));
}
