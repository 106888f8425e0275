import { assertEquals, assertRejects } from "@std/assert";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { DataError } from "../../data/error.ts";
import { openPlain, plainName } from "../../data/inflate.ts";
import { shardFile, toUrl } from "../../data/source.ts";
import { isOpen, temporaryFolder } from "./fixture.ts";

/** Writes a file, and gives the text in it. */
async function inflated(name: string, bytes: Uint8Array): Promise<string> {
  await using folder = await temporaryFolder();
  await Deno.writeFile(`${folder.path}/${name}`, bytes);
  await using plain = await openPlain(shardFile(toUrl(`${folder.path}/${name}`)));
  assertEquals([plain.line, plain.byte], [0, 0]);
  const chunks = await Array.fromAsync(plain.chunks);
  return chunks.map((chunk) => new TextDecoder().decode(chunk)).join("");
}

Deno.test("a file's text is found by the ending of its name", async () => {
  const text = "some text\n".repeat(1000);
  assertEquals(await inflated("a.json.gz", gzipSync(text)), text);
  assertEquals(await inflated("a.json.zst", zstdCompressSync(text)), text);
  assertEquals(await inflated("a.json", new TextEncoder().encode(text)), text);
  assertEquals(["a.json.gz", "b.jsonl.ZST", "c.gz.txt"].map(plainName), ["a.json", "b.jsonl", "c.gz.txt"]);
});

Deno.test("a file that is cut off, or no such file, is an error of its format", async () => {
  const text = Array.from({ length: 999 }, (_, i) => String(Math.sin(i))).join("\n");
  const gzip = gzipSync(text), zstd = zstdCompressSync(text);
  const refused = (name: string, bytes: Uint8Array, message: string) =>
    assertRejects(() => inflated(name, bytes), DataError, message);
  assertEquals((await refused("a.gz", gzip.subarray(0, 999), "/a.gz is cut off: ")).code, "damaged_shard");
  await refused("a.zst", zstd.subarray(0, 999), "/a.zst is cut off: ");
  await refused("a.zst", gzip, "/a.zst is damaged: ");
  await refused("a.zst", gzip, "a complete zstd file");
  const frames = new Uint8Array([...zstd, ...zstdCompressSync("\nthe end")]);
  assertEquals(await inflated("a.zst", frames), `${text}\nthe end`);
  await refused("a.zst", frames.subarray(0, -1), "/a.zst is cut off: ");
});

Deno.test("a file that is left early is closed", { ignore: Deno.build.os !== "linux" }, async () => {
  await using folder = await temporaryFolder();
  for (const name of ["a.gz", "a.zst", "a.txt"]) {
    const path = `${folder.path}/${name}`, text = new Uint8Array(5 << 20).map((_, i) => i * i);
    await Deno.writeFile(path, name === "a.gz" ? gzipSync(text) : name === "a.zst" ? zstdCompressSync(text) : text);
    {
      await using plain = await openPlain(shardFile(toUrl(path)));
      for await (const _ of plain.chunks) break;
    }
    assertEquals(isOpen(path), false, name);
  }
});
