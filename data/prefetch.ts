/**
 * The loader in workers: they read, inflate, parse and tokenise ahead of the step, into shared memory. `next` gives views
 * of it, so the training thread neither tokenises nor makes buffers.
 * @module
 */
import { type Batch, batchBytes } from "./batch.ts";
import { DataError, type DataProblem } from "./error.ts";
import { type LoaderOptions, timesRead } from "./loader.ts";
import type { LoaderState } from "./loader_state.ts";
import { ReadingPlaces } from "./reading.ts";
import { Ring, type RingSpec } from "./ring.ts";

/** Batches that are ready beside the one in use. */
export const AHEAD = 3;

/** How long a batch may take before it is told where the loader is, and how long until it is told again. */
const STALL_MS = 10_000;

/** Most documents that are left out of which each is told. */
const TOLD = 10;

/** Bytes of the batches that a loader holds ready.
 * @param ahead beside the one in use. */
export function prefetchBytes(batchSize: number, seqLen: number, ahead: number = AHEAD): number {
  return (ahead + 1) * batchBytes(batchSize, seqLen);
}

/** What to load, and how far ahead. */
export interface PrefetchOptions extends Omit<LoaderOptions, "onRead" | "onSkip" | "onNote" | "worker"> {
  /** Batches that are ready beside the one in use; default: {@linkcode AHEAD}. */
  readonly ahead?: number;
  /** Threads that read and tokenise, each lanes of its own; default 1. */
  readonly workers?: number;
}

/** What is told beside the batches. */
export interface PrefetchListener {
  /** Receives what is left out, and what takes long. Default: nobody does. */
  readonly notice?: (text: string) => void;
  /** Receives, every 10 seconds while a batch is waited for, the first one too, where the loader is. Default: who gets the notices. */
  readonly waiting?: (text: string) => void;
  /** Milliseconds in place of the 10 seconds. */
  readonly stallMs?: number;
}

/** What a worker says when it is open. */
export interface Opened {
  readonly state: LoaderState;
  /** Where the data comes from, for people. */
  readonly description: string;
  /** Number of its documents, where it is known. */
  readonly documents: number | undefined;
  /** Names of the shards of each source. */
  readonly shards: readonly (readonly string[])[];
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
}

/** To a worker: what to load, and then where to. */
export type Order =
  | { readonly open: LoaderOptions; readonly places: SharedArrayBuffer }
  | { readonly ring: RingSpec };

/** From a worker: that it is open, that each of its lanes has a row, that something is left out, or why it stopped. */
export type Message =
  | { readonly opened: Opened }
  | { readonly ready: true }
  | { readonly skipped: string }
  | { readonly note: string }
  | { readonly problem: DataProblem }
  | { readonly error: { readonly name: string; readonly message: string; readonly stack?: string } };

/** A loader that works ahead. Dispose of it with `await using`, or its workers keep the process alive. */
export interface Prefetcher extends Omit<Opened, "state" | "shards">, AsyncDisposable {
  /** Number of lanes. */
  readonly lanes: number;
  /** What it costs, over all data ranks, that lanes which somebody chose do not fit the rows; `undefined` where they fit, and where the
   * number is the default, which is the best for this data. */
  readonly lanesCost: string | undefined;
  /** Names of the sources. */
  readonly sources: readonly string[];
  /** The next batch, or undefined at the end of a loader that is not infinite. It is valid until the next call; do not
   * call again before that has settled.
   * @throws {DataError} as `Loader` does, after the batches before it were delivered. */
  next(): Promise<Batch | undefined>;
  /** Where the user of the batches stands, whatever was read ahead: the state after the last batch from `next`. */
  state(): LoaderState;
}

/** Starts a loader in workers.
 * @throws {DataError} as `Loader.open` does. */
export async function prefetch(options: PrefetchOptions, listener: PrefetchListener = {}): Promise<Prefetcher> {
  const { ahead = AHEAD, workers: count = 1, ...load } = options;
  const { notice = () => {}, waiting = notice, stallMs = STALL_MS } = listener;
  if (!(Number.isSafeInteger(ahead) && ahead > 0)) {
    throw new DataError({
      code: "bad_option",
      what: `Cannot read ${ahead} batches ahead`,
      expected: "a whole number from 1 on",
      fix: "correct ahead (training.dataloader.prefetch_factor); 2 to 4 is usual",
    });
  }
  const crew = new Crew(load, count, notice);
  /** Says for as long as `work` goes on where the awaited worker reads. */
  const watched = async <T>(work: Promise<T>, awaited: () => number | undefined): Promise<T> => {
    let since = performance.now(), last = since;
    const timer = setInterval(() => {
      const worker = awaited(), now = performance.now(), isLate = now - last > 2 * stallMs;
      last = now;
      // This thread was at work, and has not looked yet at what may have come meanwhile.
      if (isLate) since = now;
      else if (worker !== undefined) {
        waiting(`waiting for data: ${crew.where(worker)}, since ${Math.round((now - since) / 1000)} s`);
      }
    }, stallMs);
    try {
      return await work;
    } finally {
      clearInterval(timer);
    }
  };
  let opened: Opened;
  try {
    opened = await watched(crew.ready, () => crew.awaited);
  } catch (error) {
    crew.close();
    throw error;
  }
  const { state, shards: _, ...facts } = opened, { batchSize, seqLen } = options;
  const ring = Ring.make({ batchSize, seqLen, slots: ahead + 1, workers: count, state });
  crew.fill(ring);
  const lanes = state.lanes.length;
  return {
    ...facts,
    lanes,
    lanesCost: costOfLanes(lanes, load),
    sources: state.sources.map(({ name }) => name),
    async next(): Promise<Batch | undefined> {
      const isReady = ring.awaited === undefined, coming = ring.next(() => crew.failure !== undefined);
      const batch = await (isReady ? coming : watched(coming, () => ring.awaited));
      if (batch === undefined && crew.failure !== undefined) throw crew.failure;
      return batch;
    },
    state: () => ring.state(),
    [Symbol.asyncDispose](): Promise<void> {
      crew.close();
      return Promise.resolve();
    },
  };
}

/** The workers of a loader. */
class Crew {
  /** What the first of them says, once all have looked at their lanes. */
  readonly ready: Promise<Opened>;
  /** Why no more batches come. */
  failure: Error | undefined;
  readonly #workers: readonly Worker[];
  readonly #places: ReadingPlaces;
  /** What each says. */
  readonly #opened: Opened[] = [];
  /** Those that have not looked at their lanes. */
  readonly #behind: Set<number>;
  #ring: Ring | undefined;
  #told = 0;

  constructor(load: LoaderOptions, count: number, notice: (text: string) => void) {
    const tokenizer = load.tokenizer instanceof URL ? load.tokenizer.href : load.tokenizer;
    const { promise, resolve, reject } = Promise.withResolvers<Opened>(), places = ReadingPlaces.make(count);
    this.#places = places;
    this.#behind = new Set(Array(count).keys());
    this.#workers = Array.from({ length: count }, (_, n) => {
      const worker = new Worker(new URL("./prefetch_worker.ts", import.meta.url), { type: "module" });
      const fail = (error: Error) => {
        this.#fail(error);
        reject(error);
      };
      worker.onmessage = ({ data }: MessageEvent<Message>) => {
        if ("opened" in data) this.#opened[n] = data.opened;
        else if ("ready" in data) {
          this.#behind.delete(n);
          if (this.#behind.size === 0) resolve(this.#opened[0]);
        } else if ("skipped" in data) this.#tell(data.skipped, notice);
        else if ("note" in data) notice(data.note);
        else if ("problem" in data) fail(new DataError(data.problem));
        else fail(Object.assign(new Error(data.error.message), data.error));
      };
      worker.onerror = (event) => {
        event.preventDefault();
        fail(new Error(`The loader's worker failed: ${event.message}`));
      };
      const open = { ...load, tokenizer, worker: n, workers: count };
      worker.postMessage({ open, places: places.memory } satisfies Order);
      return worker;
    });
    this.ready = promise;
    promise.catch(() => {}); // it is awaited by who opens
  }

  /** The first that has not looked at its lanes. */
  get awaited(): number | undefined {
    const [first] = this.#behind;
    return first;
  }

  /** Where a worker reads, for people. */
  where(worker: number): string {
    const place = this.#places.of(worker), opened = this.#opened[worker];
    if (opened === undefined || place === undefined) return "its files and the tokenizer are opened";
    return `shard ${opened.shards[place.source][place.shard]}, document ${place.document + 1}`;
  }

  /** Lets the workers fill a ring. */
  fill(ring: Ring): void {
    this.#ring = ring;
    for (const worker of this.#workers) worker.postMessage({ ring: ring.spec } satisfies Order);
  }

  close(): void {
    for (const worker of this.#workers) worker.terminate();
    this.#fail(new Error("The loader is closed"));
  }

  #fail(error: Error): void {
    this.failure ??= error;
    this.#ring?.wake();
  }

  #tell(skipped: string, notice: (text: string) => void): void {
    this.#told++;
    if (this.#told <= TOLD) notice(`left out: ${skipped}`);
    if (this.#told === TOLD) notice("left out: more is counted, and no longer told one by one");
  }
}

/** What it costs that lanes and rows do not fit, where the lanes were chosen: now, or by the run that a checkpoint is of. */
function costOfLanes(lanes: number, load: LoaderOptions): string | undefined {
  const { batchSize, dataRanks = 1, infinite = true } = load, isChosen = load.lanes !== undefined;
  const times = infinite && (isChosen || load.state) ? timesRead(lanes, load) : 1;
  if (times === 1) return undefined;
  const rows = batchSize * dataRanks, fitting = rows * Math.max(1, Math.round(lanes / rows));
  return `data: ${lanes} lanes for ${rows} rows of ${dataRanks} data ranks: all text is read and tokenised ${
    Number(times.toFixed(2))
  } ` +
    `times, as ranks share lanes${isChosen ? `; with data.lanes = ${fitting} it is once` : ""}`;
}
