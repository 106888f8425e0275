import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../../data/error.ts";
import { isFile } from "../../../data/hub/cache.ts";
import { claim, makeRoom, reading } from "../../../data/hub/room.ts";
import { temporaryFolder } from "../fixture.ts";

/** A cache with contents of 100 bytes, the first of which was read longest ago. */
async function filled(
  ...names: string[]
): Promise<{ folder: string; path: (name: string) => string } & AsyncDisposable> {
  const made = await temporaryFolder(),
    folder = made.path,
    path = (name: string) => `${folder}/datasets--a--b/blobs/${name}`;
  await Deno.mkdir(`${folder}/datasets--a--b/blobs`, { recursive: true });
  for (const [n, name] of names.entries()) {
    await Deno.writeFile(path(name), new Uint8Array(100));
    await Deno.utime(path(name), 1000 + n, 1000 + n);
  }
  return { folder, path, [Symbol.asyncDispose]: () => made[Symbol.asyncDispose]() };
}

Deno.test("what was not read for the longest time goes, and no more than must", async () => {
  await using cache = await filled("a", "b", "c");
  const { folder, path } = cache;
  await using _room = await makeRoom(folder, path("d.incomplete"), 150, 350);
  assertEquals(await Promise.all(["a", "b", "c"].map((name) => isFile(path(name)))), [false, true, true]);
});

Deno.test("what is read stays, and counts as read now", async () => {
  await using cache = await filled("a", "b", "c");
  const { folder, path } = cache;
  using file = await Deno.open(path("a"));
  await reading(file);
  await using _room = await makeRoom(folder, path("d.incomplete"), 100, 200);
  assertEquals(await Promise.all(["a", "b", "c"].map((name) => isFile(path(name)))), [true, false, false]);
  assert((await Deno.stat(path("a"))).mtime!.getTime() > 1_000_000_000);
});

Deno.test("room that is kept for one file is not given to another", async () => {
  await using cache = await filled();
  const { folder, path } = cache;
  await using _room = await makeRoom(folder, path("a.incomplete"), 150, 300);
  const error = await assertRejects(() => makeRoom(folder, path("b.incomplete"), 151, 300), DataError);
  assertEquals(error.code, "cache_full");
  assert(error.message.includes("set data.cache_size to at least"), error.message);
  await using _fits = await makeRoom(folder, path("c.incomplete"), 150, 300);
});

Deno.test("a beginning that nobody goes on with goes as others do, at the size that it was to have", async () => {
  await using cache = await filled();
  const { folder, path } = cache;
  const left = await makeRoom(folder, path("a.incomplete"), 200, 300);
  await left[Symbol.asyncDispose]();
  await using _room = await makeRoom(folder, path("b.incomplete"), 150, 300);
  assertEquals((await Array.fromAsync(Deno.readDir(`${folder}/datasets--a--b/blobs`))).map(({ name }) => name).sort(), [
    "b.incomplete",
    "b.size",
  ]);
});

Deno.test("the room of a file that is whole is that of its bytes", async () => {
  await using cache = await filled();
  const { folder, path } = cache;
  {
    await using _room = await makeRoom(folder, path("a.incomplete"), 200, 300);
    await Deno.writeFile(path("a.incomplete"), new Uint8Array(200));
    await Deno.rename(path("a.incomplete"), path("a"));
  }
  assertEquals(await isFile(path("a.size")), false);
  await using _room = await makeRoom(folder, path("b.incomplete"), 100, 300);
  assertEquals(await isFile(path("a")), true);
});

Deno.test("a folder with files of others is not one to remove from", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/notes.txt`, "mine");
  const error = await assertRejects(() => claim(folder.path), DataError);
  assert(error.message.includes("it holds notes.txt"), error.message);
});

Deno.test("ranks that begin at once all have the folder", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/new/cache`;
  await Promise.all(Array.from({ length: 8 }, () => claim(path)));
  await Deno.mkdir(`${path}/datasets--a--b`);
  await claim(path);
});
