import { assert, assertEquals, assertRejects } from "@std/assert";
import { Buffer } from "node:buffer";
import { gzipSync } from "node:zlib";
import { DataError } from "../../../data/error.ts";
import {
  decodeIndex,
  encodeIndex,
  SEEK_BYTES,
  type SeekIndex,
  SeekIndexer,
  type SeekStore,
} from "../../../data/gzip/seek_index.ts";
import { openPlain } from "../../../data/inflate.ts";
import { type ShardFile, shardFile, toUrl } from "../../../data/source.ts";
import { temporaryFolder } from "../fixture.ts";
import { someBytes } from "../hub/fixture.ts";

/** 28 MiB in lines of up to 3 kB, each with its number. */
const LINES = Array.from(
  { length: 20_000 },
  (_, n) => `${n} ${"é".repeat(n % 700)} ${someBytes(12, n + 1).toHex()}`.padEnd(1500, "."),
);
const TEXT = new TextEncoder().encode(LINES.join("\n") + "\n");
const ONE = new Uint8Array(gzipSync(TEXT));
const TWO = new Uint8Array([...gzipSync(TEXT.subarray(0, 14_000_000)), ...gzipSync(TEXT.subarray(14_000_000))]);

/** A file with a place for its index, and how many of its bytes were read. */
async function fileOf(bytes: Uint8Array) {
  const folder = await temporaryFolder(), path = `${folder.path}/a.json.gz`;
  await Deno.writeFile(path, bytes);
  const kept: { bytes?: Uint8Array; writes: number } = { writes: 0 }, opened: number[] = [];
  const seek: SeekStore = {
    read: () => Promise.resolve(kept.bytes),
    write: (bytes) => (kept.bytes = bytes, kept.writes++, Promise.resolve()),
  };
  const plain = shardFile(toUrl(path));
  const file: ShardFile = { ...plain, seek, open: (from = 0) => (opened.push(from), plain.open(from)) };
  return {
    file,
    kept,
    opened,
    index: () => decodeIndex(kept.bytes!)!,
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** The text from a line on, as far as `bytes` go. */
async function read(file: ShardFile, line: number, bytes = Infinity) {
  await using plain = await openPlain(file, line);
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of plain.chunks) {
    parts.push(chunk);
    if ((length += chunk.length) >= bytes) break;
  }
  return { line: plain.line, byte: plain.byte, text: Buffer.concat(parts) };
}

/** The number of the line that begins at a byte of the text. */
function lineAt(byte: number): number {
  assert(byte === 0 || TEXT[byte - 1] === 10);
  return parseInt(new TextDecoder().decode(TEXT.subarray(byte, byte + 6)));
}

/** Reads from a line on, and sees that it is the text of it. */
async function check(file: ShardFile, line: number): Promise<number> {
  const found = await read(file, line);
  assert(found.line <= line);
  assertEquals(lineAt(found.byte), found.line);
  assert(Buffer.compare(found.text, TEXT.subarray(found.byte)) === 0, `from line ${line}`);
  return found.byte;
}

Deno.test("a file that was read once is read from near any line, to the same text", async () => {
  for (const bytes of [ONE, TWO]) {
    await using made = await fileOf(bytes);
    await check(made.file, 0);
    const { points, isComplete } = made.index();
    assert(isComplete && points.length >= 2, `${points.length} points`);
    for (const line of [1, points[0].line - 1, points[0].line, points[1].line + 1, 19_999]) {
      const byte = await check(made.file, line);
      const wanted = TEXT.length * line / 20_000;
      assert(wanted - byte < 2 * SEEK_BYTES, `line ${line} is read from byte ${byte}`);
    }
    assert(made.opened.some((from) => from > 0));
    assertEquals(made.kept.writes, 1); // what is complete is not written again
  }
});

Deno.test("what was read of a file is known of it, and the next reading goes on with the index from there", async () => {
  await using made = await fileOf(ONE);
  await read(made.file, 0, 12_000_000);
  const first = made.index();
  assertEquals([first.points.length, first.isComplete], [1, false]);
  const byte = await check(made.file, first.points[0].line + 100);
  assertEquals(byte, first.points[0].out + first.points[0].skip);
  await using whole = await fileOf(ONE);
  await check(whole.file, 0);
  assertEquals(made.index(), whole.index());
  // And so does one that begins again at the beginning.
  await using again = await fileOf(ONE);
  again.kept.bytes = encodeIndex(first);
  await check(again.file, 0);
  assertEquals(again.index(), whole.index());
});

Deno.test("an index that is cut off or of something else is made anew", async () => {
  await using made = await fileOf(ONE);
  await check(made.file, 0);
  const right = made.kept.bytes!;
  for (
    const bytes of [
      right.subarray(0, right.length - 1),
      right.subarray(0, 50),
      new Uint8Array(0),
      new TextEncoder().encode('{"version":2}\n'),
    ]
  ) {
    made.kept.bytes = bytes;
    await check(made.file, 15_000);
    assertEquals(made.kept.bytes, right);
  }
});

Deno.test("a file that is cut off is an error from the middle too", async () => {
  await using made = await fileOf(ONE);
  await check(made.file, 0);
  await using cut = await fileOf(ONE.subarray(0, -2000));
  cut.kept.bytes = made.kept.bytes;
  const error = await assertRejects(() => read(cut.file, 19_999), DataError);
  assertEquals(error.code, "damaged_shard");
  assert(error.message.includes("is cut off"), error.message);
});

Deno.test("places are at the beginning of blocks, and tell the line that begins next", () => {
  const index: SeekIndex = indexOf(ONE, 1 << 20);
  assert(index.points.length > 15);
  for (const { out, skip, line } of index.points) {
    assertEquals(lineAt(out + skip), line);
    assert(skip === 0 || TEXT.subarray(out, out + skip).indexOf(10) === skip - 1);
  }
  assertEquals(decodeIndex(encodeIndex(index)), index);
});

/** The places of a file that is read in one go. */
function indexOf(bytes: Uint8Array, every: number): SeekIndex {
  const indexer = new SeekIndexer([], undefined, every);
  for (let at = 0; at < bytes.length; at += 100_000) indexer.compressed(bytes.subarray(at, at + 100_000));
  for (let at = 0; at < TEXT.length; at += 77_777) indexer.text(TEXT.subarray(at, at + 77_777));
  return { points: indexer.points, isComplete: true };
}
