import { assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { expand, readTexts } from "../../data/texts.ts";
import { temporaryFolder } from "./fixture.ts";

/** A folder of text files whose content is their name. */
async function notes() {
  const folder = await temporaryFolder();
  for (const name of ["b.md", "a.md", "c.txt", ".hidden.md", "deep/d.md", "deep/er/e.md", ".git/f.md", "x(1).md"]) {
    await Deno.mkdir(`${folder.path}/${name}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${folder.path}/${name}`, name);
  }
  return folder;
}

Deno.test("patterns name files, each once and sorted", async (t) => {
  await using folder = await notes();
  const cases: [string[], string[]][] = [
    [["*.md"], ["a.md", "b.md", "x(1).md"]],
    [["?.md"], ["a.md", "b.md"]],
    [["x(1).md"], ["x(1).md"]],
    [["x(?).md"], ["x(1).md"]],
    [["c.txt", "*.md", "a.md"], ["a.md", "b.md", "c.txt", "x(1).md"]],
    [["**/*.md"], ["a.md", "b.md", "deep/d.md", "deep/er/e.md", "x(1).md"]],
    [["deep/**"], ["deep/d.md", "deep/er/e.md"]],
    [["d*/*.md"], ["deep/d.md"]],
    [["*/er/*"], ["deep/er/e.md"]],
    [[".*.md"], [".hidden.md"]],
    [[".git/*"], [".git/f.md"]],
  ];
  for (const [patterns, names] of cases) {
    await t.step(patterns.join(", "), async () => {
      const found = await expand(patterns.map((pattern) => `${folder.path}/${pattern}`));
      assertEquals(found, names.map((name) => `${folder.path}/${name}`));
    });
  }
});

Deno.test("a pattern may be relative to the working directory", async () => {
  assertEquals((await expand(["deno.js*"])).includes("deno.json"), true);
});

Deno.test("a path or pattern that names no file is an error", async () => {
  await using folder = await notes();
  for (const pattern of ["none.md", "*.pdf", "none/*.md", "deep", "a.md/*"]) {
    const path = `${folder.path}/${pattern}`;
    const error = await assertRejects(() => expand([`${folder.path}/a.md`, path]), DataError, JSON.stringify(path));
    assertEquals(error.code, "no_such_file");
  }
});

Deno.test("every file is a document; every k-th can be read from a place on", async () => {
  await using folder = await notes();
  const files = await expand([`${folder.path}/**/*.md`]);
  const read = async (from: number, every: number, offset: number) =>
    (await Array.fromAsync(readTexts(files, { from, every, offset }))).map(({ index, text }) => `${index} ${text}`);
  assertEquals(await read(0, 1, 0), ["0 a.md", "1 b.md", "2 deep/d.md", "3 deep/er/e.md", "4 x(1).md"]);
  assertEquals(await read(0, 2, 1), ["1 b.md", "3 deep/er/e.md"]);
  assertEquals(await read(2, 2, 1), ["3 deep/er/e.md"]);
});

Deno.test("a file that is not UTF-8, or gone, is an error that names it", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/image.md`;
  const read = () => Array.fromAsync(readTexts([path], { from: 0, every: 1, offset: 0 }));
  assertEquals((await assertRejects(read, DataError, path)).code, "no_such_file");
  await Deno.writeFile(path, new Uint8Array([0x41, 0xff]));
  assertEquals((await assertRejects(read, DataError, `Cannot read ${path}: it is not UTF-8`)).code, "bad_document");
});
