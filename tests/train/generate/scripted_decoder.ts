/** A decoder whose text is known. @module */
import type { Decoder } from "../../../train/generate/decoder.ts";

/** After each token comes the next number, which has the largest logit; other tokens follow by how near they are. It keeps what it is
 * told, and refuses what a decoder refuses. */
export class CountingDecoder implements Decoder {
  /** Tokens of each sequence. */
  readonly read: number[][];
  /** How many tokens each call has given for each sequence. */
  readonly calls: number[][] = [];
  readonly #logits: Float32Array;

  constructor(readonly sequences: number, readonly maxLength: number, readonly vocabSize = 256) {
    this.read = Array.from({ length: sequences }, () => []);
    this.#logits = new Float32Array(sequences * vocabSize);
  }

  get lengths(): number[] {
    return this.read.map((tokens) => tokens.length);
  }

  extend(tokens: readonly (readonly number[])[]): Promise<Float32Array> {
    this.calls.push(tokens.map((list) => list.length));
    tokens.forEach((list, s) => {
      if (this.read[s].push(...list) > this.maxLength) throw new RangeError("no room");
      const next = this.read[s].at(-1)! + 1;
      for (let token = 0; token < this.vocabSize; token++) {
        this.#logits[s * this.vocabSize + token] = -Math.abs(token - next);
      }
    });
    return Promise.resolve(this.#logits);
  }

  truncate(sequence: number, length: number): void {
    if (length > this.read[sequence].length) throw new RangeError("it has fewer");
    this.read[sequence].length = length;
  }

  [Symbol.dispose](): void {}
}

/** Tokens are bytes. */
export const bytes = {
  vocabSize: 256,
  decodeBytes: (ids: Iterable<number>) => Uint8Array.from(ids),
};
