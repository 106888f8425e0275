import { assert, assertEquals } from "@std/assert";
import { CHUNK_BYTES } from "../../../train/checkpoint/manifest.ts";
import { Staging, stagingBytesOf } from "../../../train/checkpoint/staging.ts";

Deno.test("no more chunks are out than there are, and who comes first gets the next one", async () => {
  const staging = new Staging(2 * CHUNK_BYTES), order: string[] = [];
  const [a, b] = [await staging.take(), await staging.take()];
  assert(a !== b && a.length === CHUNK_BYTES);
  const waiting = ["c", "d"].map((name) => staging.take().then((chunk) => (order.push(name), chunk)));
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(order, []);
  staging.give(a);
  assertEquals(await waiting[0], a);
  assertEquals(order, ["c"]);
  staging.give(b);
  assertEquals(await waiting[1], b);
});

Deno.test("a buffer has room for the whole share where training goes on, unless a size is given, and for a few chunks where it stands", () => {
  const share = 100 * CHUNK_BYTES + 1;
  const chunks = (async: boolean, stagingBytes: number) => stagingBytesOf(share, { async, stagingBytes }) / CHUNK_BYTES;
  assertEquals([chunks(true, 0), chunks(true, 1), chunks(true, 20 * CHUNK_BYTES), chunks(false, 0)], [102, 1, 20, 8]);
  assertEquals(stagingBytesOf(10, { async: true, stagingBytes: 0 }), 2 * CHUNK_BYTES);
});
