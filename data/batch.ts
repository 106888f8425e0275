/** Batches: the inputs of a step, as the loader makes them. Shapes: B rows, T tokens of a row. @module */

/** Inputs of one step, each [B, T] in row-major order. */
export interface Batch {
  readonly tokens: Int32Array;
  /** The token after each; IGNORE_INDEX in rows that hold no text. */
  readonly targets: Int32Array;
  /** 0 .. T-1 in each row, or where documents are told apart from 0 on in each of them. */
  readonly positions: Int32Array;
  /** Number of documents that have ended before each token in its row: tokens with one number belong to one document. Padding, -1. */
  readonly documents: Int32Array;
  /** Rows that hold text: B, but near the end of a loader that is not infinite, where other data ranks may have all of them. */
  rows: number;
  /** Batches before this one; goes on after a restore. */
  step: number;
  /** Passes over the text before the next token, of each source: of the lanes that are read here, all have made as many. With a fraction
   * where the number of documents is known, else complete ones. */
  epochs: number[];
  /** Documents that were left out, as they could not be used, since this loader was opened, whether or not they were to come already. */
  skipped: number;
  /** Conversations that were cut since this loader was opened, as they were too long, whether or not they were to come already. */
  cut: number;
}

/** Target of tokens that do not count. */
export const IGNORE_INDEX = -100;

/** Bytes of the arrays of a batch: 4 * B * T words of four bytes. */
export function batchBytes(batchSize: number, seqLen: number): number {
  return 16 * batchSize * seqLen;
}

/** Makes a batch of no text, or over what is in `buffer`, of {@linkcode batchBytes}. */
export function makeBatch(batchSize: number, seqLen: number, buffer?: ArrayBufferLike, byteOffset = 0): Batch {
  const size = batchSize * seqLen;
  const memory = buffer ?? new ArrayBuffer(batchBytes(batchSize, seqLen));
  const [tokens, targets, positions, documents] = [0, 1, 2, 3].map((n) =>
    new Int32Array(memory, byteOffset + 4 * size * n, size)
  );
  for (let i = 0; i < size; i++) positions[i] = i % seqLen;
  if (!buffer) targets.fill(IGNORE_INDEX); // else another thread may have filled rows of it
  return { tokens, targets, positions, documents, rows: 0, step: 0, epochs: [], skipped: 0, cut: 0 };
}
