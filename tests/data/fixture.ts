/** Small corpora for the tests of `data/`. @module */
import { gzipSync } from "node:zlib";
import { shardName, type Split } from "../../data/c4.ts";
import type { Batch } from "../../data/batch.ts";

/** A folder that is removed at the end of its block. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Texts as lines of C4. */
export function c4Lines(texts: readonly string[]): string {
  return texts.map((text) => JSON.stringify({ text, timestamp: "2019-04-25T12:57:54Z", url: "" }) + "\n").join("");
}

/** Writes one shard for each list of texts. */
export function writeShards(folder: string, shards: readonly (readonly string[])[], split: Split = "train"): void {
  shards.forEach((texts, n) =>
    Deno.writeFileSync(`${folder}/${shardName(split, n, shards.length)}`, gzipSync(c4Lines(texts)))
  );
}

/** A text of `words` words that no other number gives. */
export function someText(n: number, words = 20): string {
  return Array.from({ length: words }, (_, i) => `word${(n * 7919 + i * i * 31) % 997}`).join(" ") + ` number ${n}`;
}

/** `count` texts of different lengths, the first of which has number `first`. */
export function someTexts(count: number, first = 0): string[] {
  return Array.from({ length: count }, (_, i) => someText(first + i, 5 + (first + i) * 13 % 30));
}

/** Whether this process has a file open; on Linux alone. */
export function isOpen(path: string): boolean {
  const find = new Deno.Command("find", { args: [`/proc/${Deno.pid}/fd`, "-lname", path] });
  return find.outputSync().stdout.length > 0;
}

/** A copy of a batch as plain data. */
export function plain(batch: Batch): Record<string, unknown> {
  const { tokens, targets, positions, documents, rows, step, epochs, skipped, cut } = batch;
  return {
    tokens: [...tokens],
    targets: [...targets],
    positions: [...positions],
    documents: [...documents],
    rows,
    step,
    epochs: [...epochs],
    skipped,
    cut,
  };
}

/** Copies of the next `count` batches, or fewer at the end. */
export async function take(
  loader: { next(): Promise<Batch | undefined> },
  count: number = Infinity,
): Promise<Record<string, unknown>[]> {
  const batches = [];
  for (let n = 0; n < count; n++) {
    const batch = await loader.next();
    if (batch === undefined) break;
    batches.push(plain(batch));
  }
  return batches;
}
