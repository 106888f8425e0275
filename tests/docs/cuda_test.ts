/** The errors that docs/cuda.md lists are planted by the cases that it names. @module */
import { assert, assertEquals } from "@std/assert";

const folder = new URL("../../csrc/tests/", import.meta.url);
const read = (path: string) => Deno.readTextFile(new URL(path, folder));

Deno.test("at least 20 errors are planted in code for GPUs, each by a case that its native test runs", async () => {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    /^cuda_\w+_test\.cpp$/.test(name)
  );
  const tests = await Promise.all(names.map(read));
  const documented = (await read("../../docs/cuda.md")).split("## Errors that tests plant")[1];
  const rows = [...documented.matchAll(/^\| (.+?) +\| `(\w+)` +\|$/gm)];
  assert(rows.length >= 20, `${rows.length} rows`);
  assertEquals(new Set(rows.map(([, error]) => error)).size, rows.length);
  for (const [, error, name] of rows) {
    const text = tests.find((text) => text.includes(`void ${name}(`));
    assert(text, `no test plants "${error}" in ${name}`);
    assert(text.slice(text.indexOf("int main(")).includes(`${name}(`), `${name} is not run`);
  }
});
