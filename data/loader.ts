/**
 * The loader: lanes side by side become rows of a batch. The rows of a run are numbered through; row n comes from lane
 * n mod lanes, so the batch size does not change what is read. A row is a window of seq_len + 1 tokens, `w`: its tokens
 * are w[0 .. T-1], its targets w[1 .. T]; windows do not overlap.
 *
 * Shapes: B rows, T tokens of a row.
 * @module
 */
import { type Dataset, type DatasetSpec, openDataset, SAMPLE } from "./dataset.ts";
import { DataError } from "./error.ts";
import { beginning, type Cursor, Lane, share } from "./lane.ts";
import { Tokenizer } from "./tokenizer.ts";

/** What to load, and how. */
export interface LoaderOptions {
  readonly dataset: DatasetSpec;
  /** Folder of the tokenizer, or `bytes`; default: the sample's. */
  readonly tokenizer?: string | URL;
  /** Seed of the order of text files' documents, another one in each epoch; default: as they lie. */
  readonly shuffle?: number;
  /** B, rows of a batch: of this data rank's part, where there are several. */
  readonly batchSize: number;
  /** Which of `dataRanks` loaders this is: each has its B consecutive rows of every batch of dataRanks * B. Default: the only one. */
  readonly dataRank?: number;
  /** Number of loaders that share the rows of a batch. */
  readonly dataRanks?: number;
  /** T, tokens of a row. */
  readonly seqLen: number;
  /** Independent streams of documents. Default: those of `state`, else 8, or as many as text files of one's own are enough for. */
  readonly lanes?: number;
  /** Whether to begin again after the last document; default: true. */
  readonly infinite?: boolean;
  /** Where to go on, from `state()`; default: at the beginning. */
  readonly state?: LoaderState;
}

/** Inputs of one step, each [B, T] in row-major order. */
export interface Batch {
  readonly tokens: Int32Array;
  /** The token after each; IGNORE_INDEX in rows that pad the last batch. */
  readonly targets: Int32Array;
  /** 0 .. T-1 in each row. */
  readonly positions: Int32Array;
  /** Number of EOS tokens before each token in its row: tokens with one number belong to one document. */
  readonly documents: Int32Array;
  /** Rows that hold text: B, but in the last batch of a loader that is not infinite, where other data ranks may have all of them. */
  rows: number;
  /** Batches before this one; goes on after a restore. */
  step: number;
  /** Passes over the text before the next token: of the lanes that are read here, all have made as many. With a fraction where the
   * number of documents is known, else complete ones. */
  epoch: number;
}

/** Where a loader stands; plain JSON. */
export interface LoaderState {
  readonly version: 1;
  /** Name of the dataset. */
  readonly dataset: string;
  /** Number of its shards. */
  readonly shards: number;
  /** Tells its text and order from others, where shards do not. */
  readonly identity?: string;
  /** Batches that were delivered. */
  readonly step: number;
  /** The lane that the next row comes from. */
  readonly nextLane: number;
  /** Of lanes that give rows to other data ranks alone, the place where this loader began. */
  readonly lanes: readonly Cursor[];
}

/** Target of tokens that do not count. */
export const IGNORE_INDEX = -100;

/** Enough that a batch mixes documents; it divides C4's 1,024 shards and most batch sizes. */
const DEFAULT_LANES = 8;

/** What a token of text takes, about; the default number of lanes is made with it. */
const TOKEN_BYTES = 4;

/** Bytes of the arrays of a batch: 4 * B * T words of four bytes. */
export function batchBytes(batchSize: number, seqLen: number): number {
  return 16 * batchSize * seqLen;
}

/** Makes a batch of zeros, over `buffer` where given, of {@linkcode batchBytes}. */
export function makeBatch(batchSize: number, seqLen: number, buffer?: ArrayBufferLike, byteOffset = 0): Batch {
  const size = batchSize * seqLen;
  const memory = buffer ?? new ArrayBuffer(batchBytes(batchSize, seqLen));
  const [tokens, targets, positions, documents] = [0, 1, 2, 3].map((n) =>
    new Int32Array(memory, byteOffset + 4 * size * n, size)
  );
  for (let i = 0; i < size; i++) positions[i] = i % seqLen;
  return { tokens, targets, positions, documents, rows: 0, step: 0, epoch: 0 };
}

/** Reads, tokenises and packs in the calling thread; `prefetch` does the same ahead of time in a worker. */
export class Loader {
  readonly dataset: Dataset;
  readonly tokenizer: Tokenizer;
  readonly #infinite: boolean;
  readonly #dataRank: number;
  readonly #dataRanks: number;
  readonly #window: Int32Array;
  readonly #batchSize: number;
  /** What `next` gives; who fills batches of its own needs none. */
  #batch: Batch | undefined;
  #lanes: Lane[] = [];
  /** Lanes of a finite loader that have no window left. */
  #ended = new Set<Lane>();
  /** Lanes whose windows all go to other data ranks: nothing is read of them. */
  #foreign = new Set<Lane>();
  #nextLane = 0;
  #step = 0;

  private constructor(dataset: Dataset, tokenizer: Tokenizer, options: LoaderOptions) {
    this.dataset = dataset;
    this.tokenizer = tokenizer;
    this.#infinite = options.infinite ?? true;
    this.#dataRank = options.dataRank ?? 0;
    this.#dataRanks = options.dataRanks ?? 1;
    this.#window = new Int32Array(options.seqLen + 1);
    this.#batchSize = options.batchSize;
  }

  /** Opens the tokenizer and finds the dataset's shards.
   * @throws {DataError} when there is something wrong with either, with a size, or with the state. */
  static async open(options: LoaderOptions): Promise<Loader> {
    for (const name of ["batchSize", "seqLen", "lanes", "dataRanks"] as const) {
      const value = options[name];
      if (value !== undefined && !(Number.isSafeInteger(value) && value > 0)) throw notACount(name, value);
    }
    const dataset = await openDataset(options.dataset, options);
    const loader = new Loader(dataset, await Tokenizer.open(options.tokenizer ?? SAMPLE), options);
    const lanes = options.lanes ?? options.state?.lanes.length ??
      dataset.lanes?.(DEFAULT_LANES, TOKEN_BYTES * (options.seqLen + 1)) ?? DEFAULT_LANES;
    if (lanes > (dataset.documents ?? Infinity)) throw tooManyLanes(lanes, dataset);
    await loader.restore(options.state ?? start(dataset, lanes), lanes);
    return loader;
  }

  /** Sees to it that every lane has a row, so that one without is found before the first batch and not in the middle of a run.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async checkLanes(): Promise<void> {
    for (const lane of this.#lanes) if (!this.#foreign.has(lane)) await lane.readAhead(this.#window.length);
  }

  /** The next batch, or undefined at the end of a loader that is not infinite. It is valid until the next call. */
  async next(): Promise<Batch | undefined> {
    this.#batch ??= makeBatch(this.#batchSize, this.#window.length - 1);
    return await this.fill(this.#batch) ? this.#batch : undefined;
  }

  /** Puts the next batch where `batch` has its arrays (of the loader's B and T); false at the end.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async fill(batch: Batch): Promise<boolean> {
    const seqLen = this.#window.length - 1, batchSize = batch.tokens.length / seqLen;
    const first = this.#dataRank * batchSize;
    /** Rows of all data ranks, and of this one. */
    let [all, rows] = [0, 0];
    while (all < batchSize * this.#dataRanks && this.#ended.size < this.#lanes.length) {
      const lane = this.#lanes[this.#nextLane];
      if (!this.#ended.has(lane)) {
        if (this.#foreign.has(lane) || await lane.take(this.#window)) {
          if (all >= first && all < first + batchSize) this.#pack(batch, rows++);
          all++;
        } else this.#ended.add(lane);
      }
      this.#nextLane = (this.#nextLane + 1) % this.#lanes.length;
    }
    if (all === 0) return false;
    batch.tokens.fill(0, rows * seqLen);
    batch.documents.fill(0, rows * seqLen);
    batch.targets.fill(IGNORE_INDEX, rows * seqLen);
    batch.rows = rows;
    batch.step = this.#step++;
    for (const lane of this.#lanes) if (!this.#foreign.has(lane)) await lane.begin();
    batch.epoch = this.#lanes.reduce(
      (n, lane) => this.#foreign.has(lane) ? n : Math.min(n, lane.epoch),
      Infinity,
    );
    return true;
  }

  /** Where the loader stands: what it delivers from here on depends on nothing else. */
  state(): LoaderState {
    return {
      version: 1,
      dataset: this.dataset.name,
      shards: this.dataset.shards.length,
      ...identityOf(this.dataset),
      step: this.#step,
      nextLane: this.#nextLane,
      lanes: this.#lanes.map(({ cursor }) => cursor),
    };
  }

  /** Goes to where a loader stood, of the same dataset; the batch size and the sequence length may differ.
   * @throws {DataError} when the state is not one of this dataset, or has another number of lanes. */
  async restore(state: LoaderState, lanes: number = this.#lanes.length): Promise<void> {
    check(state, this.dataset, lanes);
    await this[Symbol.asyncDispose]();
    const options = { lanes, window: this.#window.length, infinite: this.#infinite };
    this.#lanes = state.lanes.map((from, lane) => new Lane(this.dataset, this.tokenizer, { ...options, lane, from }));
    this.#ended.clear();
    this.#nextLane = state.nextLane;
    this.#step = state.step;
    this.#foreign = new Set(this.#infinite ? this.#lanes.filter((_, lane) => !this.#isOwn(lane)) : []);
  }

  /** Does any row of this data rank ever come from the lane? Row r of any batch comes from lanes that are r + nextLane modulo `cycle`. A
   * finite loader has to know when the lanes of others end. */
  #isOwn(lane: number): boolean {
    const batchSize = this.#batchSize;
    let [cycle, rest] = [batchSize * this.#dataRanks, this.#lanes.length];
    while (rest > 0) [cycle, rest] = [rest, cycle % rest];
    const row = (((lane - this.#nextLane) % cycle) + cycle) % cycle, first = this.#dataRank * batchSize;
    // The first row at or behind this rank's first that is `row` modulo `cycle`.
    return Math.ceil((first - row) / cycle) * cycle + row < first + batchSize;
  }

  /** Closes what is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#lanes.map((lane) => lane[Symbol.asyncDispose]()));
  }

  /** Cuts the window into row `row`. */
  #pack(batch: Batch, row: number): void {
    const seqLen = this.#window.length - 1;
    const at = row * seqLen;
    batch.tokens.set(this.#window.subarray(0, seqLen), at);
    batch.targets.set(this.#window.subarray(1), at);
    let document = 0;
    for (let t = 0; t < seqLen; t++) {
      batch.documents[at + t] = document;
      if (this.#window[t] === this.tokenizer.eosId) document++;
    }
  }
}

/** The state of all data ranks, out of what each of them says: a lane is where the rank is that reads it, as others leave it behind.
 * @throws {RangeError} when they are not of one loader. */
export function mergeStates(states: readonly LoaderState[]): LoaderState {
  const [first] = states, { shards } = first, count = first.lanes.length;
  const same = (s: LoaderState) => s.step === first.step && s.nextLane === first.nextLane && s.lanes.length === count;
  if (!states.every(same)) {
    throw new RangeError("Cannot merge states of loaders that do not stand at one step: expected those of one run");
  }
  const lanes = first.lanes.map((_, lane) => {
    const order = share(lane, count, shards).shards;
    const place = ({ epoch, shard, document, token }: Cursor) => [epoch, order.indexOf(shard), document, token];
    return states.map((s) => s.lanes[lane]).reduce((a, b) => {
      const [x, y] = [place(a), place(b)], at = x.findIndex((n, i) => n !== y[i]);
      return at >= 0 && y[at] > x[at] ? b : a;
    });
  });
  return { ...first, lanes };
}

function start(dataset: Dataset, lanes: number): LoaderState {
  const shards = dataset.shards.length;
  const cursors = Array.from({ length: lanes }, (_, lane) => beginning(lane, lanes, shards));
  return {
    ...{ version: 1, dataset: dataset.name, shards, ...identityOf(dataset) },
    ...{ step: 0, nextLane: 0, lanes: cursors },
  };
}

function identityOf({ identity }: Dataset): Pick<LoaderState, "identity"> {
  return identity === undefined ? {} : { identity };
}

function check(state: LoaderState, dataset: Dataset, lanes: number): void {
  const wrong = (what: string, expected: string, fix: string) =>
    new DataError({ code: "bad_state", what: `Cannot use the loader's state: ${what}`, expected, fix });
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const count = dataset.shards.length;
  if (state?.version !== 1 || !Array.isArray(state.lanes)) {
    throw wrong("it is not one", "what state() gives, version 1", "pass on the state unchanged");
  }
  if (state.dataset !== dataset.name || state.shards !== count) {
    throw wrong(
      `it belongs to ${JSON.stringify(state.dataset)} with ${state.shards} shards`,
      `${JSON.stringify(dataset.name)} with ${count} shards`,
      "use the same dataset, with all its shards, or start without the state",
    );
  }
  if (state.identity !== dataset.identity) {
    throw wrong(
      "it belongs to other text, or to another order of it",
      "the same files, held-out share, data.text_field, data.shuffle and debug.seed (options field, shuffle and seed)",
      'restore them, or begin the text anew: checkpoint.exclude_from_loading = ["dataloader"]',
    );
  }
  if (state.lanes.length !== lanes) {
    throw wrong(`it has ${state.lanes.length} lanes`, `${lanes} lanes`, `set data.lanes to ${state.lanes.length}`);
  }
  const sound = isCount(state.step) && isCount(state.nextLane) && state.nextLane < lanes &&
    state.lanes.every(({ epoch, shard, document, token }, lane) =>
      [epoch, document, token].every(isCount) && share(lane, lanes, count).shards.includes(shard)
    );
  if (!sound) throw wrong("a number in it is impossible", "what state() gives", "pass on the state unchanged");
}

function notACount(name: string, value: number): DataError {
  return new DataError({
    code: "bad_option",
    what: `Cannot load with ${name} = ${value}`,
    expected: "a whole number from 1 on",
    fix: `correct ${name}`,
  });
}

function tooManyLanes(lanes: number, dataset: Dataset): DataError {
  return new DataError({
    code: "too_many_lanes",
    what: `Cannot share ${dataset.documents} documents among ${lanes} lanes (${dataset.description})`,
    expected: "at least one document for each lane",
    fix: `set data.lanes to at most ${dataset.documents}`,
  });
}
