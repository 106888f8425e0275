/**
 * Where the workers of a loader read: told by each of them in shared memory, and seen by who waits for a batch, also before there is a first.
 * @module
 */

/** Where a worker reads. */
export interface Reading {
  readonly source: number;
  readonly shard: number;
  /** Place of the document in the shard. */
  readonly document: number;
}

const WORDS = 3;
/** In place of a source: the worker has not begun. */
const NOWHERE = -1;

/** One thread's view of these places. */
export class ReadingPlaces {
  /** All that another thread needs to see the same. */
  readonly memory: SharedArrayBuffer;
  readonly #words: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Float64Array(memory);
  }

  /** Makes the memory of the places, at which no worker is yet. */
  static make(workers: number): ReadingPlaces {
    const places = new ReadingPlaces(new SharedArrayBuffer(8 * WORDS * workers));
    places.#words.fill(NOWHERE);
    return places;
  }

  /** Worker: tells what it reads next. */
  tell(worker: number, { source, shard, document }: Reading): void {
    const at = WORDS * worker;
    this.#words[at] = source;
    this.#words[at + 1] = shard;
    this.#words[at + 2] = document;
  }

  /** What a worker reads; undefined: it has not begun. */
  of(worker: number): Reading | undefined {
    const [source, shard, document] = this.#words.subarray(WORDS * worker);
    return source === NOWHERE ? undefined : { source, shard, document };
  }
}
