import { assertEquals } from "@std/assert";
import { seekStore, withSeekStore } from "../../../data/gzip/seek_store.ts";
import { shardFile, toUrl } from "../../../data/source.ts";
import { temporaryFolder } from "../fixture.ts";

const BYTES = new TextEncoder().encode("index");

Deno.test("an index is found by what it is the index of", async () => {
  await using folder = await temporaryFolder();
  const of = (key: string) => seekStore(`${folder.path}/own`, () => Promise.resolve(key));
  assertEquals(await of("a").read(), undefined);
  await of("a").write(BYTES);
  assertEquals(await of("a").read(), BYTES);
  assertEquals(await of("b").read(), undefined);
});

Deno.test("an index is none of a file that was written anew", async () => {
  await using folder = await temporaryFolder();
  const url = toUrl(`${folder.path}/a.gz`);
  await Deno.writeTextFile(url, "one");
  const file = () => withSeekStore(shardFile(url), url, `${folder.path}/own`);
  await file().seek!.write(BYTES);
  assertEquals(await file().seek!.read(), BYTES);
  await Deno.writeTextFile(url, "two"); // as long as before
  await Deno.utime(url, 1000, 1000);
  assertEquals(await file().seek!.read(), undefined);
});

Deno.test("a folder that is not one of libtitan's gets no index, and that is no error", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/mine.txt`, "mine");
  const store = seekStore(folder.path, () => Promise.resolve("a"));
  await store.write(BYTES);
  assertEquals(await store.read(), undefined);
  assertEquals((await Array.fromAsync(Deno.readDir(folder.path))).length, 1);
});
