import { assertEquals } from "@std/assert";
import * as path from "@std/path";

Deno.test("paths are joined, split and related as on POSIX", () => {
  assertEquals(path.join("a", "..", "b", "c.ts"), "b/c.ts");
  assertEquals(path.resolve("/a/b", "../c"), "/a/c");
  assertEquals(path.normalize("a//b/./c"), "a/b/c");
  assertEquals(path.relative("/a/b", "/a/c/d"), "../c/d");
  assertEquals([path.dirname("a/b.ts"), path.basename("a/b.ts", ".ts"), path.extname("a/b.ts")], ["a", "b", ".ts"]);
  assertEquals([path.isAbsolute("/a"), path.isAbsolute("a")], [true, false]);
});

Deno.test("file URLs and paths turn into each other, spaces included", () => {
  assertEquals(path.toFileUrl("/a b/c").href, "file:///a%20b/c");
  assertEquals(path.fromFileUrl(new URL("file:///a%20b/c")), "/a b/c");
});
