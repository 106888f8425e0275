import { assertEquals, assertThrows } from "@std/assert";
import { strictUtf8, strictUtf8File } from "../../data/utf8.ts";

Deno.test("bytes that are not UTF-8 are refused, and a mark of the byte order is text but at the beginning of a file", () => {
  for (const decoder of [strictUtf8, strictUtf8File]) {
    for (const bytes of [[0xff], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) {
      assertThrows(() => decoder.decode(Uint8Array.from(bytes)), TypeError);
    }
    assertEquals(decoder.decode(new TextEncoder().encode("é😀")), "é😀", "an error leaves nothing behind");
  }
  const marked = Uint8Array.of(0xef, 0xbb, 0xbf, 0x61);
  assertEquals([strictUtf8.decode(marked), strictUtf8File.decode(marked)], ["\ufeffa", "a"]);
});
