import { assertEquals, assertRejects } from "@std/assert";
import { sha256, writeLasting } from "../../../train/checkpoint/files.ts";
import { CHUNK_BYTES } from "../../../train/checkpoint/manifest.ts";
import { temporaryFolder } from "../../data/fixture.ts";

Deno.test("a text's file is hashed chunk by chunk", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/long`, text = "0123456789abcdef ".repeat(Math.ceil((CHUNK_BYTES + 1000) / 17));
  const bytes = new TextEncoder().encode(text);
  const expected = [sha256(bytes.subarray(0, CHUNK_BYTES)), sha256(bytes.subarray(CHUNK_BYTES))];
  assertEquals(await writeLasting(path, text), { bytes: bytes.length, sha256: expected });
  assertEquals(await Deno.readTextFile(path) === text, true);
});

Deno.test("an empty file has the hash of nothing, and a file that is there is not written over", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a`;
  assertEquals(await writeLasting(path, ""), { bytes: 0, sha256: [sha256(new Uint8Array())] });
  await assertRejects(() => writeLasting(path, "other"), Deno.errors.AlreadyExists);
  assertEquals(Deno.readTextFileSync(path), "");
});
