/** What the ranks of a run measure each for itself, brought together at a report: by whom the others are kept waiting.
 * @module */

/** What a step has taken of this rank. */
interface StepTimes {
  readonly loadingMs: number;
  readonly nativeMs: number;
}

/** The same of all ranks, by rank. */
export interface RankReport extends Record<string, readonly number[]> {
  /** Mean wait for a batch. */
  readonly loading_ms: readonly number[];
  /** Mean time in the native call, with what it waits for other ranks. */
  readonly native_ms: readonly number[];
  /** Memory of the process. */
  readonly memory_gib: readonly number[];
  /** Mean loss over the rank's own tokens, in the last step. */
  readonly loss: readonly number[];
}

/** Who brings numbers together: `ProcessGroup` is one. */
interface Exchange {
  exchange(mine: ArrayLike<number>): Promise<Float64Array>;
}

/** Adds up what steps take between two reports. */
export class RankNumbers {
  #loadingMs = 0;
  #nativeMs = 0;
  #steps = 0;

  /** Counts a step. */
  step({ loadingMs, nativeMs }: StepTimes): void {
    this.#loadingMs += loadingMs;
    this.#nativeMs += nativeMs;
    this.#steps++;
  }

  /** Means since the last call, and what stands now. All ranks call it at the same steps.
   * @param loss of the rank's own tokens. */
  async gather(group: Exchange, loss: number): Promise<RankReport> {
    const { rss } = Deno.memoryUsage(), steps = Math.max(1, this.#steps);
    const mine = [this.#loadingMs / steps, this.#nativeMs / steps, rss / 2 ** 30, loss];
    [this.#loadingMs, this.#nativeMs, this.#steps] = [0, 0, 0];
    const all = await group.exchange(mine), column = (i: number) => [...all].filter((_, j) => j % mine.length === i);
    return { loading_ms: column(0), native_ms: column(1), memory_gib: column(2), loss: column(3) };
  }
}
