/**
 * Datasets by name, and mixtures of them. A dataset is a list of shards; a shard yields documents in a fixed order.
 *
 * - `c4_test`: the sample that comes with libtitan, or the train shards at `path`.
 * - `c4`: the train shards of C4 at `path`, a folder (or one file) of `c4-train.*.json.gz`; without one, those of the hub, which are
 *   streamed: of configuration `en`, or of another as `c4/realnewslike`.
 * - `c4_validation`: the validation shards at `path`; without one, the held-out part of the *sample*, not of C4; `c4_validation/en` and
 *   the like: those of the hub.
 * - `text` at `path`, or `texts("notes/")`: files of one's own, `.txt` and `.md`, and `.jsonl` with a document in each line.
 * - `files` at `path`: a file, a folder or a pattern; each `.jsonl`, `.json`, `.parquet` and `.bin` is a shard ({@linkcode shardsOf}).
 *
 * The path of C4 and of `files` may be an address on the hub, `hf://datasets/ORG/NAME@REVISION/PATH`: its files are streamed.
 * @module
 */
import { C4_CONFIGURATIONS, C4_REPOSITORY, c4Paths, shardName, type Split } from "./c4.ts";
import { DataError } from "./error.ts";
import { SHARD_FILES, shardsOf } from "./files.ts";
import { withSeekStore } from "./gzip/seek_store.ts";
import { isHubAddress, parseAddress } from "./hub/address.ts";
import { ownFolder } from "./hub/settings.ts";
import { HubShards, type StreamCache } from "./hub/shards.ts";
import { hashOf } from "./identity.ts";
import type { Shard, TokenOptions } from "./shard.ts";
import { isMissing, reading, type ShardFile, shardFile, show, toUrl, within } from "./source.ts";
import { TextDocuments } from "./text_documents.ts";
import { expand } from "./texts.ts";

/** What to read; plain data. */
export type DatasetSpec = OneSpec | MixtureSpec;

/** One dataset. */
export type OneSpec = NamedSpec | TextsSpec;

/** Several datasets, of each of which a share of the rows comes. */
export interface MixtureSpec {
  /** Its sources, each with a name of its own. */
  readonly mixture: readonly SourceSpec[];
}

/** One dataset of a mixture. */
export interface SourceSpec {
  /** What reports call it; default: the dataset's name. */
  readonly name?: string;
  /** What is read. */
  readonly data: OneSpec;
  /** Share of the rows, and so of the tokens, beside the other weights. */
  readonly weight: number;
}

/** What may be said of text files. */
export interface OwnText {
  /** Key of a line's text in `.jsonl`, or column of a table; default `text`, of conversations `messages`. */
  readonly field?: string;
  /** All documents, those that are held out for validation, or the others; default: all. */
  readonly part?: "all" | "training" | "held-out";
}

/** A dataset of the registry, as in `training.dataset` and `training.dataset_path`. */
export interface NamedSpec extends OwnText {
  /** `c4`, `c4_test`, `c4_validation`, `text`, `files` or `chat`; case does not matter. */
  readonly name: string;
  /** Where to read it from in place of its own address; for `text`, `files` and `chat` a file, a folder or a pattern. */
  readonly path?: string | null;
  /** Of `.bin` without a header: bytes of a token; default 2. */
  readonly tokenBytes?: 2 | 4;
  /** Where files of the hub are kept that are streamed. */
  readonly cache?: StreamCache;
}

/** Paths, folders and patterns of text files. */
export interface TextsSpec extends OwnText {
  /** They are taken from the working directory. */
  readonly texts: readonly string[];
  /** Are they conversations, `{"messages": [...]}` in each line? */
  readonly chat?: boolean;
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
  /** Tells text and order from others. */
  readonly identity: string;
  /** Seed of the order of shards in each epoch; undefined: as they lie. */
  readonly shuffle?: number;
}

/** How to read a dataset. */
export interface DatasetOptions extends Pick<TokenOptions, "maxBytes" | "onBad" | "onNote" | "end" | "textOf"> {
  /** Seed of the order of documents, another one in each epoch; default: as they lie. */
  readonly shuffle?: number;
  /** Documents of a shard that are shuffled together, where there is a seed; default: {@linkcode SHUFFLE_WINDOW} of files, and 0 of C4,
   * which is in no order anyway, and is read as it lies then. */
  readonly shuffleWindow?: number;
}

/** Documents of a shard of files that are shuffled together. */
export const SHUFFLE_WINDOW = 1024;

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

/** A dataset of conversations: `chats("chats.jsonl")`, with `{"messages": [{"role": "user", "content": "..."}, ...]}` in each line. */
export function chats(...patterns: string[]): TextsSpec {
  return { texts: patterns, chat: true };
}

/** Conversations whose lines or rows are read from the first one on: some kinds of files, and those of the hub. */
const CHAT_STREAMS = /^hf:|\.(json|parquet|gz|zst)$/i;

/** Names of files that have conversations. */
const CHAT_FILES = { names: /\.(jsonl?(\.(gz|zst))?|parquet)$/i, kinds: ".jsonl, .json or .parquet" };

/** Are its documents conversations? */
export function isChat(spec: DatasetSpec): boolean {
  return "texts" in spec ? spec.chat === true : "name" in spec && spec.name.toLowerCase() === "chat";
}

/** The datasets of a specification, with their weights.
 * @throws {DataError} when a mixture has none, or a weight is none. */
export function sourcesOf(spec: DatasetSpec): readonly SourceSpec[] {
  if (!("mixture" in spec)) return [{ data: spec, weight: 1 }];
  const { mixture } = spec, wrong = mixture.find(({ weight }) => !(weight > 0 && weight < Infinity));
  const names = mixture.map(nameOf), twice = names.find((name, n) => names.indexOf(name) !== n);
  if (mixture.length > 0 && !wrong && twice === undefined) return mixture;
  throw new DataError({
    code: "bad_option",
    what: wrong
      ? `Cannot mix with weight ${wrong.weight} of ${nameOf(wrong)}`
      : twice === undefined
      ? "Cannot mix no sources"
      : `Cannot tell two sources apart that are named ${JSON.stringify(twice)}`,
    expected: "sources, each with a weight above 0 and a name of its own",
    fix: "correct data.sources",
  });
}

function nameOf({ name, data }: SourceSpec): string {
  return name ?? ("texts" in data ? "texts" : data.name.toLowerCase());
}

/** Is it one's own text, of which a share can be held out? */
export function isOwnText(spec: DatasetSpec): spec is OneSpec {
  if ("texts" in spec) return !spec.texts.some((path) => spec.chat && CHAT_STREAMS.test(path));
  if (!("name" in spec)) return false;
  return spec.name.toLowerCase() === "text" || isChat(spec) && !CHAT_STREAMS.test(spec.path ?? "");
}

/** Finds the shards of a dataset.
 * @throws {DataError} when there is no such dataset, or nothing to read. */
export async function openDataset(spec: OneSpec, options: DatasetOptions = {}): Promise<Dataset> {
  if (isChat(spec) && ("texts" in spec || spec.path !== undefined && spec.path !== null)) {
    if ("texts" in spec) return await openChats(spec, options);
    const { field, part, path, cache } = spec;
    return await openChats({ field, part, texts: [path!], cache }, options);
  }
  if ("texts" in spec) return await openTexts(spec, options);
  const isFiles = spec.name.toLowerCase() === "files";
  if (!isOwnText(spec) && !isFiles && !isChat(spec)) return await openNamed(spec, options);
  const { path, ...own } = spec;
  if (path !== undefined && path !== null) {
    return await (isFiles ? openFiles({ ...spec, path }, options) : openTexts({ ...own, texts: [path] }, options));
  }
  throw new DataError({
    code: "dataset_needs_path",
    what: `Dataset ${JSON.stringify(spec.name)} has no path`,
    expected: `training.dataset_path (validation.dataset_path): a file, a folder with ${
      isFiles ? ".jsonl, .json, .parquet, .bin or .txt" : isChat(spec) ? CHAT_FILES.kinds : ".txt, .md or .jsonl"
    }, or a pattern`,
    fix: "set it, such as --training.dataset_path notes/",
  });
}

/** Conversations: lines of `.jsonl` as text has them, other files as shards. */
async function openChats(
  { texts, field = "messages", part, cache }: TextsSpec & Pick<NamedSpec, "cache">,
  options: DatasetOptions,
): Promise<Dataset> {
  const where = texts.join(", "),
    addresses = texts.filter(isHubAddress),
    paths = texts.filter((path) => !isHubAddress(path));
  const files = paths.length > 0 ? await expand(paths, CHAT_FILES) : [];
  if (!texts.concat(files).some((file) => CHAT_STREAMS.test(file))) {
    return await openTexts({ texts: files, field, part }, options);
  }
  if (part !== undefined && part !== "all") {
    throw new DataError({
      code: "bad_option",
      what: `Cannot hold out a part of ${where} for validation`,
      expected: "plain .jsonl, whose lines are counted before the first is read",
      fix: 'name other conversations for it: validation.dataset = "chat" and validation.dataset_path',
    });
  }
  const shuffleWindow = options.shuffleWindow ?? SHUFFLE_WINDOW;
  const isChatFile = (file: string) => CHAT_FILES.names.test(file);
  const streamed = await Promise.all(
    addresses.map((address) => new HubShards(cache).find(parseAddress(address), isChatFile)),
  );
  return await datasetOf([...files.map((file) => shardFile(toUrl(file))), ...streamed.flat()], {
    ...options,
    name: "chat",
    field,
    shuffleWindow,
    description: `in ${where}`,
  });
}

/** Files of a path as shards. */
async function openFiles(spec: NamedSpec & { path: string }, options: DatasetOptions): Promise<Dataset> {
  const { path } = spec, { shuffleWindow = SHUFFLE_WINDOW } = options;
  const files = isHubAddress(path)
    ? await new HubShards(spec.cache).find(parseAddress(path), (file) => SHARD_FILES.test(file) && !/\.md$/i.test(file))
    : /^https?:/.test(path)
    ? [shardFile(new URL(path))]
    : (await expand([path], { names: SHARD_FILES, kinds: ".jsonl, .json, .parquet, .bin or .txt" }))
      .map((file) => localFile(toUrl(file), spec));
  return await datasetOf(files, { ...options, ...spec, shuffleWindow, description: `in ${path}` });
}

/** How the files of a dataset are read, and what it is called. */
export interface FilesSpec extends DatasetOptions, Omit<NamedSpec, "path" | "part" | "cache"> {
  /** Where they lie, for people. */
  readonly description: string;
}

/** The dataset of some files: what one gets of a folder, or from elsewhere. */
export async function datasetOf(files: readonly ShardFile[], options: FilesSpec): Promise<Dataset> {
  const { name, description, field, tokenBytes, shuffle: seed, shuffleWindow: window = 0 } = options;
  const shuffle = seed === undefined || window === 0 ? undefined : { seed, window };
  const shards = shardsOf(files, { ...options, shuffle });
  const sizes = await Promise.all(files.map((file) => file.identity()));
  return {
    name: name.toLowerCase(),
    description: `${shards.length.toLocaleString("en-US")} shard${shards.length === 1 ? "" : "s"} ${description}`,
    shards,
    shuffle: shuffle?.seed,
    identity: hashOf([
      files.map((file, n) => [file.name, sizes[n]]),
      field ?? "text",
      tokenBytes ?? 2,
      shuffle ?? null,
    ]),
  };
}

async function openTexts({ texts, field, part }: TextsSpec, { shuffle, ...reads }: DatasetOptions): Promise<Dataset> {
  const files = await expand(texts);
  if (files.length === 0) {
    throw new DataError({
      code: "empty_dataset",
      what: "Cannot make a dataset of no text files",
      expected: "at least one path or pattern",
      fix: 'name some, such as texts("notes/*.md")',
    });
  }
  const documents = await TextDocuments.open(files, { field, part, shuffle, ...reads }), { count, all } = documents;
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

/** Part of a name behind its stroke: the configuration of C4, where one is named. */
function configurationOf(name: string): string | undefined {
  return name.includes("/") ? name.slice(name.indexOf("/") + 1) : undefined;
}

/** Does C4 come from the hub? It does where it has no path, unless it is the sample. */
function isStreamed({ name, path }: NamedSpec): boolean {
  if (path !== undefined && path !== null) return isHubAddress(path);
  return configurationOf(name) !== undefined || REGISTRY[name.toLowerCase()]?.sample === false;
}

async function openNamed(spec: NamedSpec, options: DatasetOptions): Promise<Dataset> {
  const name = spec.name.toLowerCase(), path = spec.path ?? undefined;
  const base = name.split("/")[0], configuration = configurationOf(name) ?? "en";
  const known = Object.hasOwn(REGISTRY, base) && (base === name || base !== "c4_test") ? REGISTRY[base] : undefined;
  if (known === undefined || !Object.hasOwn(C4_CONFIGURATIONS, configuration)) {
    throw new DataError({
      code: "unknown_dataset",
      what: `There is no dataset ${JSON.stringify(spec.name)}`,
      expected: [...Object.keys(REGISTRY), "text", "files", "chat"].join(", ") +
        `; of c4 and c4_validation also ${Object.keys(C4_CONFIGURATIONS).map((name) => `/${name}`).join(", ")}`,
      fix: "set training.dataset (validation.dataset) to one of them; its path is training.dataset_path",
    });
  }
  const { split } = known;
  const { files, description } = isStreamed(spec)
    ? await streamed(spec, configuration, split)
    : path !== undefined
    ? local(spec, split, await findShards(toUrl(path), split))
    : sample(split);
  return { ...await datasetOf(files, { ...options, name, field: spec.field, description }), description };
}

/** Shards, and what they are for people. */
interface Found {
  readonly files: readonly ShardFile[];
  readonly description: string;
}

/** C4's shards on the hub: those of an address, or of C4 itself, whose names are known without a question. */
async function streamed({ path, cache }: NamedSpec, configuration: string, split: Split): Promise<Found> {
  const hub = new HubShards(cache);
  if (path !== undefined && path !== null) {
    const files = await hub.find(parseAddress(path), (file) => isShard(file.split("/").at(-1)!, split));
    return { files, description: `${files.length} ${split} shards in ${path}, streamed from the hub` };
  }
  const { repository, revision } = parseAddress(C4_REPOSITORY);
  const files = c4Paths(configuration, split).map((path) => hub.shard(repository, revision, path));
  return { files, description: `${files.length} ${split} shards of ${configuration} of C4, streamed from the hub` };
}

function local(spec: NamedSpec, split: Split, urls: readonly URL[]): Found {
  return {
    files: urls.map((url) => localFile(url, spec)),
    description: `${urls.length} ${split} shards in ${spec.path}`,
  };
}

/** A file of one's own, with a place for its index where there is one for what is kept. */
function localFile(url: URL, { cache }: NamedSpec): ShardFile {
  const folder = cache && (cache.folder ?? ownFolder()), file = shardFile(url);
  return folder === undefined || url.protocol !== "file:" ? file : withSeekStore(file, url, folder);
}

function sample(split: Split): Found {
  const count = SAMPLE_SHARDS[split];
  return {
    files: Array.from({ length: count }, (_, n) => shardFile(within(SAMPLE, shardName(split, n, count)))),
    description: `the ${split} part of the sample that comes with libtitan`,
  };
}

function isShard(name: string, split: Split): boolean {
  return name.startsWith(`c4-${split}.`) && name.endsWith(".json.gz");
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
  const shards = names.filter((name) => isShard(name, split)).sort();
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
