/**
 * How documents become rows of T + 1 tokens, T of which are a row's tokens and T its targets.
 *
 * - `windows`: documents one behind another, cut every T tokens, as torchtitan does it.
 * - `documents`: the same rows, but positions restart with each document.
 * - `best-fit`: a document that fits into a row is never cut; a row holds some of them, and padding behind.
 *
 * On the way a token is a word: its id, with flags above it.
 * @module
 */
import { type Batch, IGNORE_INDEX } from "./batch.ts";

/** How documents become rows. */
export type Packing = "windows" | "documents" | "best-fit";

/** Of a token that is not learned: it is the target of none. */
export const MASKED: number = 1 << 28;

/** Of a document's first token, where rows hold whole documents. */
export const BEGINS: number = 1 << 29;

/** Of a place that no document takes. */
export const PADDING: number = 1 << 30;

/** What is left of a word without its flags. */
export const ID: number = MASKED - 1;

/** The document of padding. */
export const NO_DOCUMENT = -1;

/** Puts documents into rows of `length` words, each into the fullest row that has room for it, long ones first. What is longer than a row
 * is cut, and goes on with its last token, which is not learned again. Rows come by their first documents. */
export function bestFit(documents: readonly Int32Array[], length: number): Int32Array[] {
  const pieces = documents.flatMap((document) => cut(document, length));
  const byLength = pieces.map((_, n) => n).sort((a, b) => pieces[b].length - pieces[a].length || a - b);
  const rows: number[][] = [];
  /** Numbers of rows by the room that they have. */
  const byRoom: number[][] = Array.from({ length: length + 1 }, () => []);
  for (const n of byLength) {
    let room = pieces[n].length;
    while (room < length && byRoom[room].length === 0) room++;
    const row = room < length ? byRoom[room].pop()! : rows.push([]) - 1;
    rows[row].push(n);
    byRoom[room - pieces[n].length].push(row);
  }
  for (const row of rows) row.sort((a, b) => a - b);
  return rows.sort(([a], [b]) => a - b).map((row) => {
    const words = new Int32Array(length).fill(PADDING | MASKED);
    let at = 0;
    for (const n of row) {
      words.set(pieces[n], at);
      words[at] |= BEGINS | MASKED;
      at += pieces[n].length;
    }
    if (at < length) words[at] |= BEGINS;
    return words;
  });
}

/** A document in pieces of at most `length`, the last token of each being the first of the next. */
function cut(document: Int32Array, length: number): Int32Array[] {
  const pieces: Int32Array[] = [];
  for (let start = 0, end = 0; end < document.length; start = end - 1) {
    end = Math.min(document.length, start + length);
    pieces.push(document.subarray(start, end));
  }
  return pieces;
}

/** Puts the T + 1 words of a row where a batch has it.
 * @param eosId the token that ends a document; null: there is none. */
export function putRow(
  batch: Batch,
  row: number,
  words: Int32Array,
  { packing, eosId }: { readonly packing: Packing; readonly eosId: number | null },
): void {
  const seqLen = words.length - 1, at = row * seqLen, restarts = packing !== "windows";
  let [document, start] = [0, 0];
  for (let t = 0; t < seqLen; t++) {
    const word = words[t], next = words[t + 1];
    if (word & BEGINS && t > 0) [document, start] = [document + 1, t];
    batch.tokens[at + t] = word & ID;
    batch.targets[at + t] = next & MASKED ? IGNORE_INDEX : next & ID;
    batch.positions[at + t] = restarts ? t - start : t;
    batch.documents[at + t] = word & PADDING ? NO_DOCUMENT : document;
    if (packing !== "best-fit" && word === eosId) [document, start] = [document + 1, t + 1];
  }
}
