/**
 * A ring of batches in shared memory: one thread fills slots, another uses them, neither waits in a loop or copies. The
 * state of the loader after each batch travels in its slot, so that the user's position is known whatever the filler
 * has read ahead.
 *
 * The memory: a few control words, then for each slot four [B, T] arrays of i32 and the state as f64.
 * @module
 */
import { type Batch, batchBytes, type LoaderState, makeBatch } from "./loader.ts";

/** Sizes of a ring, and its memory: all that the other thread needs to see the same ring. */
export interface RingSpec {
  readonly batchSize: number;
  readonly seqLen: number;
  readonly slots: number;
  /** The first state: gives the number of lanes, and what does not change. */
  readonly state: LoaderState;
  readonly memory: SharedArrayBuffer;
}

/** Control words, i32. `CHANGES` counts every event that a user of batches may wait for. */
const [FILLED, RELEASED, CHANGES, ENDED] = [0, 1, 2, 3];
const CONTROL_BYTES = 64;
/** Words of a state: step, next lane, rows and epoch of the batch, then a cursor for each lane. */
const HEAD_WORDS = 4;
const CURSOR_WORDS = 4;

interface Slot {
  readonly batch: Batch;
  readonly words: Float64Array;
}

/** One thread's view of the ring. */
export class Ring {
  readonly spec: RingSpec;
  readonly #control: Int32Array;
  readonly #slots: readonly Slot[];
  /** Batches that this thread has filled or used. */
  #count = 0;

  constructor(spec: RingSpec) {
    this.spec = spec;
    this.#control = new Int32Array(spec.memory, 0, CONTROL_BYTES / 4);
    const stateAt = batchBytes(spec.batchSize, spec.seqLen), bytes = slotBytes(spec);
    this.#slots = Array.from({ length: spec.slots }, (_, n) => {
      const at = CONTROL_BYTES + n * bytes;
      return {
        batch: makeBatch(spec.batchSize, spec.seqLen, spec.memory, at),
        words: new Float64Array(spec.memory, at + stateAt, (bytes - stateAt) / 8),
      };
    });
  }

  /** Makes the memory of a ring. */
  static make(spec: Omit<RingSpec, "memory">): Ring {
    return new Ring({
      ...spec,
      memory: new SharedArrayBuffer(CONTROL_BYTES + spec.slots * slotBytes(spec)),
    });
  }

  /** Filler: the next slot's batch, once it is free. */
  async free(): Promise<Batch> {
    const slots = this.spec.slots;
    for (;;) {
      const released = Atomics.load(this.#control, RELEASED);
      if (this.#count - released < slots) return this.#slots[this.#count % slots].batch;
      await wait(this.#control, RELEASED, released);
    }
  }

  /** Filler: hands on the batch that `free` gave, with the state after it. */
  publish(state: LoaderState): void {
    const { batch, words } = this.#slots[this.#count % this.spec.slots];
    words[0] = state.step;
    words[1] = state.nextLane;
    words[2] = batch.rows;
    words[3] = batch.epoch;
    state.lanes.forEach(({ epoch, shard, document, token }, lane) => {
      const at = HEAD_WORDS + CURSOR_WORDS * lane;
      words[at] = epoch;
      words[at + 1] = shard;
      words[at + 2] = document;
      words[at + 3] = token;
    });
    Atomics.store(this.#control, FILLED, ++this.#count);
    this.wake();
  }

  /** Filler: there is no batch after those published. */
  end(): void {
    Atomics.store(this.#control, ENDED, 1);
    this.wake();
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
      // whether it has ended is read first: what was published before that is then surely seen
      const over = stopped() || Atomics.load(this.#control, ENDED) === 1;
      if (Atomics.load(this.#control, FILLED) > this.#count) break;
      if (over) return undefined;
      await wait(this.#control, CHANGES, changes);
    }
    const { batch, words } = this.#slots[this.#count++ % this.spec.slots];
    batch.step = words[0] - 1;
    batch.rows = words[2];
    batch.epoch = words[3];
    return batch;
  }

  /** User: the state after the last batch that `next` gave. */
  state(): LoaderState {
    if (this.#count === 0) return this.spec.state;
    const { words } = this.#slots[(this.#count - 1) % this.spec.slots];
    const lanes = this.spec.state.lanes.map((_, lane) => {
      const at = HEAD_WORDS + CURSOR_WORDS * lane;
      return { epoch: words[at], shard: words[at + 1], document: words[at + 2], token: words[at + 3] };
    });
    return { ...this.spec.state, step: words[0], nextLane: words[1], lanes };
  }
}

/** Bytes of a batch with the state after it. */
function slotBytes({ batchSize, seqLen, state }: Omit<RingSpec, "memory">): number {
  return batchBytes(batchSize, seqLen) + 8 * (HEAD_WORDS + CURSOR_WORDS * state.lanes.length);
}

async function wait(control: Int32Array, word: number, value: number): Promise<void> {
  const result = Atomics.waitAsync(control, word, value);
  if (result.async) await result.value;
}
