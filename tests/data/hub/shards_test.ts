import { assert, assertEquals, assertRejects } from "@std/assert";
import { gzipSync } from "node:zlib";
import { DataError } from "../../../data/error.ts";
import { parseAddress } from "../../../data/hub/address.ts";
import { HubCache } from "../../../data/hub/cache.ts";
import { download } from "../../../data/hub/download.ts";
import { repository } from "../../../data/hub/hub.ts";
import type { Patience } from "../../../data/hub/requests.ts";
import { HubShards } from "../../../data/hub/shards.ts";
import { readJsonLines } from "../../../data/json_lines.ts";
import type { ShardFile } from "../../../data/source.ts";
import { c4Lines, someTexts, temporaryFolder } from "../fixture.ts";
import { type Asked, type Fault, HubServer } from "../hub_server.ts";
import { clientOf, joined, PATIENCE } from "./fixture.ts";

const ALL = { from: 0, every: 1, offset: 0 };
const SETS = repository("dataset", "org/sets");
/** Three shards of C4's kind. */
const TEXTS = [0, 1, 2].map((n) => someTexts(300, n * 1000));
const FILES = Object.fromEntries(TEXTS.map((texts, n) => [`en/part-${n}.json.gz`, gzipSync(c4Lines(texts))]));

/** A server with the shards, and folders for both caches. */
async function begin() {
  const server = new HubServer(), folder = await temporaryFolder();
  const commit = server.add("datasets/org/sets", { ...FILES, "README.md": "no data" });
  const shards = (patience: Patience = PATIENCE) => {
    const settings = { endpoint: server.endpoint, token: undefined, offline: false };
    return new HubShards({
      settings: { ...settings, cache: `${folder.path}/hub`, own: `${folder.path}/own` },
      patience,
    });
  };
  const end = async () => (await server[Symbol.asyncDispose](), await folder[Symbol.asyncDispose]());
  return { server, folder: folder.path, commit, shards, [Symbol.asyncDispose]: end };
}

async function textsOf(file: ShardFile): Promise<string[]> {
  return (await Array.fromAsync(readJsonLines(file, ALL))).map(({ text }) => text);
}

Deno.test("an address names the files of a repository, of a folder, of a pattern, or one", async () => {
  await using hub = await begin();
  const { shards, commit } = hub;
  const names = async (path: string) =>
    (await shards().find(parseAddress(`hf://datasets/org/sets${path}`), (name) => name.endsWith(".json.gz")))
      .map(({ name }) => name);
  const all = ["part-0.json.gz", "part-1.json.gz", "part-2.json.gz"];
  for (const path of ["", "/en", "/en/*", "/*/part-?.json.gz", `@${commit}/en`]) {
    assertEquals(await names(path), all, path);
  }
  assertEquals(await names("/en/part-1.json.gz"), ["part-1.json.gz"]);
  const error = await assertRejects(() => names("/en/*.parquet"), DataError);
  assertEquals(error.code, "empty_dataset");
  await assertRejects(() => names("/de"), DataError, "404");
});

Deno.test("shards are streamed, and read from the cache after that", async () => {
  await using hub = await begin();
  const { shards, server } = hub;
  const files = await shards().find(parseAddress("hf://datasets/org/sets/en"), () => true);
  for (const [n, file] of files.entries()) assertEquals(await textsOf(file), TEXTS[n]);
  assert(files[0].location.startsWith(`hf://datasets/org/sets@${hub.commit}/en/`), files[0].location);
  server.asked.length = 0;
  const again = shards().shard(SETS, hub.commit, "en/part-1.json.gz");
  assertEquals(await textsOf(again), TEXTS[1]);
  assertEquals(server.asked.length, 0);
});

Deno.test("a shard that was downloaded on purpose is read from there, without a question", async () => {
  await using hub = await begin();
  const { shards, server, commit } = hub, client = clientOf(server), path = "en/part-2.json.gz";
  await download(client, new HubCache(`${hub.folder}/hub`), await client.file(SETS, commit, path));
  server.asked.length = 0;
  const file = shards().shard(SETS, commit, path);
  assertEquals(await textsOf(file), TEXTS[2]);
  assertEquals([await file.size(), server.asked.length], [FILES[path].length, 0]);
});

Deno.test("a shard is read from any byte on, and in slices", async () => {
  await using hub = await begin();
  const { shards, commit } = hub, path = "en/part-0.json.gz", bytes = new Uint8Array(FILES[path]);
  for (const cached of [false, true]) {
    const file = shards().shard(SETS, commit, path);
    assertEquals(await file.slice(10, 20), bytes.slice(10, 20));
    assertEquals(await file.slice(bytes.length - 5, bytes.length + 5), bytes.slice(-5));
    assertEquals(await joined(await file.open(1000)), bytes.subarray(1000), String(cached));
    if (!cached) assertEquals(await textsOf(file), TEXTS[0]);
  }
});

Deno.test("a shard that is left early lets go of its file and of the network at once", async () => {
  await using hub = await begin();
  const { shards, server, commit } = hub;
  server.fault = ({ elsewhere }) => elsewhere ? { kind: "stall", after: 5 } : undefined;
  const begun = performance.now();
  const stream = await shards().shard(SETS, commit, "en/part-0.json.gz").open();
  assertEquals((await stream[Symbol.asyncIterator]().next()).value.length, 5);
  const closed = new Promise((done) => stream.once("close", done));
  stream.destroy();
  await closed;
  assert(performance.now() - begun < 60_000);
});

Deno.test("what lies before a place of the index is not asked for again where the cache has lost it", async () => {
  await using hub = await begin();
  // 20 MiB of text, which gzip makes small
  const lines = Array.from({ length: 10_000 }, (_, n) => `${n} `.repeat(400) + someTexts(1, n));
  const path = "part.json.gz", bytes = gzipSync(c4Lines(lines)), { server, folder, shards } = hub;
  const commit = server.add("datasets/org/sets", { [path]: bytes });
  const shard = () => shards().shard(SETS, commit, path), from = 9000;
  const rest = async () => (await Array.fromAsync(readJsonLines(shard(), { ...ALL, from }))).map(({ text }) => text);
  assertEquals((await textsOf(shard())).length, lines.length);
  server.asked.length = 0;
  assertEquals(await rest(), lines.slice(from));
  assertEquals(server.ranges(), []);

  await Deno.remove(`${folder}/own/datasets--org--sets`, { recursive: true });
  let cuts = 1;
  server.fault = ({ elsewhere }) => elsewhere && cuts-- > 0 ? { kind: "cut", after: 1000 } : undefined;
  assertEquals(await rest(), lines.slice(from));
  const [first, second, ...more] = server.ranges();
  assert(first > bytes.length / 2 && more.length === 0, `${[first, second, more]} of ${bytes.length}`);
  assertEquals(second, first + 1000);

  // What a place lies behind is begun by others: the copy that they bring is read.
  server.asked.length = 0;
  assertEquals(await joined(await shard().open()), new Uint8Array(bytes));
  assertEquals(await rest(), lines.slice(from));
  assertEquals(server.ranges(), [0]);
});

/** Numbers from 0 to 1 that follow from a seed. */
function random(seed: number): () => number {
  let x = seed * 2654435761 >>> 0 || 1;
  return () => {
    x ^= x << 13, x ^= x >>> 17, x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

/** A fault of any kind, as often as `share` says. */
function schedule(seed: number, share: number): (asked: Asked) => Fault | undefined {
  const next = random(seed), below = (n: number) => Math.floor(next() * n);
  const kinds: (() => Fault)[] = [
    () => ({ kind: "status", status: 429, headers: { "retry-after": "0" } }),
    () => ({ kind: "status", status: [500, 502, 503, 504][below(4)] }),
    () => ({ kind: "close" }),
    () => ({ kind: "stall" }),
    () => ({ kind: "stall", after: below(20_000) }),
    () => ({ kind: "cut", after: below(20_000) }),
    () => ({ kind: "cut", after: below(20_000) }),
    () => ({ kind: "whole" }),
    () => ({ kind: "length", by: [-7, 7][below(2)] }),
    () => ({ kind: "changed" }),
    () => ({ kind: "flipped", at: below(20_000) }),
  ];
  return () => next() < share ? kinds[below(kinds.length)]() : undefined;
}

Deno.test("through 500 schedules of faults the right text comes, or an error that names shard, line and cause", async () => {
  const patience = { attempts: 4, answer: 500, silence: 500, firstWait: 1, longestWait: 50 };
  const ends: Record<string, number> = {};
  /** A hub of its own goes through the schedules of the seeds from `first` on. */
  const through = async (first: number) => {
    await using hub = await begin();
    const { server, folder, commit, shards } = hub;
    for (let seed = first; seed <= 500; seed += 10) {
      const path = `en/part-${seed % 3}.json.gz`,
        read = (shards: HubShards) => textsOf(shards.shard(SETS, commit, path));
      server.fault = schedule(seed, seed % 4 === 0 ? 0.7 : 0.25);
      const error = await read(shards(patience)).then((texts) => {
        assertEquals(texts, TEXTS[seed % 3], `seed ${seed}`);
      }, (error) => error);
      ends[error?.code ?? "right"] = (ends[error?.code ?? "right"] ?? 0) + 1;
      if (error !== undefined) {
        const message = `seed ${seed}: ${error.message}`;
        assert(error instanceof DataError && message.includes(path) && /line \d+.*: /.test(message), message);
        assert(!/correct the line|download the shard again/.test(message), message);
        // What was kept is no reason for another failure.
        server.fault = () => undefined;
        assertEquals(await read(shards()), TEXTS[seed % 3], `seed ${seed}, again`);
      }
      if (seed % 50 > 10) await Deno.remove(`${folder}/own`, { recursive: true });
    }
  };
  await Promise.all(Array.from({ length: 10 }, (_, n) => through(n + 1)));
  const { right, ...refused } = ends;
  assert(right > 150 && right < 490, JSON.stringify(ends));
  for (const code of ["changed_content", "damaged_shard", "unreachable"]) {
    assert(refused[code] > 0, JSON.stringify(ends));
  }
});
