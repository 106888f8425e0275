import { assert, assertEquals } from "@std/assert";
import { BLOCK_BYTES } from "../../../train/checkpoint/manifest.ts";
import { Staging, stagingBytesOf } from "../../../train/checkpoint/staging.ts";

Deno.test("no more blocks are out than there are, and who comes first gets the next one", async () => {
  const staging = new Staging(2 * BLOCK_BYTES), order: string[] = [];
  const [a, b] = [await staging.take(), await staging.take()];
  assert(a !== b && a.length === BLOCK_BYTES);
  const waiting = ["c", "d"].map((name) => staging.take().then((block) => (order.push(name), block)));
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(order, []);
  staging.give(a);
  assertEquals(await waiting[0], a);
  assertEquals(order, ["c"]);
  staging.give(b);
  assertEquals(await waiting[1], b);
});

Deno.test("a buffer has room for the whole share where training goes on, unless a size is given, and for a few blocks where it stands", () => {
  const share = 100 * BLOCK_BYTES + 1;
  const blocks = (async: boolean, stagingBytes: number) => stagingBytesOf(share, { async, stagingBytes }) / BLOCK_BYTES;
  assertEquals([blocks(true, 0), blocks(true, 1), blocks(true, 20 * BLOCK_BYTES), blocks(false, 0)], [102, 1, 20, 8]);
  assertEquals(stagingBytesOf(10, { async: true, stagingBytes: 0 }), 2 * BLOCK_BYTES);
});
