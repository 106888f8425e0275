import { assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { expand } from "../../data/texts.ts";
import { temporaryFolder } from "./fixture.ts";

/** A folder of text files whose content is their name. */
async function notes() {
  const folder = await temporaryFolder();
  for (
    const name of [
      "b.md",
      "a.md",
      "c.txt",
      ".hidden.md",
      "deep/d.md",
      "deep/er/e.md",
      ".git/f.md",
      "x(1).md",
      "lines.jsonl",
      "page.html",
    ]
  ) {
    await Deno.mkdir(`${folder.path}/${name}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(`${folder.path}/${name}`, name);
  }
  return folder;
}

Deno.test("paths, folders and patterns name files, each once and sorted", async (t) => {
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
    [["deep"], ["deep/d.md", "deep/er/e.md"]],
    [["deep/"], ["deep/d.md", "deep/er/e.md"]],
    [[""], ["a.md", "b.md", "c.txt", "deep/d.md", "deep/er/e.md", "lines.jsonl", "x(1).md"]],
    [["*.jsonl", "p*"], ["lines.jsonl", "page.html"]],
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
  await Deno.mkdir(`${folder.path}/pages`);
  await Deno.writeTextFile(`${folder.path}/pages/page.html`, "no text of a folder");
  for (const pattern of ["none.md", "*.pdf", "none/*.md", "pages", "a.md/*"]) {
    const path = `${folder.path}/${pattern}`;
    const error = await assertRejects(() => expand([`${folder.path}/a.md`, path]), DataError, JSON.stringify(path));
    assertEquals(error.code, "no_such_file");
  }
});
