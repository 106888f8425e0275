import { assert, assertEquals, assertRejects } from "@std/assert";
import { dirname } from "@std/path";
import { DataError } from "../../../data/error.ts";
import { HubCache } from "../../../data/hub/cache.ts";
import { download } from "../../../data/hub/download.ts";
import { type HubFile, repository } from "../../../data/hub/hub.ts";
import { temporaryFolder } from "../fixture.ts";
import { HubServer } from "../hub_server.ts";
import { clientOf, someBytes } from "./fixture.ts";

const BYTES = someBytes(300_000);

/** A server with a file, a cache without it. */
async function begin() {
  const server = new HubServer(), folder = await temporaryFolder();
  server.add("org/model", { "weights.bin": BYTES, "small.txt": "small" });
  const client = clientOf(server), model = repository("model", "org/model");
  const file = await client.file(model, "main", "weights.bin"), small = await client.file(model, "main", "small.txt");
  server.asked.length = 0;
  const end = async () => (await server[Symbol.asyncDispose](), await folder[Symbol.asyncDispose]());
  return { server, client, cache: new HubCache(folder.path), file, small, [Symbol.asyncDispose]: end };
}

/** Puts the beginning of a file into a cache, as a download that was broken off leaves it. */
async function keep(cache: HubCache, file: HubFile, bytes: Uint8Array): Promise<void> {
  await Deno.mkdir(dirname(cache.incomplete(file)), { recursive: true });
  await Deno.writeFile(cache.incomplete(file), bytes);
}

Deno.test("a file comes whole, is told how far it is, and is not asked for again", async () => {
  await using hub = await begin();
  const { server, client, cache } = hub, told: number[] = [];
  for (const [file, right] of [[hub.file, BYTES], [hub.small, new TextEncoder().encode("small")]] as const) {
    const path = await download(client, cache, file, { progress: (bytes) => told.push(bytes) });
    assertEquals(await Deno.readFile(path), right);
  }
  assertEquals([told[0], told.includes(300_000), told.at(-1)], [0, true, 5]);
  const before = server.asked.length;
  await download(client, cache, hub.file);
  assertEquals(server.asked.length, before);
});

Deno.test("a download goes on from what one before has left", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  await keep(cache, file, BYTES.subarray(0, 200_000));
  assertEquals(await Deno.readFile(await download(client, cache, file)), BYTES);
  assertEquals(server.ranges(), [200_000]);
});

Deno.test("a download that is stopped leaves what has come", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub, abort = new AbortController();
  server.fault = ({ elsewhere }) => elsewhere ? { kind: "stall", after: 100_000 } : undefined;
  const progress = (bytes: number) => bytes === 100_000 && abort.abort(new Error("enough"));
  await assertRejects(() => download(client, cache, file, { progress, signal: abort.signal }), Error, "enough");
  assertEquals(await Deno.readFile(cache.incomplete(file)), BYTES.subarray(0, 100_000));
  assertEquals(
    await cache.lock(file, { wait: false }).then((lock) => (lock?.[Symbol.asyncDispose](), lock !== undefined)),
    true,
  );
});

Deno.test("where what was kept is damaged, the file is brought anew", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  for (const kept of [new Uint8Array(100_000), new Uint8Array(300_000), new Uint8Array(400_000)]) {
    server.asked.length = 0;
    await keep(cache, file, kept);
    assertEquals(await Deno.readFile(await download(client, cache, file)), BYTES);
    assertEquals(server.ranges().at(-1), 0);
    await Deno.remove(cache.blob(file));
  }
});

Deno.test("a file with a wrong hash is refused, and nothing of it stays", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  server.fault = ({ elsewhere }) => elsewhere ? { kind: "flipped", at: 1234 } : undefined;
  const error = await assertRejects(() => download(client, cache, file), DataError);
  assertEquals(error.code, "changed_content");
  assert(error.message.includes("its hash is another"), error.message);
  assertEquals((await Array.fromAsync(Deno.readDir(dirname(cache.blob(file))))).length, 0);
});

Deno.test("two that want the same file bring it once", async () => {
  await using hub = await begin();
  const { server, client, cache, file } = hub;
  const paths = await Promise.all([1, 2, 3].map(() => download(client, cache, file)));
  assertEquals([new Set(paths).size, server.ranges()], [1, [0]]);
});
