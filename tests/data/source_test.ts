import { Buffer } from "node:buffer";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { DataError } from "../../data/error.ts";
import { openDataset } from "../../data/dataset.ts";
import { openStream, readBytes, reading, shardFile, show, toUrl, within } from "../../data/source.ts";
import { TextDocuments } from "../../data/text_documents.ts";
import { expand } from "../../data/texts.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { temporaryFolder } from "./fixture.ts";
import { HubServer } from "./hub_server.ts";

Deno.test("paths become file URLs from the working directory, and URLs stay", () => {
  assertEquals(show(toUrl("a b/c.json")), `${Deno.cwd()}/a b/c.json`);
  assertEquals(toUrl("https://example.org/a").href, "https://example.org/a");
  assertEquals(toUrl("file:///a/b").href, "file:///a/b");
});

Deno.test("a file is found in a folder with and without a slash at its end", () => {
  assertEquals(within(new URL("file:///a/b"), "c").href, "file:///a/b/c");
  assertEquals(within(new URL("file:///a/b/"), "c").href, "file:///a/b/c");
});

Deno.test("what is not there, is a folder, or lies below a file gives undefined", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/file`, "x");
  assertEquals(await readBytes(toUrl(`${folder.path}/none`)), undefined);
  assertEquals(await readBytes(toUrl(`${folder.path}/file/none`)), undefined);
  assertEquals(await openStream(toUrl(`${folder.path}/none`)), undefined);
  assertEquals(await openStream(toUrl(folder.path)), undefined);
});

Deno.test("what the system does not let one read is an error with its reason, and what is missing goes through", async () => {
  await using folder = await temporaryFolder();
  await Deno.symlink("loop", `${folder.path}/loop`); // as no permission keeps root out
  const loop = toUrl(`${folder.path}/loop`);
  const reads = [readBytes, openStream].map((read) => () => read(loop));
  const named = [
    () => openDataset({ name: "c4", path: `${folder.path}/loop` }),
    () => expand([`${folder.path}/loop`]),
    () => expand([`${folder.path}/*`]),
    () => TextDocuments.open([`${folder.path}/loop`]),
    () => TextDocuments.open([`${folder.path}/loop/lines.jsonl`]),
    () => Tokenizer.open(`${folder.path}/loop`),
  ];
  for (const read of [...reads, ...named]) {
    const error = await assertRejects<DataError>(read as () => Promise<unknown>, DataError, "Cannot read ");
    assertEquals(error.code, "unreadable");
    assertStringIncludes(error.message, "/loop");
  }
  const missing = () => reading("a", () => Deno.stat(`${folder.path}/none`));
  await assertRejects(missing, Deno.errors.NotFound);
  assertEquals((await assertRejects(() => readBytes(toUrl(folder.path)), DataError)).code, "unreadable");
});

Deno.test("a network that does not answer is an error", async () => {
  const url = new URL("http://127.0.0.1:1/nobody.json.gz");
  for (const read of [readBytes, openStream]) {
    assertEquals((await assertRejects(() => read(url), DataError, `Cannot read ${url.href}: `)).code, "unreachable");
  }
  const { shards } = await openDataset({ name: "c4", path: url.href });
  assertEquals(shards.map(({ name }) => name), ["nobody.json.gz"]);
});

Deno.test("bytes come over the network: found, absent, and refused with the server's answer", async () => {
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/found") return new Response("hello");
    return new Response("no", { status: pathname === "/absent" ? 404 : 503 });
  });
  const url = (name: string) => new URL(`http://127.0.0.1:${server.addr.port}/${name}`);
  assertEquals(new TextDecoder().decode(await readBytes(url("found"))), "hello");
  const chunks = await Array.fromAsync((await openStream(url("found")))!);
  assertEquals(new TextDecoder().decode(chunks[0]), "hello");
  assertEquals(await readBytes(url("absent")), undefined);
  assertEquals(await openStream(url("absent")), undefined);
  const error = await assertRejects(() => readBytes(url("busy")), DataError, "the server answered 503");
  assertEquals(error.code, "unreachable");
});

Deno.test("a shard is read whole or by place, from a folder and over the network alike", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a b.json`, "0123456789");
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const range = request.headers.get("range")?.match(/bytes=(\d+)-(\d+)/);
    if (new URL(request.url).pathname === "/none.json") return new Response("no", { status: 404 });
    return range && new URL(request.url).search === ""
      ? new Response("0123456789".slice(Number(range[1]), Number(range[2]) + 1), { status: 206 })
      : new Response("0123456789", { headers: { "content-length": "10" } });
  });
  const served = (name: string) => new URL(`http://127.0.0.1:${server.addr.port}/${name}`);
  for (const url of [toUrl(`${folder.path}/a b.json`), served("a%20b.json"), served("a%20b.json?whole")]) {
    const file = shardFile(url);
    assertEquals([file.name, await file.size(), await file.identity()], [
      "a b.json",
      10,
      url.protocol === "file:" ? "10" : "",
    ]);
    assertEquals(new TextDecoder().decode(await file.slice(2, 5)), "234");
    const chunks = await Array.fromAsync(await file.open());
    assertEquals(chunks.map((chunk) => new TextDecoder().decode(chunk)).join(""), "0123456789");
  }
  for (const url of [toUrl(`${folder.path}/none.json`), served("none.json"), toUrl(folder.path)]) {
    const file = shardFile(url);
    for (const ask of [() => file.open(), () => file.size(), () => file.slice(0, 1)]) {
      await assertRejects<DataError>(ask as () => Promise<unknown>, DataError, file.location);
    }
  }
});

Deno.test("a file over the network is read from a place on, also where the server sends all of it", async () => {
  await using server = new HubServer();
  server.add("org/a", { "a.bin": "0123456789" });
  const file = shardFile(new URL(`${server.endpoint}/org/a/resolve/main/a.bin`));
  for (const fault of [undefined, { kind: "whole" }] as const) {
    server.fault = () => fault;
    assertEquals(String(Buffer.concat(await Array.fromAsync(await file.open(7)))), "789");
  }
});
