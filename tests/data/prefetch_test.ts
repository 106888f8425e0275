import { assert, assertEquals, assertRejects } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { gzipSync } from "node:zlib";
import { shardName } from "../../data/c4.ts";
import { SAMPLE, texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Loader } from "../../data/loader.ts";
import { prefetch, type PrefetchOptions } from "../../data/prefetch.ts";
import { c4Lines, plain, someTexts, take, temporaryFolder, writeShards } from "./fixture.ts";

const SAMPLE_OPTIONS = { dataset: { name: "c4_test" }, batchSize: 4, seqLen: 64, lanes: 8 };

Deno.test("the worker gives the batches and the states of the loader", async () => {
  await using ahead = await prefetch(SAMPLE_OPTIONS);
  await using loader = await Loader.open(SAMPLE_OPTIONS);
  assertEquals(ahead.state(), loader.state());
  for (let n = 0; n < 40; n++) {
    assertEquals(plain((await ahead.next())!), plain((await loader.next())!));
    assertEquals(ahead.state(), loader.state(), "the position is the user's, not that of the worker");
  }
  const { vocabSize, bosId, eosId } = loader.tokenizer;
  assertEquals([ahead.vocabSize, ahead.bosId, ahead.eosId, ahead.lanes], [vocabSize, bosId, eosId, 8]);
  assertEquals(ahead.description, loader.sources[0].dataset.description);
});

Deno.test("the worker goes on from a state in mid-shard", async () => {
  await using loader = await Loader.open(SAMPLE_OPTIONS);
  await take(loader, 30);
  const state = JSON.parse(JSON.stringify(loader.state()));
  await using ahead = await prefetch({ ...SAMPLE_OPTIONS, state });
  assertEquals(ahead.state(), state);
  assertEquals(await take(ahead, 20), await take(loader, 20));
});

Deno.test("a finite worker ends as the loader does, and stays ended", async () => {
  await using folder = await temporaryFolder();
  for (const [n, text] of someTexts(9).entries()) await Deno.writeTextFile(`${folder.path}/${n}.txt`, text);
  const options = { dataset: texts(`${folder.path}/*.txt`), batchSize: 4, seqLen: 16, lanes: 3, infinite: false };
  await using loader = await Loader.open(options);
  await using ahead = await prefetch({ ...options, ahead: 1 });
  const expected = await take(loader);
  assert(expected.length > 3);
  assertEquals(await take(ahead), expected);
  assertEquals(await ahead.next(), undefined);
});

Deno.test("an error ahead comes after the batches before it, the same as the loader's", async () => {
  await using folder = await temporaryFolder();
  const lines = c4Lines(someTexts(40)) + '{"url": "no text"}\n';
  await Deno.writeFile(`${folder.path}/${shardName("train", 0, 1)}`, gzipSync(lines));
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 1, seqLen: 128, lanes: 1 };
  await using loader = await Loader.open(options);
  await using ahead = await prefetch(options);
  const before: Record<string, unknown>[] = [];
  const expected = await assertRejects(
    async () => {
      for (;;) before.push(...await take(loader, 1));
    },
    DataError,
    "Cannot read line 41 (byte 8662) of shard",
  );
  assert(before.length > 4);
  assertEquals(await take(ahead, before.length), before);
  for (let n = 0; n < 2; n++) {
    const error = await assertRejects(() => ahead.next(), DataError);
    assertEquals([error.message, error.code], [expected.message, "bad_document"]);
  }
});

Deno.test("errors of opening are the loader's", async () => {
  for (
    const wrong of [
      { dataset: { name: "files" } },
      { tokenizer: "nowhere" },
      { tokenizer: new URL("file:///nowhere") },
      { batchSize: 0 },
    ]
  ) {
    const options = { ...SAMPLE_OPTIONS, ...wrong };
    const expected = await assertRejects(() => Loader.open(options), DataError);
    const error = await assertRejects(() => prefetch(options), DataError);
    assertEquals(error.message, expected.message);
  }
  await assertRejects(() => prefetch({ ...SAMPLE_OPTIONS, ahead: 0 }), DataError, "Cannot read 0 batches ahead");
});

Deno.test("closing ends a call that waits, and those after it", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "one two three four five six");
  await Deno.writeTextFile(`${folder.path}/b.txt`, someTexts(1, 0)[0].repeat(20_000)); // long to tokenise
  const ahead = await prefetch({ dataset: texts(`${folder.path}/*.txt`), batchSize: 1, seqLen: 8, lanes: 1 });
  assertEquals((await ahead.next())?.rows, 1);
  const waiting = assertRejects(() => ahead.next(), Error, "The loader is closed");
  await ahead[Symbol.asyncDispose]();
  await waiting;
  await assertRejects(() => ahead.next(), Error, "The loader is closed");
});

Deno.test("it works where libtitan is imported over the network, and its sample with it", async () => {
  const root = fromFileUrl(new URL("../..", import.meta.url));
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const path = new URL(request.url).pathname;
    try {
      const type = path.endsWith(".ts") ? "application/typescript" : "application/octet-stream";
      return new Response(await Deno.readFile(root + path), { headers: { "content-type": type } });
    } catch {
      return new Response(null, { status: 404 });
    }
  });
  await using folder = await temporaryFolder();
  const origin = `127.0.0.1:${server.addr.port}`;
  await Deno.writeTextFile(
    `${folder.path}/main.ts`,
    `import { prefetch, type PrefetchOptions } from "http://${origin}/data/prefetch.ts";
     await using loader = await prefetch(${JSON.stringify(SAMPLE_OPTIONS)});
     console.log(JSON.stringify([...(await loader.next()).tokens]));`,
  );
  // what stands in for @std/path is a file here
  const permissions = [`--allow-read=${root}std`, `--allow-import=${origin}`, `--allow-net=${origin}`, "--no-prompt"];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--no-lock", "--config", `${root}/deno.json`, ...permissions, `${folder.path}/main.ts`],
  }).output();
  await using loader = await Loader.open(SAMPLE_OPTIONS);
  const text = new TextDecoder();
  assertEquals(text.decode(stdout).trim(), JSON.stringify([...(await loader.next())!.tokens]), text.decode(stderr));
});

Deno.test("a lane that has no document, or too little text, is told before any batch", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(3)]);
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 1, seqLen: 8 };
  for (const infinite of [true, false]) {
    const lanes = { ...options, lanes: 4, infinite };
    await assertRejects(() => prefetch(lanes), DataError, "Lane 3 of 4 finds no document");
    const long = { ...options, lanes: 1, seqLen: 5000, infinite };
    await assertRejects(() => prefetch(long), DataError, "expected: at least 5001 tokens");
    await using loader = await prefetch({ ...options, lanes: 3, infinite });
    assertEquals(loader.state().lanes.map(({ cursors: [{ document, token }] }) => [document, token]), [[0, 0], [0, 0], [
      0,
      0,
    ]]);
  }
});

Deno.test("several workers give the batches and the states of one, a mixture's too", async () => {
  await using folder = await temporaryFolder();
  for (const [n, text] of someTexts(40).entries()) await Deno.writeTextFile(`${folder.path}/${n}.txt`, text);
  const mixture = [
    { data: { name: "c4_test" }, weight: 2 },
    { data: { name: "files", path: folder.path }, weight: 1 },
  ];
  for (const dataset of [SAMPLE_OPTIONS.dataset, { mixture }]) {
    const options = { ...SAMPLE_OPTIONS, dataset, shuffle: 3 };
    await using loader = await Loader.open(options);
    await using ahead = await prefetch({ ...options, workers: 3 });
    for (let n = 0; n < 20; n++) {
      assertEquals(plain((await ahead.next())!), plain((await loader.next())!));
      assertEquals(ahead.state(), loader.state());
    }
    await using again = await prefetch({ ...options, workers: 2, state: JSON.parse(JSON.stringify(ahead.state())) });
    assertEquals(await take(again, 10), await take(loader, 10));
    assertEquals(ahead.sources, "mixture" in dataset ? ["c4_test", "files"] : ["c4_test"]);
  }
});

Deno.test("a loader that stalls tells where and since when, and goes on", async () => {
  const gate = Promise.withResolvers<void>(), lines = c4Lines(someTexts(6)), half = lines.indexOf("\n", 600) + 1;
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () =>
    new Response(
      new ReadableStream({
        async start(stream) {
          stream.enqueue(new TextEncoder().encode(lines.slice(0, half)));
          await gate.promise;
          stream.enqueue(new TextEncoder().encode(lines.slice(half)));
          stream.close();
        },
      }),
    ));
  const path = `http://127.0.0.1:${server.addr.port}/slow.jsonl`, told: string[] = [];
  // A busy machine may tell where the loader is before it is there.
  const notice = (text: string) => {
    if (/opened|document 1,/.test(text)) return; // it takes a slow machine a while
    told.push(text);
    if (/document [2-6],/.test(text) || told.length === 1000) gate.resolve();
  };
  const options = {
    dataset: { name: "files", path },
    tokenizer: "bytes",
    batchSize: 1,
    seqLen: 99,
    lanes: 1,
    infinite: false,
  };
  await using loader = await prefetch(options, { notice, stallMs: 30 });
  assert((await take(loader)).length > 3);
  const said = told.filter((text) => /^waiting for data: shard slow\.jsonl, document [2-6], since \d+ s$/.test(text));
  assert(said.length >= 1 && told.every((text) => text.startsWith("waiting for data: ")), told.join("\n"));
});

Deno.test("a loader that stalls before its first batch tells whether it opens or reads, and goes on", async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async ({ url }) => {
    const { pathname } = new URL(url), isData = pathname === "/slow.jsonl";
    if (pathname === "/tokenizer.json") await gates[0].promise;
    if (isData) await gates[1].promise;
    return new Response(
      isData ? c4Lines(someTexts(6)) : await Deno.readFile(new URL(`.${pathname}`, SAMPLE)).catch(() => null),
    );
  });
  const at = `http://127.0.0.1:${server.addr.port}/`, told: string[] = [];
  const waiting = (text: string) => {
    told.push(text.replace(/\d+ s$/, "n s"));
    gates[text.includes("shard") ? 1 : 0].resolve();
    if (told.length === 2000) gates[1].resolve(); // it would wait for ever
  };
  const common = { batchSize: 1, seqLen: 9, lanes: 2, infinite: false };
  const options = { ...common, dataset: { name: "files", path: `${at}slow.jsonl` }, tokenizer: at };
  await using loader = await prefetch(options, { waiting, stallMs: 50 });
  assertEquals([...new Set(told)], [
    "waiting for data: its files and the tokenizer are opened, since n s",
    "waiting for data: shard slow.jsonl, document 1, since n s",
  ]);
  assertEquals((await loader.next())!.rows, 1);
});

Deno.test("time in which the thread that waits was at work itself is no wait for data", async () => {
  const told: string[] = [], waiting = (text: string) => void told.push(text);
  const opening = prefetch(SAMPLE_OPTIONS, { waiting, stallMs: 100 }), begun = performance.now();
  while (performance.now() - begun < 1800);
  await using _loader = await opening;
  assert(told.every((text) => !/since [^0]/.test(text)), told.join("\n"));
});

Deno.test("what cannot be used is left out, counted and told where that is asked for", async () => {
  await using folder = await temporaryFolder();
  const lines = someTexts(60).map((text, n) => JSON.stringify(n % 4 === 1 ? { url: "" } : { text })).join("\n");
  await Deno.writeTextFile(`${folder.path}/a.jsonl`, lines);
  const told: string[] = [],
    options = { dataset: { name: "files", path: folder.path }, batchSize: 2, seqLen: 16, lanes: 2 };
  await using loader = await prefetch({ ...options, skipBad: true }, { notice: (text) => told.push(text) });
  let [skipped, epoch] = [0, 0];
  while (epoch === 0) ({ skipped, epochs: [epoch] } = (await loader.next())!);
  assert(skipped >= 15, `${skipped}`);
  assertEquals(told.length, 11);
  assert(
    told.every((text) =>
      /^left out: (Cannot read line \d+ \(byte \d+\) of shard .* it has no "text"|more is counted)/.test(text)
    ),
    told.join("\n"),
  );
  await assertRejects(() => prefetch({ ...options, seqLen: 900 }), DataError, "Cannot read line 2");
});

Deno.test("lanes that somebody chose, and that do not fit the rows, are told with what they cost", async () => {
  const common = { dataset: { name: "c4_test" }, batchSize: 4, seqLen: 16, dataRanks: 4 };
  const costOf = async (options: Partial<PrefetchOptions>) => {
    await using loader = await prefetch({ ...common, ...options });
    return [loader.lanesCost, loader.state()] as const;
  };
  const shared =
    "data: 12 lanes for 16 rows of 4 data ranks: all text is read and tokenised 4 times, as ranks share lanes";
  assertEquals((await costOf({ lanes: 16 }))[0], undefined);
  const [chosen, state] = await costOf({ lanes: 12 });
  assertEquals(chosen, `${shared}; with data.lanes = 16 it is once`);
  assertEquals((await costOf({ state }))[0], shared); // a resumed run keeps its lanes
  assertEquals((await costOf({ state, dataRanks: 3 }))[0], undefined);
  assertEquals((await costOf({ infinite: false }))[0], undefined);
});

Deno.test("the default number of lanes has no better one to be told, however little text there is", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "One document has one lane, which all ranks read. ".repeat(40));
  await using loader = await prefetch({ dataset: texts(folder.path), batchSize: 2, seqLen: 16, dataRanks: 4 });
  assertEquals([loader.lanes, loader.lanesCost], [1, undefined]);
});
