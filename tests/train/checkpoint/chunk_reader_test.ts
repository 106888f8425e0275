import { assert, assertEquals, assertRejects } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { type ChunkReader, nativeReader, readChunks, readerHere } from "../../../train/checkpoint/chunk_reader.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { sha256 } from "../../../train/checkpoint/files.ts";
import { temporaryFolder } from "../../data/fixture.ts";

library(); // which stays open

const readers: Readonly<Record<string, () => ChunkReader>> = { "this thread": readerHere, "libtitan": nativeReader };
const content = Uint8Array.from({ length: 1_300_000 }, (_, i) => i * 5 + (i >> 9));

for (const [name, open] of Object.entries(readers)) {
  Deno.test(`parts of files, read by ${name}, have their bytes and hashes`, async () => {
    const folder = await Deno.makeTempDir(), [a, b] = [`${folder}/a`, `${folder}/b`];
    try {
      Deno.writeFileSync(a, content);
      Deno.writeFileSync(b, content.subarray(1000));
      using reader = open();
      const into = new Uint8Array(1_200_000);
      for (const [start, bytes] of [[0, 600_000], [600_000, 600_000], [1_200_000, 99_000]]) {
        const read = await reader.read(
          [{ lane: 0, path: a, start, bytes }, { lane: 1, path: b, start, bytes }],
          into,
          true,
        );
        const expected = [content, content.subarray(1000)].map((file) => file.subarray(start, start + bytes));
        assertEquals(read.map((r) => r.length), [bytes, bytes]);
        expected.forEach((part, i) => assertEquals(into.subarray(i * bytes, (i + 1) * bytes), part));
        assertEquals(read.map((r) => r.hash), expected.map(sha256));
      }
      const [unhashed] = await reader.read([{ lane: 1, path: b, start: 5, bytes: 7 }], into, false);
      assertEquals(unhashed, { length: 7, hash: undefined });
      assertEquals(into.subarray(0, 7), content.subarray(1005, 1012));
      const [short] = await reader.read([{ lane: 0, path: b, start: 1_298_990, bytes: 64 }], into, true);
      assertEquals([short.length, short.hash], [10, undefined]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  Deno.test(`each of many chunks is read once, with the hash that it has alone, by ${name}`, async () => {
    await using folder = await temporaryFolder();
    const chunks = ["a", "b", "c"].flatMap((file, f) => {
      Deno.writeFileSync(`${folder.path}/${file}`, content.subarray(f));
      return Array.from({ length: 14 }, (_, k) => ({
        ...{
          path: `${folder.path}/${file}`,
          start: k * 99_991,
          bytes: Math.min(99_991, content.length - f - k * 99_991),
        },
        ...{ hashed: k !== 5, expected: content.subarray(f).subarray(k * 99_991, (k + 1) * 99_991) },
      }));
    });
    const visited = new Set<string>();
    await readChunks(chunks, open, async ({ path, start, hashed, expected }, { length, hash }, bytes) => {
      await Promise.resolve(); // nothing may be read over these bytes meanwhile
      assertEquals([length, hash], [expected.length, hashed ? sha256(expected) : undefined]);
      assertEquals(sha256(bytes!), sha256(expected));
      visited.add(`${path} ${start}`);
    });
    assertEquals(visited.size, chunks.length);
  });

  Deno.test(`the first failure ends the reading of chunks by ${name}`, async () => {
    await using folder = await temporaryFolder();
    const path = `${folder.path}/a`;
    Deno.writeFileSync(path, content);
    const chunks = Array.from({ length: 1000 }, (_, k) => ({ path, start: k * 1000, bytes: 1000, hashed: false }));
    let visits = 0;
    const read = () =>
      readChunks(chunks, open, () => {
        if (++visits === 20) throw new CheckpointError("it is full", "room", "make some");
      });
    await assertRejects(read, CheckpointError, "it is full");
    assert(visits < 100, `${visits} chunks were read`);
  });

  Deno.test(`a file that is not there is refused by name, read by ${name}`, async () => {
    using reader = open();
    const read = async () =>
      await reader.read([{ lane: 0, path: "/nowhere/a", start: 0, bytes: 1 }], new Uint8Array(1), true);
    await assertRejects(read, CheckpointError, "Cannot read /nowhere/a");
  });
}
