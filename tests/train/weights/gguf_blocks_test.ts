import { assert, assertEquals, assertThrows } from "@std/assert";
import { converted } from "../../../train/typed_array.ts";
import {
  blockFormats,
  type BlockType,
  decodeBlocks,
  encodeQ8,
  isBlockType,
} from "../../../train/weights/gguf_blocks.ts";

const golden = JSON.parse(Deno.readTextFileSync(new URL("../../goldens/gguf/blocks.json", import.meta.url)));
const bytesOf = (hex: string) => Uint8Array.fromHex(hex);
const floatsOf = (hex: string) => new Float32Array(bytesOf(hex).buffer);

for (const type of Object.keys(blockFormats) as BlockType[]) {
  Deno.test(`blocks of ${type} are the numbers that the package gguf makes of them, bit for bit`, () => {
    const { bytes, numbers } = golden.decoded[type];
    assertEquals(decodeBlocks(bytesOf(bytes), type), floatsOf(numbers));
    assertEquals(converted(bytesOf(bytes), type, "f32"), bytesOf(numbers));
  });
}

Deno.test("q8_0 is written as the package gguf writes it: halves away from zero, zeros as they are", () => {
  const { numbers, bytes } = golden.encoded;
  assertEquals(encodeQ8(floatsOf(numbers)).toHex(), bytes);
});

Deno.test("no number of q8_0 is further from what was written than half a step of its block", () => {
  const numbers = Float32Array.from({ length: 32 * 50 }, (_, i) => Math.tan(i));
  const back = decodeBlocks(encodeQ8(numbers), "q8_0");
  for (let block = 0; block < 50; block++) {
    const of = numbers.subarray(block * 32, block * 32 + 32), step = Math.max(...of.map(Math.abs)) / 127;
    of.forEach((x, i) =>
      assert(Math.abs(x - back[block * 32 + i]) <= step * (0.5 + 127 / 2048), `${x} in block ${block}`)
    );
  }
});

Deno.test("numbers that have no scale in f16 are refused", () => {
  const block = new Float32Array(32);
  for (const wrong of [9e6, NaN, Infinity]) {
    block[3] = wrong;
    assertThrows(() => encodeQ8(block), RangeError, "is too large for q8_0");
  }
  block[3] = -65504 * 127;
  assertEquals(decodeBlocks(encodeQ8(block), "q8_0")[3], -65504 * 127);
});

Deno.test("a type that is none of blocks is told from them, also by a name that every object has", () => {
  assertEquals(["q4_0", "f32", "toString"].map(isBlockType), [true, false, false]);
});
