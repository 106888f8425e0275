import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { TitanError } from "../../ffi/error.ts";
import { HASH_BYTES, NativeFile } from "../../ffi/file.ts";
import { library } from "../../ffi/library.ts";

library(); // which stays open

const content = Uint8Array.from({ length: 300_000 }, (_, i) => i * 7 + (i >> 8));
const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A file with that content, for the time of a test. */
async function withFile(test: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, content);
    await test(path);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("up to four parts are read at once, each with the hash that it has alone", () =>
  withFile(async (path) => {
    using first = await NativeFile.open(path);
    using second = await NativeFile.open(path);
    const starts = [3, 150_000, 70_001, 199_999];
    for (let n = 1; n <= starts.length; n++) {
      const into = new Uint8Array(n * 100_001), hashes = new Uint8Array(n * HASH_BYTES);
      const parts = starts.slice(0, n).map((start, i) => ({ file: i % 2 === 0 ? first : second, start }));
      assertEquals(await NativeFile.read(parts, into, hashes), parts.map(() => 100_001));
      for (const [i, { start }] of parts.entries()) {
        const expected = content.subarray(start, start + 100_001);
        assertEquals(into.subarray(i * 100_001, (i + 1) * 100_001), expected);
        assertEquals(hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES).toHex(), hashOf(expected));
      }
    }
    const five = [...starts, 5].map((start) => ({ file: first, start }));
    await assertRejects(() => NativeFile.read(five, new Uint8Array(5)), TitanError, "expected: 1 to 4");
  }));

Deno.test("a file that ends before tells how much there was", () =>
  withFile(async (path) => {
    using file = await NativeFile.open(path);
    assertEquals(await NativeFile.read([{ file, start: 299_990 }], new Uint8Array(64)), [10]);
    assertEquals(await NativeFile.read([{ file, start: 400_000 }], new Uint8Array(64)), [0]);
  }));

Deno.test("what cannot be read is refused by name, and hashes without room before anything is read", () =>
  withFile(async (path) => {
    const { status, message } = await assertRejects(() => NativeFile.open("/nowhere/at/all"), TitanError);
    assertEquals(status, "INVALID_ARGUMENT");
    assertMatch(message, /^Cannot read \/nowhere\/at\/all: No such file or directory\n {2}expected: /);
    const file = await NativeFile.open(path);
    const read = () => NativeFile.read([{ file, start: 0 }], new Uint8Array(64), new Uint8Array(HASH_BYTES - 1));
    await assertRejects(read, RangeError, "expected: 32 for each of 1 parts");
    file[Symbol.dispose]();
    await assertRejects(() => NativeFile.read([{ file, start: 0 }], new Uint8Array(64)), TitanError, "no open file");
  }));
