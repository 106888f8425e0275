import { assertEquals } from "@std/assert";
import { inflateRawSync } from "node:zlib";
import { prefixFor } from "../../../data/gzip/restart.ts";

Deno.test("a prefix is a stream of its own, whose text is the window, and ends at the bit that is asked for", () => {
  const window = new TextEncoder().encode("what came before");
  for (let bit = 0; bit < 8; bit++) {
    const { bytes, low } = prefixFor(window, bit);
    assertEquals(low >> bit, 0);
    // An empty last block by fixed codes from that bit on: 1, then kind 1, then seven zeros.
    const end = 0b011 << bit | low, stream = Uint8Array.of(...bytes, end & 255, end >> 8, 0);
    assertEquals(new Uint8Array(inflateRawSync(stream)), window, `bit ${bit}`);
  }
});
