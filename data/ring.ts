/**
 * A ring of batches in shared memory: worker threads fill slots, each its own rows of every batch, another thread uses them;
 * neither waits in a loop or copies. The state of the loader after each batch travels in its slot, so that the user's position
 * is known whatever the workers have read ahead.
 *
 * The memory: a few control words, then for each slot four [B, T] arrays of i32 and, as f64, what each worker tells of the batch, and
 * the state.
 * @module
 */
import { type Batch, batchBytes, makeBatch } from "./batch.ts";
import type { LoaderState } from "./loader_state.ts";

/** Sizes of a ring, and its memory: all that another thread needs to see the same ring. */
export interface RingSpec {
  readonly batchSize: number;
  readonly seqLen: number;
  readonly slots: number;
  /** Threads that fill it. */
  readonly workers: number;
  /** The first state: gives the numbers of sources and lanes, and what does not change. */
  readonly state: LoaderState;
  readonly memory: SharedArrayBuffer;
}

/** Control words, i32: those of all, then for each worker how many batches it has filled. `CHANGES` counts every event that a user of
 * batches may wait for. */
const [RELEASED, CHANGES, FILLED] = [0, 1, 2];
/** What a worker tells of a batch: whether it has ended, its rows, documents left out, those cut; then its epoch of each source. */
const [OVER, ROWS, SKIPPED, CUT, EPOCHS] = [0, 1, 2, 3, 4];
/** Words of a state: step and next lane; then for each lane its rows, and a cursor for each source. */
const STATE_WORDS = 2;
const CURSOR_WORDS = 4;

interface Slot {
  readonly batch: Batch;
  /** What each worker tells. */
  readonly told: Float64Array;
  readonly state: Float64Array;
}

/** One thread's view of the ring. */
export class Ring {
  readonly spec: RingSpec;
  readonly #control: Int32Array;
  readonly #slots: readonly Slot[];
  /** Words of what a worker tells, and of a lane. */
  readonly #toldWords: number;
  readonly #laneWords: number;
  /** Batches that this thread has filled or used. */
  #count = 0;

  constructor(spec: RingSpec) {
    const { batchSize, seqLen, workers, memory, state } = spec, sizes = sizesOf(spec), sources = state.sources.length;
    this.spec = spec;
    this.#control = new Int32Array(memory, 0, FILLED + workers);
    this.#toldWords = EPOCHS + sources;
    this.#laneWords = 1 + CURSOR_WORDS * sources;
    const told = this.#toldWords * workers, words = STATE_WORDS + this.#laneWords * state.lanes.length;
    this.#slots = Array.from({ length: spec.slots }, (_, n) => {
      const at = sizes.control + n * sizes.slot, toldAt = at + batchBytes(batchSize, seqLen);
      return {
        batch: makeBatch(batchSize, seqLen, memory, at),
        told: new Float64Array(memory, toldAt, told),
        state: new Float64Array(memory, toldAt + 8 * told, words),
      };
    });
  }

  /** Makes the memory of a ring. */
  static make(spec: Omit<RingSpec, "memory">): Ring {
    const { control, slot } = sizesOf(spec);
    const ring = new Ring({ ...spec, memory: new SharedArrayBuffer(control + spec.slots * slot) });
    for (const { state } of ring.#slots) {
      spec.state.lanes.forEach((_, lane) => ring.#writeLane(state, spec.state, lane));
    }
    return ring;
  }

  /** Worker: the next slot's batch, once it is free. */
  async free(): Promise<Batch> {
    const slots = this.spec.slots;
    for (;;) {
      const released = Atomics.load(this.#control, RELEASED);
      if (this.#count - released < slots) return this.#slots[this.#count % slots].batch;
      await wait(this.#control, RELEASED, released);
    }
  }

  /** Worker: hands on its rows of the batch that `free` gave, with the state after it.
   * @param own numbers of its lanes. */
  publish(worker: number, state: LoaderState, own: readonly number[]): void {
    const { batch, told, state: words } = this.#slots[this.#count % this.spec.slots], at = worker * this.#toldWords;
    told[at + OVER] = 0;
    told[at + ROWS] = batch.rows;
    told[at + SKIPPED] = batch.skipped;
    told[at + CUT] = batch.cut;
    batch.epochs.forEach((epoch, source) => told[at + EPOCHS + source] = epoch);
    if (worker === 0) [words[0], words[1]] = [state.step, state.nextLane];
    for (const lane of own) this.#writeLane(words, state, lane);
    this.#filled(worker);
  }

  /** Worker: it has no rows in the slot that `free` gave, nor later. */
  end(worker: number): void {
    this.#slots[this.#count % this.spec.slots].told[worker * this.#toldWords + OVER] = 1;
    this.#filled(worker);
  }

  #filled(worker: number): void {
    Atomics.store(this.#control, FILLED + worker, ++this.#count);
    this.wake();
  }

  #writeLane(words: Float64Array, state: LoaderState, lane: number): void {
    let at = STATE_WORDS + this.#laneWords * lane;
    const { rows, cursors } = state.lanes[lane];
    words[at++] = rows;
    for (const { epoch, shard, document, token } of cursors) {
      words[at++] = epoch;
      words[at++] = shard;
      words[at++] = document;
      words[at++] = token;
    }
  }

  /** Lets the user of batches look again. */
  wake(): void {
    Atomics.add(this.#control, CHANGES, 1);
    Atomics.notify(this.#control, CHANGES);
  }

  /** User: gives back the slot of the last batch, and waits for the next; undefined at the end, or when `stopped` says so
   * and all that was published is used (call `wake` when that changes). */
  async next(stopped: () => boolean): Promise<Batch | undefined> {
    if (this.#count > 0) {
      Atomics.store(this.#control, RELEASED, this.#count);
      Atomics.notify(this.#control, RELEASED);
    }
    for (;;) {
      const changes = Atomics.load(this.#control, CHANGES);
      const over = stopped(); // it is asked first: what was published before that is then surely seen
      if (this.awaited === undefined) break;
      if (over) return undefined;
      await wait(this.#control, CHANGES, changes);
    }
    const { batch, told, state } = this.#slots[this.#count % this.spec.slots], { workers } = this.spec;
    const of = (word: number) => Array.from({ length: workers }, (_, n) => told[n * this.#toldWords + word]);
    if (of(OVER).some((over) => over === 1)) return undefined; // the slot is kept: all later calls end here
    this.#count++;
    batch.step = state[0] - 1;
    batch.rows = of(ROWS).reduce((sum, rows) => sum + rows, 0);
    batch.skipped = of(SKIPPED).reduce((sum, skipped) => sum + skipped, 0);
    batch.cut = of(CUT).reduce((sum, cut) => sum + cut, 0);
    batch.epochs = this.spec.state.sources.map((_, source) => Math.min(...of(EPOCHS + source)));
    return batch;
  }

  /** User: the first worker that has not filled its rows of the next batch; undefined: the batch is there. */
  get awaited(): number | undefined {
    for (let worker = 0; worker < this.spec.workers; worker++) {
      if (Atomics.load(this.#control, FILLED + worker) <= this.#count) return worker;
    }
    return undefined;
  }

  /** User: the state after the last batch that `next` gave. */
  state(): LoaderState {
    if (this.#count === 0) return this.spec.state;
    const words = this.#slots[(this.#count - 1) % this.spec.slots].state;
    const lanes = this.spec.state.lanes.map(({ cursors }, lane) => {
      const at = STATE_WORDS + this.#laneWords * lane;
      return {
        rows: words[at],
        cursors: cursors.map((_, source) => {
          const [epoch, shard, document, token] = words.subarray(at + 1 + CURSOR_WORDS * source);
          return { epoch, shard, document, token };
        }),
      };
    });
    return { ...this.spec.state, step: words[0], nextLane: words[1], lanes };
  }
}

/** Bytes of the control words, and of a slot. */
function sizesOf({ batchSize, seqLen, workers, state }: Omit<RingSpec, "memory">) {
  const control = 64 * Math.ceil(4 * (FILLED + workers) / 64), sources = state.sources.length;
  const words = workers * (EPOCHS + sources) + STATE_WORDS + state.lanes.length * (1 + CURSOR_WORDS * sources);
  return { control, slot: batchBytes(batchSize, seqLen) + 8 * words };
}

async function wait(control: Int32Array, word: number, value: number): Promise<void> {
  const result = Atomics.waitAsync(control, word, value);
  if (result.async) await result.value;
}
