/** The memory that state goes through on its way to files. As much of it as there is can be copied before the disk has taken anything.
 * @module */
import { CHUNK_BYTES } from "./manifest.ts";

/** The most that is copied ahead of the disk while training stands still, in bytes: enough to keep all stages of writing busy. */
const STANDING_BYTES = 8 * CHUNK_BYTES;

/** Bytes of the buffer that a rank needs.
 * @param shareBytes that it writes of a whole checkpoint. @param policy `async`: does training go on meanwhile? `stagingBytes`: the most
 * that is wanted then; 0: no limit. */
export function stagingBytesOf(
  shareBytes: number,
  policy: { readonly async: boolean; readonly stagingBytes: number },
): number {
  const most = policy.async ? policy.stagingBytes || Infinity : STANDING_BYTES;
  // Each of the two files ends with a chunk that is not full.
  return Math.min(Math.ceil(shareBytes / CHUNK_BYTES + 1) * CHUNK_BYTES, Math.ceil(most / CHUNK_BYTES) * CHUNK_BYTES);
}

/** Chunks of {@linkcode CHUNK_BYTES}, which are made when they are first taken, and used again from then on. */
export class Staging {
  /** As many chunks there are at most. */
  readonly chunks: number;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  readonly #waiting: ((chunk: Uint8Array<ArrayBuffer>) => void)[] = [];
  #made = 0;

  /** @param bytes of all of them. */
  constructor(bytes = STANDING_BYTES) {
    this.chunks = Math.max(1, Math.floor(bytes / CHUNK_BYTES));
  }

  /** A chunk that nobody else has, as soon as there is one; first come, first served. */
  take(): Promise<Uint8Array<ArrayBuffer>> {
    const chunk = this.#free.pop();
    if (chunk) return Promise.resolve(chunk);
    if (this.#made === this.chunks) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#made++;
    return Promise.resolve(new Uint8Array(CHUNK_BYTES));
  }

  /** Puts a chunk back. */
  give(chunk: Uint8Array<ArrayBuffer>): void {
    const next = this.#waiting.shift();
    if (next) next(chunk);
    else this.#free.push(chunk);
  }
}
