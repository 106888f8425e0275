/**
 * Datasets by name. A dataset is a list of shards; a shard yields documents in a fixed order.
 *
 * - `c4_test`: the sample that comes with libtitan, or the train shards at `path`.
 * - `c4`: the train shards of C4 at `path`, a folder (or one file) of `c4-train.*.json.gz`.
 * - `c4_validation`: the validation shards at `path`; without one, the held-out part of the *sample*, not of C4.
 * - `text` at `path`, or `texts("notes/")`: files of one's own, `.txt` and `.md`, and `.jsonl` with a document in each line.
 * @module
 */
import { shardName, type Split } from "./c4.ts";
import { DataError } from "./error.ts";
import { readJsonLines } from "./json_lines.ts";
import type { Shard, Take } from "./shard.ts";
import { isMissing, reading, shardFile, show, toUrl, within } from "./source.ts";
import { TextDocuments } from "./text_documents.ts";
import { expand } from "./texts.ts";

/** What to read; plain data. */
export type DatasetSpec = NamedSpec | TextsSpec;

/** What may be said of text files. */
export interface OwnText {
  /** Key of a line's text in `.jsonl`; default `text`. */
  readonly field?: string;
  /** All documents, those that are held out for validation, or the others; default: all. */
  readonly part?: "all" | "training" | "held-out";
}

/** A dataset of the registry, as in `training.dataset` and `training.dataset_path`. */
export interface NamedSpec extends OwnText {
  /** `c4`, `c4_test`, `c4_validation` or `text`; case does not matter. */
  readonly name: string;
  /** Where to read it from in place of its own address; for `text` a file, a folder or a pattern. */
  readonly path?: string | null;
}

/** Paths, folders and patterns of text files. */
export interface TextsSpec extends OwnText {
  /** They are taken from the working directory. */
  readonly texts: readonly string[];
}

/** An opened dataset. */
export interface Dataset {
  readonly name: string;
  /** Where it is read from, for people. */
  readonly description: string;
  /** At least one. */
  readonly shards: readonly Shard[];
  /** Number of documents, where that is known without reading all of it: of the one shard that there is then. */
  readonly documents?: number;
  /** The largest number of lanes, up to `most`, of which each has that many bytes of text, where that is known. */
  lanes?(most: number, bytes: number): number;
  /** Tells text and order from others; none: the names of shards are enough. */
  readonly identity?: string;
}

/** How to read a dataset. */
export interface DatasetOptions {
  /** Seed of the order of documents, another one in each epoch; default: as they lie. Shards of C4 are in no order anyway, and are
   * read as they lie. */
  readonly shuffle?: number;
}

/** The folder of the sample: its shards and its tokenizer. */
export const SAMPLE: URL = new URL("./sample/", import.meta.url);

const SAMPLE_SHARDS: Readonly<Record<Split, number>> = { train: 4, validation: 1 };

const REGISTRY: Readonly<Record<string, { readonly split: Split; readonly sample: boolean }>> = {
  c4: { split: "train", sample: false },
  c4_test: { split: "train", sample: true },
  c4_validation: { split: "validation", sample: true },
};

/** A dataset of text files: `texts("notes/", "more/*.md", "book.txt")`. Each is a document, but of a `.jsonl` each line. */
export function texts(...patterns: string[]): TextsSpec {
  return { texts: patterns };
}

/** Is it one's own text, of which a share can be held out? */
export function isOwnText(spec: DatasetSpec): boolean {
  return "texts" in spec || spec.name.toLowerCase() === "text";
}

/** Finds the shards of a dataset.
 * @throws {DataError} when there is no such dataset, or nothing to read. */
export async function openDataset(spec: DatasetSpec, options: DatasetOptions = {}): Promise<Dataset> {
  if ("texts" in spec) return await openTexts(spec, options);
  if (!isOwnText(spec)) return await openNamed(spec);
  const { path, ...own } = spec;
  if (path !== undefined && path !== null) return await openTexts({ ...own, texts: [path] }, options);
  throw new DataError({
    code: "dataset_needs_path",
    what: 'Dataset "text" has no path',
    expected:
      "training.dataset_path (validation.dataset_path): a file, a folder with .txt, .md or .jsonl, or a pattern",
    fix: "set it, such as --training.dataset_path notes/",
  });
}

async function openTexts({ texts, field, part }: TextsSpec, { shuffle }: DatasetOptions): Promise<Dataset> {
  const files = await expand(texts);
  if (files.length === 0) {
    throw new DataError({
      code: "empty_dataset",
      what: "Cannot make a dataset of no text files",
      expected: "at least one path or pattern",
      fix: 'name some, such as texts("notes/*.md")',
    });
  }
  const documents = await TextDocuments.open(files, { field, part, shuffle }), { count, all } = documents;
  const number = (n: number, what: string) => `${n.toLocaleString("en-US")} ${what}${n === 1 ? "" : "s"}`;
  const share = part === undefined || part === "all"
    ? number(count, "document")
    : all === 1
    ? part === "held-out" ? "the end of the only document, held out" : "the only document without its end, held out"
    : part === "held-out"
    ? `${count.toLocaleString("en-US")} of ${number(all, "document")}, held out`
    : `${number(count, "document")} (${(all - count).toLocaleString("en-US")} more are held out)`;
  return {
    name: "texts",
    description: `${share}, in ${number(files.length, "text file")} (${texts.join(", ")})`,
    shards: [{ name: "texts", read: (take, epoch) => documents.read(take, epoch) }],
    documents: count,
    lanes: (most, bytes) => documents.lanes(most, bytes),
    identity: documents.identity,
  };
}

async function openNamed({ name, path }: NamedSpec): Promise<Dataset> {
  const known = Object.hasOwn(REGISTRY, name.toLowerCase()) ? REGISTRY[name.toLowerCase()] : undefined;
  if (known === undefined) {
    throw new DataError({
      code: "unknown_dataset",
      what: `There is no dataset ${JSON.stringify(name)}`,
      expected: [...Object.keys(REGISTRY), "text"].join(", "),
      fix: "set training.dataset (validation.dataset) to one of them; its path is training.dataset_path",
    });
  }
  const { split, sample } = known;
  let urls: URL[];
  let description: string;
  if (path !== undefined && path !== null) {
    urls = await findShards(toUrl(path), split);
    description = `${urls.length} ${split} shards in ${path}`;
  } else if (sample) {
    const count = SAMPLE_SHARDS[split];
    urls = Array.from({ length: count }, (_, n) => within(SAMPLE, shardName(split, n, count)));
    description = `the ${split} part of the sample that comes with libtitan`;
  } else {
    throw new DataError({
      code: "dataset_needs_path",
      what: `Dataset ${JSON.stringify(name)} has no path`,
      expected: "training.dataset_path, a folder of c4-train.*.json.gz shards",
      fix: 'download some shards of allenai/c4 and give their folder, or use the sample: training.dataset = "c4_test"',
    });
  }
  const shards = urls.map(shardFile).map((file) => ({
    name: file.name,
    read: (take: Take) => readJsonLines(file, take),
  }));
  return { name: name.toLowerCase(), description, shards };
}

/** The shards of one split in a folder, sorted by name; or the one file or address that is given. */
async function findShards(url: URL, split: Split): Promise<URL[]> {
  const shape = `c4-${split}.*.json.gz`;
  if (url.protocol !== "file:") return [url];
  let names: string[];
  try {
    if ((await reading(show(url), () => Deno.stat(url))).isFile) return [url];
    names = (await reading(show(url), () => Array.fromAsync(Deno.readDir(url)))).map(({ name }) => name);
  } catch (error) {
    if (!isMissing(error)) throw error;
    throw new DataError({
      code: "no_such_file",
      what: `Cannot open dataset: there is no ${show(url)}`,
      expected: `a folder of ${shape} shards`,
      fix: "correct the dataset's path",
    });
  }
  const shards = names.filter((name) => name.startsWith(`c4-${split}.`) && name.endsWith(".json.gz")).sort();
  if (shards.length > 0) return shards.map((name) => within(url, name));
  throw new DataError({
    code: "empty_dataset",
    what: `No ${split} shard in ${show(url)}: ${
      names.length === 0 ? "the folder is empty" : `none of its ${names.length} files`
    }`,
    expected: `names like ${shardName(split, 0, split === "train" ? 1024 : 8)}`,
    fix: names.some((name) => /\.(txt|md|jsonl)$/.test(name))
      ? `read plain text as dataset "text": --training.dataset text --training.dataset_path ${show(url)}`
      : "correct the dataset's path, or download shards of allenai/c4 into it",
  });
}

/** Token frequencies: counted as text goes by, without keeping it. */
export class Unigrams {
  /** How often each id was counted. */
  readonly counts: Float64Array;

  /** @param vocabSize ids are below it. */
  constructor(vocabSize: number) {
    this.counts = new Float64Array(vocabSize);
  }

  /** Counts ids; negative ones, which are ignored targets, are left out.
   * @throws {RangeError} when an id is not below the vocabulary's size. */
  add(ids: Iterable<number>): void {
    const vocabSize = this.counts.length;
    for (const id of ids) {
      if (id < 0) continue;
      if (!(id < vocabSize)) throw new RangeError(`Token ${id} is not in a vocabulary of ${vocabSize}`);
      this.counts[id]++;
    }
  }

  /** Adds what was counted elsewhere, over the same vocabulary. */
  addCounts(counts: ArrayLike<number>): void {
    this.counts.forEach((n, id) => this.counts[id] = n + counts[id]);
  }

  /** Entropy of the frequencies in nats: the loss of a model that knows only how often each token occurs.
   * @throws {RangeError} when nothing was counted. */
  entropy(): number {
    const total = this.counts.reduce((sum, n) => sum + n, 0);
    if (total === 0) throw new RangeError("Cannot take the entropy of no tokens");
    return this.counts.reduce((sum, n) => n === 0 ? sum : sum - n / total * Math.log(n / total), 0);
  }
}
