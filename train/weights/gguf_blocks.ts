/** The block formats of GGUF: so many elements share a scale, or a scale and an offset, and take a few bits each. Sums and products are
 * rounded to f32 as ggml rounds them. Sources: ggml's `ggml-quants.c` (`dequantize_row_*`, `quantize_row_q8_0_ref`), and `gguf/quants.py`.
 * @module */

/** How elements lie in a block. */
export interface BlockFormat {
  /** Elements of a block. */
  readonly elements: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Gives the elements of the block that begins at byte `at` to `into`, from `to` on. */
  readonly decode: (block: DataView, at: number, into: Float32Array, to: number) => void;
}

const round = Math.fround;

/** 32 elements of four or five bits: element i has the low half of byte i, element 16 + i the high one; fifth bits lie in one number.
 * @param begin where the halves begin, behind the scales. @param fifth where the fifth bits begin, if there are any. */
function decode32(
  { begin, fifth, zero, offset }: { begin: number; fifth?: number; zero: number; offset?: number },
): BlockFormat["decode"] {
  return (block, at, into, to) => {
    // Without an offset nothing may be added: -0 would become 0.
    const scale = block.getFloat16(at, true), least = offset === undefined ? -0 : block.getFloat16(at + offset, true);
    const high = fifth === undefined ? 0 : block.getUint32(at + fifth, true);
    for (let i = 0; i < 16; i++) {
      const byte = block.getUint8(at + begin + i);
      const first = (byte & 15 | (high >>> i & 1) << 4) - zero,
        second = (byte >>> 4 | (high >>> 16 + i & 1) << 4) - zero;
      into[to + i] = round(scale * first) + least;
      into[to + 16 + i] = round(scale * second) + least;
    }
  };
}

/** 256 elements of four or five bits in eight groups of 32, whose scales and offsets have six bits each, times two of the block.
 * @param begin where the halves begin. @param fifth where the fifth bits begin, if there are any: bit g of byte i belongs to group g. */
function decodeScaled({ begin, fifth }: { begin: number; fifth?: number }): BlockFormat["decode"] {
  return (block, at, into, to) => {
    const scale = block.getFloat16(at, true), offset = block.getFloat16(at + 2, true), packed = at + 4;
    for (let group = 0; group < 8; group++) {
      const [s, m] = sixBits(block, packed, group), d = round(scale * s), least = round(offset * m);
      const halves = at + begin + (group >>> 1) * 32, shift = group % 2 * 4;
      for (let i = 0; i < 32; i++) {
        const low = block.getUint8(halves + i) >>> shift & 15;
        const high = fifth === undefined ? 0 : block.getUint8(at + fifth + i) >>> group & 1;
        into[to + group * 32 + i] = round(d * (low | high << 4)) - least;
      }
    }
  };
}

/** The scale and the offset of a group: of the first four in bytes of their own, of the others with the two highest bits there. */
function sixBits(block: DataView, at: number, group: number): [scale: number, offset: number] {
  const byte = (i: number) => block.getUint8(at + i);
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  return [
    byte(group + 4) & 15 | byte(group - 4) >>> 6 << 4,
    byte(group + 4) >>> 4 | byte(group) >>> 6 << 4,
  ];
}

/** 256 elements of six bits in 16 groups of 16, each with a scale of a byte: low halves, then pairs of bits, scales, the block's scale. */
const decodeSixBits: BlockFormat["decode"] = (block, at, into, to) => {
  const scale = block.getFloat16(at + 208, true);
  for (let i = 0; i < 256; i++) {
    // Each half of the block has 64 bytes of low halves and 32 of pairs.
    const half = i >>> 7, within = i & 127;
    const low = block.getUint8(at + half * 64 + (within & 63)) >>> (within >>> 6) * 4 & 15;
    const high = block.getUint8(at + 128 + half * 32 + (within & 31)) >>> (within >>> 5) * 2 & 3;
    into[to + i] = round(scale * block.getInt8(at + 192 + (i >>> 4))) * ((low | high << 4) - 32);
  }
};

/** A block format. */
export type BlockType = "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "q4_k" | "q5_k" | "q6_k";

/** The formats by name. */
export const blockFormats: Readonly<Record<BlockType, BlockFormat>> = {
  q4_0: { elements: 32, bytes: 18, decode: decode32({ begin: 2, zero: 8 }) },
  q4_1: { elements: 32, bytes: 20, decode: decode32({ begin: 4, zero: 0, offset: 2 }) },
  q5_0: { elements: 32, bytes: 22, decode: decode32({ begin: 6, fifth: 2, zero: 16 }) },
  q5_1: { elements: 32, bytes: 24, decode: decode32({ begin: 8, fifth: 4, zero: 0, offset: 2 }) },
  q8_0: {
    elements: 32,
    bytes: 34,
    decode: (block, at, into, to) => {
      const scale = block.getFloat16(at, true);
      for (let i = 0; i < 32; i++) into[to + i] = scale * block.getInt8(at + 2 + i);
    },
  },
  q4_k: { elements: 256, bytes: 144, decode: decodeScaled({ begin: 16 }) },
  q5_k: { elements: 256, bytes: 176, decode: decodeScaled({ begin: 48, fifth: 16 }) },
  q6_k: { elements: 256, bytes: 210, decode: decodeSixBits },
};

/** Is it the name of a block format? */
export function isBlockType(type: string): type is BlockType {
  return Object.hasOwn(blockFormats, type);
}

/** The elements of whole blocks. */
export function decodeBlocks(bytes: Uint8Array<ArrayBuffer>, type: BlockType): Float32Array<ArrayBuffer> {
  const format = blockFormats[type], count = bytes.length / format.bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    made = new Float32Array(count * format.elements);
  for (let n = 0; n < count; n++) format.decode(view, n * format.bytes, made, n * format.elements);
  return made;
}

/** Numbers as blocks of `q8_0`: of each 32 the largest is 127 times their scale, an f16.
 * @param numbers a multiple of 32. @throws {RangeError} when they are too large for such a scale, or not finite. */
export function encodeQ8(numbers: Float32Array): Uint8Array<ArrayBuffer> {
  const { elements, bytes } = blockFormats.q8_0, count = numbers.length / elements;
  const made = new Uint8Array(count * bytes), view = new DataView(made.buffer);
  for (let n = 0; n < count; n++) {
    const block = numbers.subarray(n * elements, (n + 1) * elements);
    let most = 0;
    for (const x of block) most = Math.max(most, Math.abs(x)); // not a number where one is none
    const scale = round(most / 127), inverse = scale === 0 ? 0 : round(1 / scale);
    if (!(scale < 65520)) throw new RangeError(`${most} is too large for q8_0, whose numbers end at ${65504 * 127}`);
    view.setFloat16(n * bytes, scale, true);
    for (let i = 0; i < elements; i++) {
      // Halves are rounded away from zero.
      const q = round(block[i] * inverse);
      view.setInt8(n * bytes + 2 + i, Math.sign(q) * Math.floor(Math.abs(q) + 0.5));
    }
  }
  return made;
}
