import { assertEquals, assertRejects } from "@std/assert";
import { HashingWriter, sha256, writeLasting } from "../../../train/checkpoint/files.ts";
import { BLOCK_BYTES } from "../../../train/checkpoint/manifest.ts";
import { temporaryFolder } from "../../data/fixture.ts";

Deno.test("a file is hashed block by block, however its bytes come", async () => {
  await using folder = await temporaryFolder();
  const bytes = Uint8Array.from({ length: BLOCK_BYTES + 1000 }, (_, i) => i * 7 + (i >> 9));
  const expected = [sha256(bytes.subarray(0, BLOCK_BYTES)), sha256(bytes.subarray(BLOCK_BYTES))];
  for (const [name, step] of [["whole", bytes.length], ["parts", 999_983]] as const) {
    using writer = new HashingWriter(`${folder.path}/${name}`);
    for (let at = 0; at < bytes.length; at += step) writer.write(bytes.subarray(at, at + step));
    assertEquals(writer.finish(), { bytes: bytes.length, sha256: expected });
    assertEquals(Deno.readFileSync(`${folder.path}/${name}`), bytes);
  }
});

Deno.test("an empty file has the hash of nothing, and a file that is there is not written over", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a`;
  assertEquals(await writeLasting(path, ""), { bytes: 0, sha256: [sha256(new Uint8Array())] });
  await assertRejects(() => writeLasting(path, "other"), Deno.errors.AlreadyExists);
  assertEquals(Deno.readTextFileSync(path), "");
});
