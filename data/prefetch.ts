/**
 * The loader in a worker: reads, inflates, parses and tokenises ahead of the step, into shared memory. `next` gives views
 * of it, so the training thread neither tokenises nor makes buffers.
 * @module
 */
import { DataError, type DataProblem } from "./error.ts";
import { type Batch, batchBytes, type LoaderOptions, type LoaderState } from "./loader.ts";
import { Ring, type RingSpec } from "./ring.ts";

/** Batches that are ready beside the one in use. */
export const AHEAD = 3;

/** Bytes of the batches that a loader holds ready, where {@linkcode AHEAD} is left alone. */
export function prefetchBytes(batchSize: number, seqLen: number): number {
  return (AHEAD + 1) * batchBytes(batchSize, seqLen);
}

/** What to load, and how far ahead. */
export interface PrefetchOptions extends LoaderOptions {
  /** Batches that are ready beside the one in use; default: {@linkcode AHEAD}. */
  readonly ahead?: number;
}

/** What the worker says once it is open. */
export interface Opened {
  readonly ring: RingSpec;
  /** Where the data comes from, for people. */
  readonly description: string;
  /** Number of its documents, where it is known. */
  readonly documents: number | undefined;
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
}

/** From the worker: that it is open, or why it stopped. */
export type Message =
  | { readonly opened: Opened }
  | { readonly problem: DataProblem }
  | { readonly error: { readonly name: string; readonly message: string; readonly stack?: string } };

/** A loader that works ahead. Dispose of it with `await using`, or its worker keeps the process alive. */
export interface Prefetcher extends Omit<Opened, "ring">, AsyncDisposable {
  /** Number of lanes. */
  readonly lanes: number;
  /** The next batch, or undefined at the end of a loader that is not infinite. It is valid until the next call; do not
   * call again before that has settled.
   * @throws {DataError} as `Loader` does, after the batches before it were delivered. */
  next(): Promise<Batch | undefined>;
  /** Where the user of the batches stands, whatever was read ahead: the state after the last batch from `next`. */
  state(): LoaderState;
}

/** Starts a loader in a worker.
 * @throws {DataError} as `Loader.open` does. */
export async function prefetch(options: PrefetchOptions): Promise<Prefetcher> {
  const ahead = options.ahead ?? AHEAD;
  if (!(Number.isSafeInteger(ahead) && ahead > 0)) {
    throw new DataError({
      code: "bad_option",
      what: `Cannot read ${ahead} batches ahead`,
      expected: "a whole number from 1 on",
      fix: "correct ahead; 2 to 4 is usual",
    });
  }
  let ring: Ring | undefined;
  let failure: Error | undefined;
  const { promise, resolve, reject } = Promise.withResolvers<Opened>();
  const fail = (error: Error) => {
    failure ??= error;
    ring?.wake();
    reject(failure);
  };
  promise.catch(() => {}); // a failure after opening is told by next() alone
  const worker = new Worker(new URL("./prefetch_worker.ts", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<Message>) => {
    if ("opened" in data) resolve(data.opened);
    else {fail(
        "problem" in data ? new DataError(data.problem) : Object.assign(new Error(data.error.message), data.error),
      );}
  };
  worker.onerror = (event) => {
    event.preventDefault();
    fail(new Error(`The loader's worker failed: ${event.message}`));
  };
  const tokenizer = options.tokenizer instanceof URL ? options.tokenizer.href : options.tokenizer;
  worker.postMessage({ ...options, tokenizer, ahead });

  let opened: Opened;
  try {
    opened = await promise;
  } catch (error) {
    worker.terminate();
    throw error;
  }
  const stopped = () => failure !== undefined;
  const open = ring = new Ring(opened.ring);
  const { description, documents, vocabSize, bosId, eosId } = opened;
  return {
    description,
    documents,
    vocabSize,
    bosId,
    eosId,
    lanes: opened.ring.state.lanes.length,
    async next(): Promise<Batch | undefined> {
      const batch = await open.next(stopped);
      if (batch === undefined && failure !== undefined) throw failure;
      return batch;
    },
    state: () => open.state(),
    [Symbol.asyncDispose](): Promise<void> {
      worker.terminate();
      fail(new Error("The loader is closed"));
      return Promise.resolve();
    },
  };
}
