/** The errors that docs/cuda.md lists are planted by the tests that it names. @module */
import { assert, assertEquals } from "@std/assert";

const read = (path: string) => Deno.readTextFile(new URL(`../../${path}`, import.meta.url));

Deno.test("at least 20 errors are planted in code for GPUs, each by a case that its native test runs", async () => {
  const rows = [...(await read("docs/cuda.md")).matchAll(/^\| (.+?) +\| `(cuda_\w+_test)`, `(\w+)` +\|$/gm)];
  assert(rows.length >= 20, `${rows.length} rows`);
  assertEquals(new Set(rows.map(([, error]) => error)).size, rows.length);
  for (const [, error, file, name] of rows) {
    const text = await read(`csrc/tests/${file}.cpp`), main = text.slice(text.indexOf("int main()"));
    assert(text.includes(`void ${name}(`), `${file} does not plant "${error}" in ${name}`);
    assert(main.includes(`${name}(`), `${file} does not run ${name}`);
  }
});
