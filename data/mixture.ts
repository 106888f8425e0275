/**
 * Mixtures: several datasets, of each of which a share of the rows comes. Which one a row of a lane comes from follows from
 * their numbers alone, so there is nothing to save beside how many rows a lane has given.
 * @module
 */
import type { Cursor, Lane } from "./lane.ts";

/** A lane's place: how many rows it has given, and where it is in each source. */
export interface LanePlace {
  readonly rows: number;
  readonly cursors: readonly Cursor[];
}

/** The source of row `row` of lane `lane`. After n rows of any lane each source has had its share of them to within a few rows: the
 * rows fall on the points of a Weyl sequence, of which each lane has another beginning.
 * @param weights of the sources; only their ratios matter. */
export function sourceOf(weights: readonly number[], lane: number, row: number): number {
  if (weights.length === 1) return 0;
  const point = (Math.imul(row, 0x9e3779b9) + Math.imul(lane, 0x85ebca6b) >>> 0) / 2 ** 32;
  const target = point * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  for (let source = 0; source < weights.length; source++) {
    sum += weights[source];
    if (target < sum) return source;
  }
  return weights.findLastIndex((weight) => weight > 0); // where sums of floats fall short
}

/** One of a loader's lanes, over all sources. */
export class MixedLane {
  /** One of each source. */
  readonly lanes: readonly Lane[];
  readonly #weights: readonly number[];
  readonly #number: number;
  #rows: number;

  /** @param weights of the sources. @param place number of the lane, and how many rows it has given. */
  constructor(lanes: readonly Lane[], weights: readonly number[], place: { number: number; rows: number }) {
    this.lanes = lanes;
    this.#weights = weights;
    this.#number = place.number;
    this.#rows = place.rows;
  }

  get place(): LanePlace {
    return { rows: this.#rows, cursors: this.lanes.map(({ cursor }) => cursor) };
  }

  /** Passes over each source. */
  get epochs(): number[] {
    return this.lanes.map(({ epoch }) => epoch);
  }

  /** Sees to it that `epochs` are known. */
  async begin(): Promise<void> {
    for (const lane of this.lanes) await lane.begin();
  }

  /** Reads a row of each source, but takes none; false where there is none.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async readAhead(tokens: number): Promise<boolean> {
    let has = true;
    for (const lane of this.lanes) has = await lane.readAhead(tokens) && has;
    return has;
  }

  /** Takes the next row; false at the end of a lane that is not infinite.
   * @throws {DataError} when the data cannot be read, or is too little. */
  async take(window: Int32Array): Promise<boolean> {
    const source = sourceOf(this.#weights, this.#number, this.#rows);
    if (!await this.lanes[source].take(window)) return false;
    this.#rows++;
    return true;
  }

  /** Closes what is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const lane of this.lanes) await lane[Symbol.asyncDispose]();
  }
}
