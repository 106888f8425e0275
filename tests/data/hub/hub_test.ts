import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DataError } from "../../../data/error.ts";
import { type HubFile, repository } from "../../../data/hub/hub.ts";
import { type Fault, HubServer } from "../hub_server.ts";
import { clientOf, joined, someBytes } from "./fixture.ts";

const SETS = repository("dataset", "org/sets");
const BYTES = someBytes(300_000);

/** A server with one large and one small file, and the large one. */
async function begin(): Promise<{ server: HubServer; commit: string; file: HubFile } & AsyncDisposable> {
  const server = new HubServer();
  const commit = server.add("datasets/org/sets", { "en/large.bin": BYTES, "small.txt": "small" });
  const file = await clientOf(server).file(SETS, "main", "en/large.bin");
  server.asked.length = 0;
  return { server, commit, file, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

/** Faults for the first bodies of large files, one after another. */
function faults(server: HubServer, ...list: Fault[]): void {
  server.fault = ({ elsewhere, method }) => elsewhere && method === "GET" ? list.shift() : undefined;
}

Deno.test("a file is known by the hash, the size and the commit that the hub's redirect tells", async () => {
  await using hub = await begin();
  const { size, etag, commit, path } = hub.file;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", BYTES)).toHex();
  assertEquals({ size, etag, commit, path }, { size: 300_000, etag: hash, commit: hub.commit, path: "en/large.bin" });
  const small = await clientOf(hub.server).file(SETS, hub.commit, "small.txt");
  assertEquals([small.size, small.etag.length], [5, 40]);
});

Deno.test("a list of files comes in pages, and a branch means a commit", async () => {
  await using server = new HubServer();
  const files = Object.fromEntries(Array.from({ length: 25 }, (_, n) => [`part/${n}.txt`, `text ${n}`]));
  const commit = server.add("datasets/org/sets", files);
  server.page = 10;
  const client = clientOf(server);
  assertEquals(await client.commit(SETS, "main"), commit);
  const found = await client.files(SETS, commit);
  assertEquals(found.map(({ path }) => path), Object.keys(files).sort());
  assertEquals(server.asked.length, 4);
  assertEquals(found[0], await client.file(SETS, commit, found[0].path));
});

Deno.test("the bytes of a file are those of the hub, from any place on", async () => {
  await using hub = await begin();
  const client = clientOf(hub.server);
  for (const from of [0, 1, 123_456, 299_999]) {
    assertEquals(await joined(client.bytes(hub.file, from)), BYTES.subarray(from));
  }
  assertEquals(hub.server.ranges(), [0, 1, 123_456, 299_999]);
  const small = await client.file(SETS, hub.commit, "small.txt");
  assertEquals(new TextDecoder().decode(await joined(client.bytes(small, 2))), "all");
});

Deno.test("a connection that breaks is taken up at the byte where it broke", async () => {
  await using hub = await begin();
  faults(hub.server, { kind: "cut", after: 100_000 }, { kind: "stall", after: 50_000 }, { kind: "cut", after: 0 });
  assertEquals(await joined(clientOf(hub.server).bytes(hub.file)), BYTES);
  assertEquals(hub.server.ranges(), [0, 100_000, 150_000, 150_000]);
});

Deno.test("a server that sends all where a part was asked for is read over what is known", async () => {
  await using hub = await begin();
  faults(hub.server, { kind: "cut", after: 100_000 }, { kind: "whole" });
  assertEquals(await joined(clientOf(hub.server).bytes(hub.file)), BYTES);
});

Deno.test("a file that has another content when it is taken up is refused", async () => {
  await using hub = await begin();
  let opened = 0;
  hub.server.fault = ({ elsewhere }) =>
    elsewhere ? { kind: "cut", after: 1000 } : ++opened > 1 ? { kind: "changed" } : undefined;
  const error = await assertRejects(() => joined(clientOf(hub.server).bytes(hub.file)), DataError);
  assertEquals(error.code, "changed_content");
  assert(error.message.includes("en/large.bin of org/sets is another file"), error.message);
});

Deno.test("an answer of a wrong length is refused", async () => {
  await using hub = await begin();
  faults(hub.server, { kind: "length", by: 7 });
  const error = await assertRejects(() => joined(clientOf(hub.server).bytes(hub.file)), DataError);
  assert(error.message.includes("it has 300007 bytes now, and had 300000"), error.message);
});

Deno.test("a file that the hub does not have, and one that it does not show, are told apart", async () => {
  await using hub = await begin();
  const none = await assertRejects(() => clientOf(hub.server).file(SETS, "main", "nowhere"), DataError);
  assertEquals(none.code, "no_such_file");
  assert(none.message.includes("404 (Entry not found)"), none.message);
  hub.server.add("org/gated", { "a.txt": "a" }, { token: "secret" });
  const gated = repository("model", "org/gated");
  const refused = await assertRejects(() => clientOf(hub.server).file(gated, "main", "a.txt"), DataError);
  assertEquals(refused.code, "no_access");
  assert(refused.message.includes("HF_TOKEN"), refused.message);
  assertEquals((await clientOf(hub.server, { token: "secret" }).file(gated, "main", "a.txt")).size, 1);
});

Deno.test("the token goes to the hub, and not to where large files are kept", async () => {
  await using server = new HubServer();
  server.add("org/gated", { "large.bin": BYTES }, { token: "secret" });
  const client = clientOf(server, { token: "secret" });
  await joined(client.bytes(await client.file(repository("model", "org/gated"), "main", "large.bin")));
  assertEquals(server.asked.map(({ elsewhere, headers }) => [elsewhere, headers.get("authorization")]), [
    [false, "Bearer secret"],
    [false, "Bearer secret"],
    [true, null],
  ]);
});

Deno.test("a repository that was renamed is found under its old name", async () => {
  await using hub = await begin();
  hub.server.rename("datasets/org/old", "datasets/org/sets");
  const client = clientOf(hub.server), old = repository("dataset", "org/old");
  assertEquals(await client.commit(old, "main"), hub.commit);
  assertEquals(await joined(client.bytes(await client.file(old, "main", "en/large.bin"))), BYTES);
});

Deno.test("a list that names a path outside of its folder is refused", async () => {
  for (const path of ["../outside", "/etc/passwd", "a/../../b", "a\\..\\b"]) {
    await using server = new HubServer();
    const commit = server.add("datasets/org/sets", { [path]: "x" });
    const error = await assertRejects(() => clientOf(server).files(SETS, commit), DataError);
    assert(error.message.includes("leaves its folder"), error.message);
  }
});

Deno.test("what cannot be a repository's name is refused", () => {
  for (const name of ["", "a/b/c", "../b", "a/..", "org/a b", "org/a?b", "a--b/c"]) {
    assertThrows(() => repository("model", name), DataError, "no name of a repository");
  }
  assertEquals(repository("model", "gpt2").name, "gpt2");
});
