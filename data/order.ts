/** Orders that follow from a few numbers: they are made again wherever they are needed, and never stored. @module */
import type { Document, Shard, Take } from "./shard.ts";

/** The items in an order that depends on the keys and on the items alone, not on which others there are. */
export function shuffled(items: readonly number[], ...keys: number[]): number[] {
  const words = keys.flatMap((key) => [key >>> 0, Math.floor(key / 2 ** 32) >>> 0]);
  const places = items.map((item) => ({ item, place: hash(words, item) }));
  return places.sort((a, b) => a.place - b.place || a.item - b.item).map(({ item }) => item);
}

/** A shard whose documents come in another order in each epoch: of those that are taken, each `window` after another are shuffled among
 * themselves. So memory holds no more of them, and a place in the middle is found by reading the window that it is in. */
export function windowed(shard: Shard, { seed, window, number }: WindowOptions): Shard {
  return {
    name: shard.name,
    async *read({ from, every, offset }: Take, epoch: number): AsyncGenerator<Document, void> {
      const place = (index: number) => Math.ceil((index - offset) / every);
      let first = Math.max(0, Math.floor(place(from) / window)) * window, held = new Map<number, Document>();
      const inOrder = function* (): Generator<Document, void> {
        const order = shuffled([...held.keys()], seed, epoch, number);
        for (const [n, from1] of order.entries()) {
          const index = offset + (first + n) * every;
          if (index >= from) yield { ...held.get(from1)!, index };
        }
      };
      for await (const document of shard.read({ from: offset + first * every, every, offset }, epoch)) {
        const at = place(document.index);
        if (at >= first + window) {
          yield* inOrder();
          [first, held] = [Math.floor(at / window) * window, new Map()];
        }
        held.set(at, document);
      }
      yield* inOrder();
    },
  };
}

/** How the documents of a shard are shuffled. */
export interface WindowOptions {
  readonly seed: number;
  /** How many of them are shuffled together. */
  readonly window: number;
  /** Of the shard. */
  readonly number: number;
}

/** MurmurHash3 (32 bits) of words, the last of which is `item`. */
function hash(words: readonly number[], item: number): number {
  let h = 0;
  const add = (word: number) => {
    let k = Math.imul(word, 0xcc9e2d51);
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593);
    h ^= k;
    h = Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64 | 0;
  };
  words.forEach(add);
  add(item);
  h ^= 4 * (words.length + 1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
