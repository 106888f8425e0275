/** Orders that follow from a few numbers: they are made again wherever they are needed, and never stored. @module */

/** The items in an order that depends on the keys and on the items alone, not on which others there are. */
export function shuffled(items: readonly number[], ...keys: number[]): number[] {
  const words = keys.flatMap((key) => [key >>> 0, Math.floor(key / 2 ** 32) >>> 0]);
  const places = items.map((item) => ({ item, place: hash(words, item) }));
  return places.sort((a, b) => a.place - b.place || a.item - b.item).map(({ item }) => item);
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
