/**
 * The loader: lanes side by side become rows of a batch. The rows of a run are numbered through; row n comes from lane
 * n mod lanes, so the batch size does not change what is read. A row is a window of seq_len + 1 tokens, `w`: its tokens
 * are w[0 .. T-1], its targets w[1 .. T]; windows do not overlap. `packing.ts` has other ways.
 *
 * Data ranks have consecutive rows of each batch, and read the lanes of these alone; of several workers of a rank each reads
 * some of them. A loader that is not infinite leaves lanes out as they end, which only who reads them knows: its lanes are dealt
 * to groups of data ranks, each of which is on its own.
 *
 * Shapes: B rows, T tokens of a row.
 * @module
 */
import { type Batch, IGNORE_INDEX, makeBatch } from "./batch.ts";
import { type ChatOptions, Chats } from "./chat.ts";
import { type DatasetSpec, isChat, openDataset, SAMPLE, sourcesOf } from "./dataset.ts";
import { DataError } from "./error.ts";
import { Lane } from "./lane.ts";
import {
  beginState,
  checkState,
  identityOf,
  type LoaderIdentity,
  type LoaderState,
  type OpenedSource,
} from "./loader_state.ts";
import { MixedLane } from "./mixture.ts";
import { type Packing, putRow } from "./packing.ts";
import { refuse } from "./shard.ts";
import { Tokenizer } from "./tokenizer.ts";

/** What to load, and how. */
export interface LoaderOptions {
  readonly dataset: DatasetSpec;
  /** Folder of the tokenizer, or `bytes`; default: the sample's. */
  readonly tokenizer?: string | URL;
  /** Seed of the order of documents, another one in each epoch; default: as they lie. */
  readonly shuffle?: number;
  /** Documents of a shard that are shuffled together; default: 0 of C4, of which nothing is shuffled then, and 1,024 of files. */
  readonly shuffleWindow?: number;
  /** The largest document, in bytes of text; default 256 MiB. */
  readonly maxDocumentBytes?: number;
  /** Are documents that cannot be used left out? Default: they are an error. */
  readonly skipBad?: boolean;
  /** B, rows of a batch: of this data rank's part, where there are several. */
  readonly batchSize: number;
  /** Which of `dataRanks` loaders this is: each has its B consecutive rows of every batch of dataRanks * B. Default: the only one. */
  readonly dataRank?: number;
  /** Number of loaders that share the rows of a batch. */
  readonly dataRanks?: number;
  /** Which of the data rank's `workers` this is: each fills the rows of its own lanes. Default: the only one. */
  readonly worker?: number;
  /** Number of workers of a data rank; more than one only where the loader is infinite. */
  readonly workers?: number;
  /** T, tokens of a row. */
  readonly seqLen: number;
  /** Independent streams of documents. Default: those of `state`; else 8, or on several data ranks the next multiple of the rows of a batch of them all;
   * fewer where text files of one's own are not enough for; where the loader is not infinite, as many as there are shards, up to 64. */
  readonly lanes?: number;
  /** Whether to begin again after the last document; default: true. */
  readonly infinite?: boolean;
  /** Where to go on, from `state()`; default: at the beginning. */
  readonly state?: LoaderState;
  /** How documents become rows; default: `windows`, but of chats `best-fit`. */
  readonly packing?: Packing;
  /** How conversations are read. */
  readonly chat?: ChatOptions;
  /** Is told of each document before it is read: numbers of source and shard, and its place there. */
  readonly onRead?: (source: number, shard: number, document: number) => void;
  /** Is told of each document, or rest of a shard, that is left out. */
  readonly onSkip?: (error: DataError) => void;
  /** Is told what takes long. */
  readonly onNote?: (text: string) => void;
}

/** Enough that a batch mixes documents; it divides C4's 1,024 shards and most batch sizes. */
const DEFAULT_LANES = 8;

/** Of a loader that is not infinite: a lane has a file open. */
const MOST_FINITE_LANES = 64;

/** Rows of a lane in which documents are whole: the last one of a pass is not full. */
const FEWEST_ROWS = 16;

/** What a token of text takes, about; the default number of lanes is made with it. */
const TOKEN_BYTES = 4;

/** Reads, tokenises and packs in the calling thread; `prefetch` does the same ahead of time in workers. */
export class Loader {
  /** What is read, one of each source. */
  readonly sources: readonly OpenedSource[];
  readonly tokenizer: Tokenizer;
  /** Number of lanes, over all data ranks. */
  readonly lanes: number;
  readonly #options: LoaderOptions;
  readonly #infinite: boolean;
  readonly #identity: LoaderIdentity;
  /** Numbers of the lanes that rows come from in turn: all, or those of this data rank's group. */
  readonly #turn: readonly number[];
  /** Which of the data ranks that share these lanes this is, and how many they are. */
  readonly #dataRank: number;
  readonly #dataRanks: number;
  readonly #window: Int32Array;
  readonly #skipped: { count: number };
  readonly #packing: Packing;
  /** What `next` gives; who fills batches of its own needs none. */
  #batch: Batch | undefined;
  #lanes: MixedLane[] = [];
  /** Lanes of a finite loader that have no window left. */
  #ended = new Set<number>();
  /** Lanes that are read here. */
  #own: readonly number[] = [];
  #nextLane = 0;
  #step = 0;

  private constructor(sources: readonly OpenedSource[], tokenizer: Tokenizer, options: LoaderOptions, opened: Opening) {
    const { dataRank = 0, dataRanks = 1 } = options, { lanes } = opened;
    this.sources = sources;
    this.tokenizer = tokenizer;
    this.lanes = lanes;
    this.#options = options;
    this.#infinite = options.infinite ?? true;
    this.#identity = opened.identity;
    this.#skipped = opened.skipped;
    this.#packing = opened.packing;
    const groups = this.#infinite ? 1 : divisor(lanes, dataRanks), group = dataRank % groups;
    this.#turn = Array.from({ length: lanes / groups }, (_, n) => group + n * groups);
    [this.#dataRank, this.#dataRanks] = [Math.floor(dataRank / groups), dataRanks / groups];
    this.#window = new Int32Array(options.seqLen + 1);
  }

  /** Opens the tokenizer and finds the dataset's shards.
   * @throws {DataError} when there is something wrong with either, with a size, or with the state. */
  static async open(options: LoaderOptions): Promise<Loader> {
    for (const name of ["batchSize", "seqLen", "lanes", "dataRanks", "workers"] as const) {
      const value = options[name];
      if (value !== undefined && !(Number.isSafeInteger(value) && value > 0)) throw notACount(name, value);
    }
    const { infinite = true, state, shuffle, shuffleWindow, maxDocumentBytes: maxBytes, onNote } = options;
    const skipped = { count: 0 },
      leaveOut = (error: DataError) => {
        skipped.count++;
        options.onSkip?.(error);
      },
      onBad = options.skipBad ? leaveOut : refuse;
    const specs = sourcesOf(options.dataset);
    if (!infinite && specs.length > 1) throw finiteMixture();
    const tokenizer = await Tokenizer.open(options.tokenizer ?? SAMPLE), end = tokenizer.eosId;
    const packing = options.packing ?? (specs.some(({ data }) => isChat(data)) ? "best-fit" : "windows");
    const sources = await Promise.all(specs.map(async ({ name, data, weight }) => {
      const chats = isChat(data) ? new Chats(tokenizer, { ...options, leaveOut }) : undefined;
      const reading = { shuffle, shuffleWindow, maxBytes, onBad, onNote, end, textOf: chats?.textOf };
      const dataset = await openDataset(data, reading);
      return { name: name ?? dataset.name, dataset, weight, encoder: chats ?? tokenizer };
    }));
    const lanes = options.lanes ?? state?.lanes.length ?? defaultLanes(sources, packing, options);
    for (const { dataset } of sources) if (lanes > (dataset.documents ?? Infinity)) throw tooManyLanes(lanes, dataset);
    const chats = sources.map(({ encoder }) => encoder).find((encoder) => encoder instanceof Chats);
    const how = packing === "best-fit" ? { seqLen: options.seqLen, chats: chats?.identity } : undefined;
    const identity = identityOf(sources, tokenizer, how);
    const loader = new Loader(sources, tokenizer, options, { lanes, identity, skipped, packing });
    await loader.restore(state ?? beginState(identity, sources, lanes));
    return loader;
  }

  /** Numbers of the lanes that are read here. */
  get own(): readonly number[] {
    return this.#own;
  }

  /** Sees to it that every lane has a row, so that one without is found before the first batch and not in the middle of a run.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async checkLanes(): Promise<void> {
    for (const n of this.#own) await this.#lanes[n].readAhead(this.#window.length);
  }

  /** The next batch, or undefined at the end of a loader that is not infinite. It is valid until the next call. */
  async next(): Promise<Batch | undefined> {
    this.#batch ??= makeBatch(this.#options.batchSize, this.#options.seqLen);
    return await this.fill(this.#batch) ? this.#batch : undefined;
  }

  /** Puts the next batch where `batch` has its arrays (of the loader's B and T), but for rows of other workers; false at the end.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async fill(batch: Batch): Promise<boolean> {
    const { batchSize } = this.#options, first = this.#dataRank * batchSize, own = new Set(this.#own);
    /** Rows of all data ranks, and of this worker. */
    let [all, rows] = [0, 0];
    while (all < batchSize * this.#dataRanks && this.#ended.size < this.#turn.length) {
      const n = this.#turn[this.#nextLane];
      if (!this.#ended.has(n)) {
        if (!own.has(n)) all++;
        else if (await this.#lanes[n].take(this.#window)) {
          if (all >= first && all < first + batchSize) {
            putRow(batch, all - first, this.#window, { packing: this.#packing, eosId: this.tokenizer.eosId });
            rows++;
          }
          all++;
        } else this.#ended.add(n);
      }
      this.#nextLane = (this.#nextLane + 1) % this.#turn.length;
    }
    if (all === 0) return false;
    if (!this.#infinite) this.#blank(batch, rows);
    batch.rows = rows;
    batch.step = this.#step++;
    batch.skipped = this.#skipped.count;
    batch.cut = this.sources.reduce((sum, { encoder }) => sum + (encoder instanceof Chats ? encoder.cut : 0), 0);
    for (const n of this.#own) await this.#lanes[n].begin();
    batch.epochs = this.sources.map((_, source) => Math.min(...this.#own.map((n) => this.#lanes[n].epochs[source])));
    return true;
  }

  /** Where the loader stands: what it delivers from here on depends on nothing else. */
  state(): LoaderState {
    return {
      ...this.#identity,
      step: this.#step,
      nextLane: this.#nextLane,
      lanes: this.#lanes.map(({ place }) => place),
    };
  }

  /** Goes to where a loader stood, of the same data; the batch size and the sequence length may differ.
   * @throws {DataError} when the state is not one of this data, or has another number of lanes. */
  async restore(state: LoaderState): Promise<void> {
    checkState(state, this.#identity, this.lanes);
    await this[Symbol.asyncDispose]();
    const { onRead } = this.#options, weights = this.sources.map(({ weight }) => weight);
    const bestFit = this.#packing === "best-fit", window = this.#window.length;
    const common = { lanes: this.lanes, window, infinite: this.#infinite, bestFit };
    this.#lanes = state.lanes.map(({ rows, cursors }, number) => {
      const lanes = this.sources.map(({ dataset, encoder }, n) =>
        new Lane(dataset, encoder, {
          ...common,
          lane: number,
          from: cursors[n],
          onRead: onRead && ((shard, document) => onRead(n, shard, document)),
        })
      );
      return new MixedLane(lanes, weights, { number, rows });
    });
    this.#ended.clear();
    this.#nextLane = state.nextLane;
    this.#step = state.step;
    const { worker = 0, workers = 1 } = this.#options;
    this.#own = this.#turn.filter((n) => this.#isOwn(n)).filter((_, place) => place % workers === worker);
  }

  /** Does any row of this data rank ever come from the lane? Row r of any batch comes from lanes that are r + nextLane modulo `cycle`. A
   * finite loader has to know when the lanes of its group end. */
  #isOwn(lane: number): boolean {
    if (!this.#infinite) return true;
    const { batchSize } = this.#options, cycle = divisor(batchSize * this.#dataRanks, this.lanes);
    const row = (((lane - this.#nextLane) % cycle) + cycle) % cycle, first = this.#dataRank * batchSize;
    // The first row at or behind this rank's first that is `row` modulo `cycle`.
    return Math.ceil((first - row) / cycle) * cycle + row < first + batchSize;
  }

  /** Closes what is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane[Symbol.asyncDispose]()));
  }

  /** Rows from `row` on hold no text. */
  #blank(batch: Batch, row: number): void {
    const at = row * this.#options.seqLen;
    batch.tokens.fill(0, at);
    batch.documents.fill(0, at);
    batch.targets.fill(IGNORE_INDEX, at);
  }
}

/** What a loader has found out before it is made. */
interface Opening {
  readonly lanes: number;
  readonly identity: LoaderIdentity;
  readonly skipped: { count: number };
  readonly packing: Packing;
}

function defaultLanes(sources: readonly OpenedSource[], packing: Packing, options: LoaderOptions): number {
  const { batchSize, dataRanks = 1, seqLen, infinite = true } = options;
  if (!infinite) return Math.min(MOST_FINITE_LANES, sources[0].dataset.shards.length);
  // One rank reads all of them in any case, and each takes memory.
  const rows = batchSize * dataRanks, fits = dataRanks === 1 || DEFAULT_LANES % rows === 0;
  const most = fits ? DEFAULT_LANES : Math.ceil(DEFAULT_LANES / rows) * rows;
  const rowsOfLane = packing === "best-fit" ? FEWEST_ROWS : 1, bytes = TOKEN_BYTES * (seqLen + 1) * rowsOfLane;
  const enough = sources.map(({ dataset }) => dataset.lanes?.(most, bytes) ?? most);
  const least = Math.min(...enough);
  return dataRanks > 1 && least > rows ? least - least % rows : least;
}

/** How often the text is read and tokenised, over all data ranks, for a row that is used once; 1 where lanes and rows fit. */
export function timesRead(
  lanes: number,
  { batchSize, dataRanks = 1 }: Pick<LoaderOptions, "batchSize" | "dataRanks">,
): number {
  const cycle = divisor(batchSize * dataRanks, lanes);
  return dataRanks * Math.min(1, batchSize / cycle);
}

/** The greatest common divisor. */
function divisor(a: number, b: number): number {
  while (b > 0) [a, b] = [b, a % b];
  return a;
}

function finiteMixture(): DataError {
  return new DataError({
    code: "bad_option",
    what: "Cannot read a mixture to its end",
    expected: "one dataset, as the sources of a mixture end at different rows",
    fix: "name one for validation (validation.dataset)",
  });
}

function notACount(name: string, value: number): DataError {
  return new DataError({
    code: "bad_option",
    what: `Cannot load with ${name} = ${value}`,
    expected: "a whole number from 1 on",
    fix: `correct ${name}`,
  });
}

function tooManyLanes(lanes: number, { documents, description }: OpenedSource["dataset"]): DataError {
  return new DataError({
    code: "too_many_lanes",
    what: `Cannot share ${documents} documents among ${lanes} lanes (${description})`,
    expected: "at least one document for each lane",
    fix: `set data.lanes to at most ${documents}`,
  });
}
