import { assert, assertEquals, assertRejects } from "@std/assert";
import { parquetWriteBuffer } from "hyparquet-writer";
import { DataError } from "../../data/error.ts";
import { readParquet } from "../../data/parquet.ts";
import type { ReadOptions, Take } from "../../data/shard.ts";
import { type ShardFile, shardFile, toUrl } from "../../data/source.ts";
import { someTexts, temporaryFolder } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };

/** A table with a column of texts beside others, in groups of 10 rows. */
function table(texts: readonly (string | null | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const type = texts.some((text) => text instanceof Uint8Array) ? "BYTE_ARRAY" as const : "STRING" as const;
  return new Uint8Array(parquetWriteBuffer({
    columnData: [
      { name: "id", data: texts.map((_, n) => n), type: "INT32" },
      { name: "body", data: [...texts], type, nullable: true },
    ],
    rowGroupSize: 10,
  }));
}

async function read(bytes: Uint8Array, take: Take = ALL, options: ReadOptions = { field: "body" }, watched?: number[]) {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.parquet`;
  await Deno.writeFile(path, bytes);
  const file = shardFile(toUrl(path)),
    slice: ShardFile["slice"] = (start, end) => {
      watched?.push(end - start);
      return file.slice(start, end);
    };
  return await Array.fromAsync(readParquet({ ...file, slice }, take, options));
}

Deno.test("a table gives the texts of its column in order, and every k-th from a place on", async () => {
  const texts = [...someTexts(33), "", "é 😀"];
  assertEquals((await read(table(texts))).map(({ text }) => text), texts);
  const some = await read(table(texts), { from: 17, every: 3, offset: 1 });
  assertEquals(
    some,
    texts.map((text, index) => ({ index, text })).filter(({ index }) => index >= 17 && index % 3 === 1),
  );
});

Deno.test("going on in the middle reads no group of rows that lies before", async () => {
  const texts = someTexts(200).map((text) => text.repeat(2000)),
    bytes = table(texts),
    [all, last] = [[], []] as number[][];
  await read(bytes, ALL, undefined, all);
  assertEquals((await read(bytes, { from: 195, every: 1, offset: 0 }, undefined, last)).length, 5);
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  assert(sum(last) < sum(all) / 4 + 600_000, `${sum(last)} bytes of ${sum(all)}`); // the footer is read in half a MiB
});

Deno.test("a row without a text, or with a bad one, is an error that names it, or is left out", async () => {
  const bad: string[] = [], onBad = (error: DataError) => void bad.push(error.message);
  assertEquals((await read(table(["a", null, "b"]), ALL, { field: "body", onBad })).map(({ index }) => index), [0, 2]);
  const utf8 = new TextEncoder();
  const bytes = table([utf8.encode("ok"), new Uint8Array([0xff, 0xfe]), utf8.encode("x".repeat(99))]);
  assertEquals(await read(bytes, ALL, { field: "body", maxBytes: 50, onBad }), [{ index: 0, text: "ok" }]);
  // of a conversation, too, whose rows behind it are read
  const textOf = (value: unknown) => `said ${value}`;
  assertEquals((await read(bytes, ALL, { field: "body", textOf, onBad })).map(({ index }) => index), [0, 2]);
  const said = bad.map((message) => message.replace(/ of shard [^:]+/, "").split("\n")[0]);
  assertEquals(said, [
    "Cannot read row 2: it has none",
    "Cannot read row 2: it is not UTF-8",
    "Cannot read row 3: it has more than 50 bytes",
    "Cannot read row 2: it is not UTF-8",
  ]);
  await assertRejects(() => read(table(["a", null])), DataError, "Cannot read row 2 of shard ");
});

Deno.test("another column, a number, a damaged file and an empty one are errors", async () => {
  const none = await assertRejects(() => read(table(["a"]), ALL, {}), DataError, 'has no column "text" of text');
  assert(none.message.includes("one of its columns: id, body"), none.message);
  await assertRejects(() => read(table(["a"]), ALL, { field: "id" }), DataError, 'has no column "id" of text');
  const whole = table(someTexts(50));
  for (const bytes of [whole.slice(0, -10), whole.slice(0, 5), new TextEncoder().encode("no parquet at all")]) {
    assertEquals(
      (await assertRejects(() => read(bytes), DataError, "/a.parquet is damaged from row 1 on")).code,
      "damaged_shard",
    );
  }
  await assertRejects(() => read(table([])), DataError, "holds no document");
});
