import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { openDataset } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { shardsOf } from "../../data/files.ts";
import { Loader } from "../../data/loader.ts";
import { shardFile, toUrl } from "../../data/source.ts";
import { c4Lines, take, temporaryFolder } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };

/** A folder with a file of each format, whose documents are all named otherwise. */
async function everyFormat() {
  const folder = await temporaryFolder(),
    write = (name: string, content: string | Uint8Array) =>
      Deno.writeFile(
        `${folder.path}/${name}`,
        typeof content === "string" ? new TextEncoder().encode(content) : content,
      );
  await write("a.jsonl", c4Lines(["a0", "a1"]));
  await write("b.json.gz", gzipSync(c4Lines(["b0", "b1"])));
  await write("c.jsonl.zst", zstdCompressSync(c4Lines(["c0", "c1"])));
  await write("d.parquet", new Uint8Array(parquetWriteBuffer({ columnData: [{ name: "text", data: ["d0", "d1"] }] })));
  await write("e.bin", new Uint8Array(Uint16Array.from([70, 71, 257, 72, 257]).buffer));
  await write("f.txt", "f");
  await write("g.md.gz", gzipSync("g"));
  await write("notes.csv", "left out");
  return folder;
}

Deno.test("each file of a folder is a shard of its format, and texts are one together", async () => {
  await using folder = await everyFormat();
  const dataset = await openDataset({ name: "files", path: folder.path }, { end: 257 });
  assertEquals(dataset.shards.map(({ name }) => name), [
    ...["a.jsonl", "b.json.gz", "c.jsonl.zst", "d.parquet", "e.bin", "2 text files"],
  ]);
  const documents = [];
  for (const shard of dataset.shards) documents.push(...await Array.fromAsync(shard.read(ALL, 0)));
  assertEquals(documents.map((document) => "text" in document ? document.text : String(document.ids)), [
    ...["a0", "a1", "b0", "b1", "c0", "c1", "d0", "d1", "70,71,257", "72,257", "f", "g"],
  ]);
  assertEquals((await openDataset({ name: "files", path: `${folder.path}/*.txt` })).shards.map(({ name }) => name), [
    "f.txt",
  ]);
});

Deno.test("a loader reads tokens as they are, and text between the tokens that begin and end a document", async () => {
  await using folder = await everyFormat();
  const options = {
    dataset: { name: "files", path: folder.path },
    tokenizer: "bytes",
    batchSize: 1,
    seqLen: 4,
    lanes: 1,
  };
  await using loader = await Loader.open({ ...options, infinite: false });
  const stream = (await take(loader)).flatMap((batch) => [...batch.tokens as number[], (batch.targets as number[])[3]]);
  const text = [..."abcd"].flatMap((name) => [0, 1].flatMap((n) => [256, name.charCodeAt(0), 48 + n, 257]));
  const expected = [...text, 70, 71, 257, 72, 257, 256, 102, 257, 256, 103, 257];
  assertEquals(stream, expected.slice(0, stream.length));
  await using other = await Loader.open({
    ...options,
    dataset: { ...options.dataset, path: `${folder.path}/e.bin` },
    seqLen: 3,
  });
  assertEquals([...(await other.next())!.documents], [0, 0, 0]);
});

Deno.test("tokens beyond the vocabulary are an error that names the file", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeFile(`${folder.path}/a.bin`, new Uint8Array(Uint16Array.from([1, 2, 300, 4]).buffer));
  const options = {
    dataset: { name: "files", path: folder.path },
    tokenizer: "bytes",
    batchSize: 1,
    seqLen: 2,
    lanes: 1,
  };
  await using loader = await Loader.open(options);
  await assertRejects(
    () => loader.next(),
    DataError,
    "Document 0 of a.bin has token 300\n  expected: ids from 0 to 257",
  );
});

Deno.test("a file of an unknown format, a path without files and a missing path are errors", async () => {
  const csv = shardFile(toUrl("/a/b.csv"));
  assertEquals(
    assertThrows(() => shardsOf([csv]), DataError, "Cannot tell the format of /a/b.csv").code,
    "unknown_dataset",
  );
  await using folder = await temporaryFolder();
  const none = await assertRejects(
    () => openDataset({ name: "files", path: folder.path }),
    DataError,
    "Cannot find a file at",
  );
  assertEquals(none.code, "no_such_file");
  await assertRejects(() => openDataset({ name: "files" }), DataError, 'Dataset "files" has no path');
});

Deno.test("a bad text is an error with its file, or left out", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeFile(`${folder.path}/a.txt`, new Uint8Array([0xff]));
  await Deno.writeTextFile(`${folder.path}/b.txt`, "b");
  await Deno.writeTextFile(`${folder.path}/c.txt`, "c".repeat(99));
  const files = ["a", "b", "c"].map((name) => shardFile(toUrl(`${folder.path}/${name}.txt`))), bad: string[] = [];
  const onBad = ({ problem }: DataError) => void bad.push(problem.what.replace(folder.path, ""));
  const [shard] = shardsOf(files, { maxBytes: 50, onBad });
  assertEquals(await Array.fromAsync(shard.read(ALL, 0)), [{ index: 1, text: "b" }]);
  assertEquals(bad, ["Cannot read /a.txt: it is not UTF-8", "Cannot read /c.txt: it has more than 50 bytes"]);
  await assertRejects(() => Array.fromAsync(shardsOf(files)[0].read(ALL, 0)), DataError, "/a.txt: it is not UTF-8");
});
