import { assert, assertEquals, assertRejects } from "@std/assert";
import { DataError } from "../../../data/error.ts";
import { HubCache, isFile } from "../../../data/hub/cache.ts";
import { repository } from "../../../data/hub/hub.ts";
import { readShared } from "../../../data/hub/shared_file.ts";
import { temporaryFolder } from "../fixture.ts";
import { HubServer } from "../hub_server.ts";
import { clientOf, joined, someBytes } from "./fixture.ts";

const BYTES = someBytes(3_000_000);
const LIMIT = 10_000_000;

/** A server with a file, and an empty cache. */
async function begin() {
  const server = new HubServer(), folder = await temporaryFolder();
  server.add("datasets/org/sets", { "a.bin": BYTES });
  const client = clientOf(server), cache = new HubCache(folder.path);
  const file = await client.file(repository("dataset", "org/sets"), "main", "a.bin");
  const end = async () => (await server[Symbol.asyncDispose](), await folder[Symbol.asyncDispose]());
  return { server, client, cache, file, [Symbol.asyncDispose]: end };
}

Deno.test("readers of one file get all of it, and it is brought once", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  const read = (from: number) => joined(readShared(client, cache, file, { limit: LIMIT, from }));
  const [a, b, c] = await Promise.all([read(0), read(0), read(2_000_000)]);
  assertEquals([a, b, c], [BYTES, BYTES, BYTES.subarray(2_000_000)]);
  assertEquals(server.ranges(), [0]);
  assertEquals(await read(1_000_000), BYTES.subarray(1_000_000));
  assertEquals(server.ranges(), [0]);
});

Deno.test("the first bytes are read before the last have come", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  server.fault = ({ elsewhere }) => elsewhere ? { kind: "stall", after: 100_000 } : undefined;
  for await (const chunk of readShared(client, cache, file, { limit: LIMIT })) {
    assertEquals(chunk, BYTES.subarray(0, chunk.length));
    break;
  }
  assertEquals(await isFile(cache.blob(file)), false);
});

Deno.test("where who brings a file leaves, another goes on", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  let first = true;
  server.fault = ({ elsewhere }) => {
    const stalls = elsewhere && first;
    if (elsewhere) first = false;
    return stalls ? { kind: "stall", after: 1_000_000 } : undefined;
  };
  const bringer = readShared(client, cache, file, { limit: LIMIT });
  await bringer.next();
  const follower = joined(readShared(client, cache, file, { limit: LIMIT }));
  await bringer.return();
  assertEquals(await follower, BYTES);
  assertEquals(server.ranges().length, 2);
  assert(server.ranges()[1] > 0);
});

Deno.test("wrong bytes are refused at their end at the latest, for all readers", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  server.fault = ({ elsewhere }) => elsewhere ? { kind: "flipped", at: 2_999_999 } : undefined;
  const readers = [1, 2].map(() =>
    assertRejects(() => joined(readShared(client, cache, file, { limit: LIMIT })), DataError, "its hash is another")
  );
  for (const error of await Promise.all(readers)) assertEquals(error.code, "changed_content");
  assertEquals(await isFile(cache.blob(file)), false);
});

Deno.test("what was left damaged by an earlier process is not taken for right", async () => {
  await using hub = await begin();
  const { client, cache, file } = hub;
  await Deno.mkdir(new URL(".", `file://${cache.incomplete(file)}`), { recursive: true });
  await Deno.writeFile(cache.incomplete(file), new Uint8Array(1_000_000));
  await assertRejects(() => joined(readShared(client, cache, file, { limit: LIMIT })), DataError, "it was removed");
  assertEquals(await joined(readShared(client, cache, file, { limit: LIMIT })), BYTES);
});

Deno.test("a file that does not fit into the cache is refused", async () => {
  await using hub = await begin();
  const { client, cache, file } = hub;
  const error = await assertRejects(() => joined(readShared(client, cache, file, { limit: 1_000_000 })), DataError);
  assertEquals(error.code, "cache_full");
});
