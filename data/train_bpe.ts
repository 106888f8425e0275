/** Learns a byte-level BPE from texts, as the trainer of Hugging Face's `tokenizers` does: the same pairs in the same order. Texts are
 * split as Llama 3 does it. No package on npm does this for a vocabulary of a size that one chooses.
 * @module */
import { byteCharacters, LLAMA3 } from "./tokenizer_json.ts";

const SPLIT = new RegExp(LLAMA3, "gu");

/** What numbers of two tokens are told apart by in one key; more tokens there are not. */
const MOST_TOKENS = 2 ** 24;

/** A pair of tokens, and how often it stood when it was put in line. */
interface Candidate {
  readonly key: number;
  readonly count: number;
}

/** Words and how often each was seen. */
export class WordCounts {
  readonly #counts = new Map<string, number>();
  /** Bytes of all texts. */
  bytes = 0;

  /** Number of different words. */
  get size(): number {
    return this.#counts.size;
  }

  /** Counts the words of a text. */
  add(text: string): void {
    for (const [word] of text.matchAll(SPLIT)) this.#counts.set(word, (this.#counts.get(word) ?? 0) + 1);
    this.bytes += new TextEncoder().encode(text).length;
  }

  [Symbol.iterator](): IterableIterator<[string, number]> {
    return this.#counts.entries();
  }
}

/** Tokens, of which the first are the bytes, and pairs of them that become one.
 * @param size number of tokens; fewer where no pair is left. */
export function trainBpe(
  counts: Iterable<readonly [string, number]>,
  size: number,
): { tokens: string[]; merges: [string, string][] } {
  const characters = byteCharacters(),
    tokens = [...characters].sort(),
    ids = new Map(tokens.map((text, id) => [text, id]));
  const words: number[][] = [], weights: number[] = [], utf8 = new TextEncoder();
  for (const [word, count] of counts) {
    words.push(Array.from(utf8.encode(word), (byte) => ids.get(characters[byte])!));
    weights.push(count);
  }
  const found = new Map<number, number>(), where = new Map<number, Set<number>>();
  const count = (a: number, b: number, word: number, sign: 1 | -1): number => {
    const key = a * MOST_TOKENS + b;
    found.set(key, (found.get(key) ?? 0) + sign * weights[word]);
    if (sign > 0) where.get(key)?.add(word) ?? where.set(key, new Set([word]));
    return key;
  };
  words.forEach((word, n) => {
    for (let i = 0; i + 1 < word.length; i++) count(word[i], word[i + 1], n, 1);
  });
  const line = new Line();
  for (const [key, n] of found) line.push({ key, count: n });
  const merges: [string, string][] = [];
  while (tokens.length < size) {
    const best = line.pop();
    if (best === undefined || best.count < 1) break;
    const now = found.get(best.key)!;
    if (now !== best.count) { // it has become rarer since
      if (now > 0) line.push({ key: best.key, count: now });
      continue;
    }
    const [a, b] = [Math.floor(best.key / MOST_TOKENS), best.key % MOST_TOKENS], text = tokens[a] + tokens[b];
    if (!ids.has(text)) ids.set(text, tokens.push(text) - 1);
    const id = ids.get(text)!, more = new Set<number>();
    merges.push([tokens[a], tokens[b]]);
    for (const n of where.get(best.key)!) {
      merge(words[n], [a, b, id], (x, y, sign) => {
        const key = count(x, y, n, sign);
        if (sign > 0) more.add(key);
      });
    }
    where.delete(best.key);
    found.delete(best.key);
    for (const key of more) if ((found.get(key) ?? 0) > 0) line.push({ key, count: found.get(key)! });
  }
  return { tokens, merges };
}

/** Makes one token of each pair in a word, from its beginning on, and tells which pairs that makes more and which fewer. */
function merge(
  word: number[],
  [a, b, id]: readonly [number, number, number],
  changed: (x: number, y: number, sign: 1 | -1) => void,
): void {
  for (let i = 0; i + 1 < word.length; i++) {
    if (word[i] !== a || word[i + 1] !== b) continue;
    if (i > 0) {
      changed(word[i - 1], a, -1);
      changed(word[i - 1], id, 1);
    }
    word.splice(i, 2, id);
    if (i + 1 < word.length) {
      changed(b, word[i + 1], -1);
      changed(id, word[i + 1], 1);
    }
  }
}

/** Candidates by their counts, of equal ones by their tokens: a binary heap. */
class Line {
  readonly #heap: Candidate[] = [];

  push(candidate: Candidate): void {
    let at = this.#heap.push(candidate) - 1;
    for (; at > 0 && before(candidate, this.#heap[at - 1 >> 1]); at = at - 1 >> 1) {
      this.#heap[at] = this.#heap[at - 1 >> 1];
    }
    this.#heap[at] = candidate;
  }

  pop(): Candidate | undefined {
    const heap = this.#heap, first = heap[0], last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

const before = (a: Candidate, b: Candidate): boolean => a.count > b.count || a.count === b.count && a.key < b.key;
