import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { DataError } from "../../data/error.ts";
import type { Take, TokenOptions } from "../../data/shard.ts";
import { CHUNK_BYTES, shardFile, toUrl } from "../../data/source.ts";
import { MOST_TOKENS, readTokens } from "../../data/token_file.ts";
import { temporaryFolder } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };
const bytesOf = (ids: Uint16Array | Uint32Array | Int32Array) => new Uint8Array(ids.buffer);
const joined = (...parts: Uint8Array[]) => new Uint8Array(parts.flatMap((part) => [...part]));

/** A header as llm.c writes it. */
function header(magic: number, version: number, count: number): Uint8Array {
  const words = new Int32Array(256);
  words.set([magic, version, count]);
  return bytesOf(words);
}

async function read(bytes: Uint8Array, options: TokenOptions = {}, take: Take = ALL) {
  await using folder = await temporaryFolder();
  await Deno.writeFile(`${folder.path}/a.bin`, bytes);
  const documents = await Array.fromAsync(readTokens(shardFile(toUrl(`${folder.path}/a.bin`)), take, options));
  return documents.map(({ index, ids }) => [index, ...ids]);
}

Deno.test("tokens of 16 and 32 bits are read as nanoGPT and llm.c write them, and documents end with the token that ends one", async () => {
  const ids = [5, 6, 9, 7, 9, 65535], end = 9, expected = [[0, 5, 6, 9], [1, 7, 9], [2, 65535]];
  const [short, long] = [bytesOf(Uint16Array.from(ids)), bytesOf(Uint32Array.from(ids))];
  assertEquals(await read(short, { end }), expected);
  assertEquals(await read(long, { end, tokenBytes: 4 }), expected);
  assertEquals(await read(joined(header(20240520, 1, 6), short), { end, tokenBytes: 4 }), expected);
  assertEquals(await read(joined(header(20240801, 7, 6), long), { end }), expected);
  assertEquals(await read(short, { end }, { from: 1, every: 2, offset: 0 }), [expected[2]]);
  assertEquals(await read(short), [[0, ...ids]]);
});

Deno.test("documents across chunks are whole, and one without an end is cut", async () => {
  const many = new Uint16Array(CHUNK_BYTES).fill(3); // two chunks
  many[700_000] = many[700_001] = 9;
  const found = await read(bytesOf(many), { end: 9 });
  assertEquals(found.map(({ length }) => length - 1), [700_001, 1, CHUNK_BYTES - 700_002]);
  const endless = await read(bytesOf(new Uint16Array(2 * MOST_TOKENS + 5).fill(3)), { end: 9 });
  assertEquals(endless.map(({ length }) => length - 1), [MOST_TOKENS, MOST_TOKENS, 5]);
});

Deno.test("no token is lost or doubled, whatever the documents, and lanes have all of them between them", async () => {
  const ids = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(ids, fc.integer({ min: 1, max: 4 }), async (ids, every) => {
      const bytes = bytesOf(Uint16Array.from(ids)), parts = [];
      for (let offset = 0; offset < every; offset++) {
        parts.push(...await read(bytes, { end: 0 }, { from: 0, every, offset }));
      }
      assertEquals(parts.sort(([a], [b]) => a - b).flatMap(([, ...ids]) => ids), ids);
    }),
    { numRuns: 40 },
  );
});

Deno.test("a file that is not as long as it says is an error, and what there is of it is read where that is asked for", async () => {
  const ids = bytesOf(Uint16Array.from([1, 2, 3])), bad: string[] = [];
  const cut = joined(header(20240520, 1, 4), ids);
  await assertRejects(() => read(cut), DataError, "has 6 bytes of tokens\n  expected: 8 bytes, as its header says");
  await assertRejects(
    () => read(ids.subarray(0, 5)),
    DataError,
    "has 5 bytes of tokens\n  expected: tokens of 2 bytes each",
  );
  assertEquals((await assertRejects(() => read(new Uint8Array(0)), DataError)).code, "empty_dataset");
  const onBad = (error: DataError) => void bad.push(error.code);
  assertEquals(await read(cut, { onBad }), [[0, 1, 2, 3]]);
  assertEquals(await read(ids.subarray(0, 5), { onBad }), [[0, 1, 2]]);
  assertEquals(await read(new Uint8Array(0), { onBad }), []);
  assertEquals(bad, ["damaged_shard", "damaged_shard", "empty_dataset"]);
});
