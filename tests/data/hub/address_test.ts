import { assertEquals, assertThrows } from "@std/assert";
import { fitsAny, parseAddress, showAddress } from "../../../data/hub/address.ts";
import { DataError } from "../../../data/error.ts";

Deno.test("an address has a repository, a revision and a path", () => {
  const of = (address: string) => {
    const { repository: { kind, name }, revision, path } = parseAddress(address);
    return [kind, name, revision, path];
  };
  assertEquals(of("hf://datasets/allenai/c4"), ["dataset", "allenai/c4", "main", ""]);
  assertEquals(of("hf://datasets/allenai/c4@v1/en/*.gz"), ["dataset", "allenai/c4", "v1", "en/*.gz"]);
  assertEquals(of("hf://datasets/a/b@refs%2Fpr%2F1/"), ["dataset", "a/b", "refs/pr/1", ""]);
  assertEquals(of("hf://org/model/config.json"), ["model", "org/model", "main", "config.json"]);
});

Deno.test("an address that is shown is the one that was read", () => {
  for (const address of ["hf://datasets/a/b", "hf://datasets/a/b@refs%2Fpr%2F1/x/y.gz", "hf://a/b@v1"]) {
    assertEquals(showAddress(parseAddress(address)), address);
  }
});

Deno.test("what is no address is refused", () => {
  for (const address of ["hf://", "hf://datasets/", "hf://datasets/only", "hf://datasets/a/..", "https://a/b"]) {
    assertThrows(() => parseAddress(address), DataError);
  }
});

Deno.test("in a pattern * stands for folders too, a folder for all in it, and a point for a point", () => {
  const fits = (path: string, ...patterns: string[]) => fitsAny(path, patterns);
  assertEquals([fits("a/b/c.txt", "*.txt"), fits("a/b/c.txt", "a/"), fits("c.txt", "?.txt")], [true, true, true]);
  assertEquals([fits("axtxt", "*.txt"), fits("b/a", "a/"), fits("cc.txt", "?.txt"), fits("a")], Array(4).fill(false));
  assertEquals(fits("b.json", "*.txt", "*.json"), true);
});
