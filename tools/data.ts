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
import { runCommand, tellUsage } from "./tool.ts";

const USAGE = `Usage: npx -y deno task data COMMAND ...

  show [--rows N] [KEYS]       the first rows that a run with these keys is trained on (4), as text: documents in colours of their
                               own, and in grey the tokens that are read but not learned
  stats [--documents N] [KEYS] how many documents and tokens there are of each source (of all documents, or the first N), how long
                               they are, and how fast they are read
  verify PATH [--field NAME]   reads all files of a folder, and names what cannot be used; exit code 1 where there is something

--json, anywhere, prints the same as one object of JSON. KEYS are those of train, such as --config FILE or --training.dataset text --training.dataset_path notes/.`;

/** Runs a command; returns its exit code. */
export async function run(args: readonly string[], print: (text: string) => void, colors = false): Promise<number> {
  const isJson = args.includes("--json"), [name, ...rest] = args.filter((arg) => arg !== "--json");
  const json = (value: unknown) => print(JSON.stringify(value, null, 2));
  if (name === "show") {
    const { value: rows = "4", others } = taken(rest, "--rows"), options = await optionsOf(others);
    const shown = await shownRows(options, Number(rows));
    if (isJson) json({ rows: shown });
    else shown.forEach((row, n) => print(`row ${n + 1}  ${rowText(row, colors)}`));
    return 0;
  }
  if (name === "stats") {
    const { value: most = "Infinity", others } = taken(rest, "--documents"), sources: SourceStatistics[] = [];
    await using loader = await Loader.open({ ...await optionsOf(others), batchSize: 1, lanes: 1 });
    for (const { name, dataset } of loader.sources) {
      const source = await statistics(name, dataset, loader.tokenizer, Number(most));
      sources.push(source);
      if (!isJson) statisticsLines(source).forEach(print);
    }
    if (isJson) json({ sources });
    return 0;
  }
  const { value: field, others } = taken(rest, "--field");
  if (name === "verify" && others.length === 1) {
    const found = await verify(others[0], field, isJson ? () => {} : print);
    if (isJson) json(found);
    return found.problems.length === 0 ? 0 : 1;
  }
  return tellUsage(USAGE, args, print);
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

/** A stretch of a row: tokens of one document that are learned, or are not. */
interface Stretch {
  /** Number of the document in its row. */
  readonly document: number;
  readonly learned: boolean;
  readonly tokens: number;
  readonly text: string;
}

/** The first rows. */
async function shownRows(options: LoaderOptions, count: number): Promise<Stretch[][]> {
  await using loader = await Loader.open(options);
  const rows: Stretch[][] = [];
  while (rows.length < count) {
    const batch = await loader.next();
    if (batch === undefined) break;
    for (let row = 0; row < batch.rows && rows.length < count; row++) {
      rows.push(stretchesOf(batch, row, options.seqLen, loader.tokenizer));
    }
  }
  return rows;
}

function stretchesOf(
  { tokens, targets, documents }: Batch,
  row: number,
  seqLen: number,
  tokenizer: Tokenizer,
): Stretch[] {
  const at = row * seqLen, isLearned = (t: number) => t === 0 || targets[at + t - 1] !== IGNORE_INDEX;
  const found: Stretch[] = [];
  for (let from = 0, to = 1; from < seqLen; from = to++) {
    const same = (t: number) => documents[at + t] === documents[at + from] && isLearned(t) === isLearned(from);
    while (to < seqLen && same(to)) to++;
    const text = tokenizer.decode(tokens.subarray(at + from, at + to));
    found.push({ document: documents[at + from], learned: isLearned(from), tokens: to - from, text });
  }
  return found;
}

const DOCUMENTS = ["cyan", "yellow", "green", "magenta"] as const;

function rowText(row: readonly Stretch[], colors: boolean): string {
  const parts = row.map(({ document, learned, text }) => {
    const quoted = JSON.stringify(text).slice(1, -1);
    const color = learned ? DOCUMENTS[document % DOCUMENTS.length] : "grey";
    return colors ? styleText(color, quoted, { validateStream: false }) : learned ? quoted : `[${quoted}]`;
  });
  return parts.join(colors ? "" : "|");
}

/** Numbers of a source's documents. */
interface SourceStatistics {
  readonly name: string;
  readonly description: string;
  readonly documents: number;
  readonly tokens: number;
  /** Read by one worker. */
  readonly tokensPerSecond: number;
  /** Tokens of a document; null where there is none. */
  readonly shortest: number | null;
  readonly median: number | null;
  readonly longest: number | null;
  /** Documents whose tokens lie between powers of two. */
  readonly lengths: readonly { from: number; to: number; documents: number }[];
}

async function statistics(
  name: string,
  dataset: Dataset,
  tokenizer: Tokenizer,
  most: number,
): Promise<SourceStatistics> {
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
    at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? null;
  return {
    ...{ name, description: dataset.description, documents: lengths.length, tokens },
    ...{ tokensPerSecond: tokens / seconds, shortest: at(0), median: at(0.5), longest: at(1) },
    lengths: histogram(lengths),
  };
}

function statisticsLines(source: SourceStatistics): string[] {
  const number = (n: number | null) => Math.round(n!).toLocaleString("en-US");
  const { name, description, documents, tokens, tokensPerSecond, shortest, median, longest, lengths } = source;
  const largest = Math.max(...lengths.map(({ documents }) => documents));
  return [
    `${name}: ${description}`,
    `  ${number(documents)} documents, ${number(tokens)} tokens, ${number(tokensPerSecond)} tokens/s by one worker`,
    ...(documents > 0
      ? [`  tokens of a document: ${number(shortest)} to ${number(longest)}, half of them up to ${number(median)}`]
      : []),
    ...lengths.map(({ from, to, documents }) => {
      const range = `${String(from).padStart(8)} .. ${String(to).padEnd(8)}`;
      return `  ${range} ${"#".repeat(Math.ceil(40 * documents / largest))} ${documents}`;
    }),
  ];
}

function histogram(lengths: readonly number[]): SourceStatistics["lengths"] {
  const bins = lengths.map((length) => Math.floor(Math.log2(Math.max(1, length))));
  const first = Math.min(...new Set(bins)), last = Math.max(...new Set(bins));
  const counts = Array.from({ length: Math.max(0, last - first + 1) }, () => 0);
  for (const bin of bins) counts[bin - first]++;
  return counts.map((documents, n) => ({ from: 2 ** (first + n), to: 2 ** (first + n + 1) - 1, documents }));
}

/** Reads all files of a path. */
async function verify(
  path: string,
  field: string | undefined,
  print: (text: string) => void,
): Promise<{ documents: number; shards: number; problems: string[] }> {
  const problems: string[] = [];
  const onBad = ({ problem }: DataError) => {
    problems.push(problem.what);
    print(problem.what);
  };
  const { shards } = await openDataset({ name: "files", path, field }, { onBad });
  let documents = 0;
  for (const { read } of shards) {
    for await (const _ of read({ from: 0, every: 1, offset: 0 }, 0)) documents++;
  }
  const count = (n: number, what: string) => `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;
  const end = problems.length === 0 ? "all can be used" : `${problems.length} cannot be used`;
  print(`${count(documents, "document")} in ${count(shards.length, "shard")}; ${end}`);
  return { documents, shards: shards.length, problems };
}

if (import.meta.main) {
  Deno.exit(await runCommand(() => run(Deno.args, console.log, Deno.stdout.isTerminal() && !Deno.noColor)));
}
