/**
 * Begins to inflate in the middle of a deflate stream, at any bit where a block begins. zlib as Node has it begins at bytes
 * only, and knows no text from before; so it is given a stream that begins with what it needs: the text before as a block
 * that is stored, then empty blocks of as many bits as are missing to the bit.
 * @module
 */

/** Text that what follows may refer to. */
export const WINDOW_BYTES = 32768;

/** What zlib is given before the byte that has the block's first bit. */
export interface Prefix {
  readonly bytes: Uint8Array;
  /** The bits of that byte before the block's first, as they have to be: some may not be the file's. */
  readonly low: number;
}

/** An empty block by fixed codes: 10 bits. */
const FIXED_BLOCK = "0100000000";
/** An empty block by codes of its own: 93 bits, as an odd number is needed for odd bits. In order: not the last, kind 2, 257 lengths, 1
 * distance, 18 lengths of codes: that of 1 is 1, those of 0 and 18 are 2; twice "many zeros", 138 and 118; a length of 1 for the end of the
 * block, and none for a distance; the end of the block. Numbers stand with their lowest bit first. */
const DYNAMIC_BLOCK = "001" + "00000" + "00000" + "0111" +
  ["16", "17", "18", "0", "8", "7", "9", "6", "10", "5", "11", "4", "12", "3", "13", "2", "14", "1"]
    .map((symbol) => symbol === "1" ? "100" : symbol === "0" || symbol === "18" ? "010" : "000").join("") +
  "11" + "1111111" + "11" + "1101011" + "0" + "10" + "0";

/** What has to come before a block that begins at bit `bit` of a byte.
 * @param window the text before it, at most {@linkcode WINDOW_BYTES}. */
export function prefixFor(window: Uint8Array, bit: number): Prefix {
  const { length } = window;
  let bits = bit % 2 === 0 ? "" : DYNAMIC_BLOCK;
  while (bits.length % 8 !== bit) bits += FIXED_BLOCK;
  const stored = length === 0 ? 0 : 5 + length, bytes = new Uint8Array(stored + (bits.length >> 3));
  if (length > 0) {
    bytes.set([0, length & 255, length >> 8, ~length & 255, ~length >> 8 & 255]);
    bytes.set(window, 5);
  }
  let low = 0;
  for (const [n, one] of [...bits].entries()) {
    if (one === "0") continue;
    if (n >> 3 < bits.length >> 3) bytes[stored + (n >> 3)] |= 1 << (n & 7);
    else low |= 1 << (n & 7);
  }
  return { bytes, low };
}
