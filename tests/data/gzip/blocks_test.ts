import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import { constants, createInflateRaw, deflateRawSync, gzipSync } from "node:zlib";
import { BlockWalker, type Boundary } from "../../../data/gzip/blocks.ts";
import { prefixFor, WINDOW_BYTES } from "../../../data/gzip/restart.ts";
import { someTexts } from "../fixture.ts";
import { someBytes } from "../hub/fixture.ts";

const TEXT = new TextEncoder().encode(someTexts(8000).join("\n"));

/** The boundaries of a file that comes in pieces of a size. */
function walk(file: Uint8Array, size: number, walker = new BlockWalker()): Boundary[] {
  const found: Boundary[] = [];
  for (let at = 0; at < file.length; at += size) found.push(...walker.take(file.subarray(at, at + size)));
  return found;
}

/** The text from a boundary on, to the end of its member. */
async function textFrom(file: Uint8Array, { byte, bit, out }: Boundary, text: Uint8Array): Promise<Uint8Array> {
  const window = text.subarray(Math.max(0, out - WINDOW_BYTES), out), { bytes, low } = prefixFor(window, bit);
  const inflate = createInflateRaw(), mask = (1 << bit) - 1;
  inflate.write(bytes);
  inflate.write(Uint8Array.of(file[byte] & ~mask | low));
  inflate.end(file.subarray(byte + 1, file.length - 8));
  const all = Buffer.concat(await Array.fromAsync(inflate));
  return new Uint8Array(all).subarray(window.length);
}

Deno.test("from each block on, at whatever bit it begins, the text is what it was", async () => {
  const bits = new Set<number>();
  for (
    const options of [
      { level: 1, memLevel: 5 },
      { level: 6, memLevel: 5 },
      { level: 9, memLevel: 1 },
      { strategy: constants.Z_FIXED, memLevel: 1 },
      { strategy: constants.Z_HUFFMAN_ONLY, memLevel: 4 },
      { level: 0 },
    ]
  ) {
    const file = new Uint8Array(gzipSync(TEXT, options)), found = walk(file, 10_000);
    assert(found.length > 0, JSON.stringify(options));
    for (const at of found.filter((_, n) => n % Math.ceil(found.length / 12) === 0)) {
      bits.add(at.bit);
      const rest = await textFrom(file, at, TEXT);
      assert(Buffer.compare(rest, TEXT.subarray(at.out)) === 0, `${JSON.stringify(options)} at ${JSON.stringify(at)}`);
    }
  }
  assertEquals([...bits].sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("blocks are the same in pieces of any size", () => {
  const file = new Uint8Array(gzipSync(TEXT.subarray(0, 300_000), { memLevel: 3 })), all = walk(file, file.length);
  for (const size of [1, 7, 399, 4096]) assertEquals(walk(file, size), all);
});

Deno.test("a walk that begins at a block goes on as one from the beginning", () => {
  const file = new Uint8Array(gzipSync(TEXT, { memLevel: 4 })), all = walk(file, 5000), middle = all[all.length >> 1];
  assertEquals(walk(file.subarray(middle.byte), 5000, new BlockWalker(middle)), all.slice(all.length >> 1));
});

Deno.test("members follow one another, with names and extra fields, and the end of the first is known", () => {
  const first = new Uint8Array(gzipSync(TEXT.subarray(0, 400_000), { memLevel: 4 }));
  const deflated = deflateRawSync(TEXT.subarray(400_000), { memLevel: 4 });
  const head = [0x1f, 0x8b, 8, 4 + 8 + 16 + 2, 0, 0, 0, 0, 0, 3, 2, 0, 9, 9, 0x61, 0, 0x62, 0, 1, 2];
  const file = new Uint8Array([...first, ...head, ...deflated, ...new Uint8Array(8)]);
  const walker = new BlockWalker(), found = walk(file, 1000, walker);
  assertEquals(walker.firstEnd, first.length - 8);
  const second = found.find(({ byte }) => byte > first.length)!;
  assertEquals(second, { byte: first.length + head.length, bit: 0, out: 400_000 });
  assert(found.at(-1)!.out > 600_000 && !walker.isLost);
});

Deno.test("bytes that are no gzip give no block, whatever they are", () => {
  for (let seed = 1; seed < 200; seed++) {
    const bytes = someBytes(3000, seed), walker = new BlockWalker();
    assertEquals(walk(bytes, 500, walker), []);
    assert(walker.isLost);
    bytes.set([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    walk(bytes, 500); // it ends, and without an error
  }
});
