import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Batch, makeBatch } from "../../data/batch.ts";
import { openDataset, texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Loader, type LoaderOptions } from "../../data/loader.ts";
import { type LoaderState, mergeStates } from "../../data/loader_state.ts";
import { sourceOf } from "../../data/mixture.ts";
import { prefetch, type Prefetcher } from "../../data/prefetch.ts";
import { share } from "../../data/share.ts";
import { someTexts, take, temporaryFolder, writeShards } from "./fixture.ts";

const json = <T>(value: T): T => JSON.parse(JSON.stringify(value));

Deno.test("a state of something else is an error that says what to change", async (t) => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(11), someTexts(12, 100), someTexts(13, 200)]);
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 1, seqLen: 8, lanes: 3 };
  await using loader = await Loader.open(options);
  const state = loader.state(), [lane] = state.lanes, [cursor] = lane.cursors, [source] = state.sources;
  const at = (place: unknown) => ({ ...state, lanes: [place, ...state.lanes.slice(1)] });
  const cases: [string, unknown, string][] = [
    [
      "another dataset",
      { ...state, sources: [{ ...source, name: "c4_test" }] },
      'it belongs to "c4_test" with 3 shards',
    ],
    ["other shards", { ...state, sources: [{ ...source, shards: 4 }] }, 'it belongs to "c4" with 4 shards'],
    ["a mixture", { ...state, sources: [source, source] }, 'it belongs to "c4" with 3 shards and "c4" with 3 shards'],
    ["other text", { ...state, sources: [{ ...source, identity: "x" }] }, "it belongs to other text"],
    ["another tokenizer", { ...state, tokenizer: "x" }, "it belongs to another tokenizer"],
    [
      "another number of lanes",
      { ...state, lanes: [lane] },
      "it has 1 lanes\n  expected: 3 lanes\n  fix: set data.lanes to 1",
    ],
    ["another version", { ...state, version: 1 }, "it is not one"],
    ["null", null, "it is not one"],
    ["a shard of another lane", { ...state, lanes: state.lanes.toReversed() }, "a number in it is impossible"],
    ["a fraction", at({ ...lane, cursors: [{ ...cursor, token: 0.5 }] }), "a number in it is impossible"],
    ["no cursor", at({ ...lane, cursors: [] }), "a number in it is impossible"],
    ["rows below zero", at({ ...lane, rows: -1 }), "a number in it is impossible"],
    ["a lane that is not there", { ...state, nextLane: 3 }, "a number in it is impossible"],
  ];
  for (const [name, wrong, message] of cases) {
    await t.step(name, async () => {
      const error = await assertRejects(() => loader.restore(wrong as LoaderState), DataError, message);
      assertEquals(error.code, "bad_state");
    });
  }
});

Deno.test("a state is refused where files have changed in size, and where another tokenizer reads them", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(30)]);
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 1, seqLen: 8, lanes: 1 };
  const state = json(await Loader.open(options).then((loader) => loader.state()));
  await assertRejects(() => Loader.open({ ...options, tokenizer: "bytes", state }), DataError, "another tokenizer");
  await Loader.open({ ...options, state });
  writeShards(folder.path, [someTexts(31)]);
  await assertRejects(() => Loader.open({ ...options, state }), DataError, "it belongs to other text");
});

Deno.test("a lane is merged from who reads it, and states of two steps are refused", async () => {
  await using loader = await Loader.open({
    dataset: { name: "c4_test" },
    batchSize: 2,
    dataRanks: 2,
    seqLen: 8,
    lanes: 4,
  });
  const begun = json(loader.state());
  await take(loader, 3);
  const mine = json(loader.state());
  assertEquals(mergeStates([{ ...begun, step: 3, nextLane: 0 }, mine]).lanes, mine.lanes);
  assertThrows(() => mergeStates([begun, mine]), RangeError, "do not stand at one step");
});

/** One's own text: files of one document, and of many. */
async function ownText() {
  const folder = await temporaryFolder();
  for (const [n, text] of someTexts(9).entries()) await Deno.writeTextFile(`${folder.path}/${n}.md`, text);
  return folder;
}

Deno.test("a state is refused where its text or the order of it is another", async () => {
  await using folder = await ownText();
  const options = { dataset: texts(folder.path), batchSize: 1, seqLen: 9, lanes: 2, shuffle: 1 };
  const state = json(await Loader.open(options).then((loader) => loader.state()));
  const refused = async (other: Partial<LoaderOptions>) => {
    const message = 'it belongs to other text, or to another order of it, than "texts" has';
    assertEquals(
      (await assertRejects(() => Loader.open({ ...options, state, ...other }), DataError, message)).code,
      "bad_state",
    );
  };
  await refused({ shuffle: undefined });
  await refused({ shuffle: 2 });
  await refused({ dataset: { ...texts(folder.path), part: "training" } });
  await Deno.writeTextFile(`${folder.path}/more.md`, "more");
  await refused({});
  await Deno.remove(`${folder.path}/more.md`);
  await Deno.writeTextFile(`${folder.path}/0.md`, someTexts(1)[0].toUpperCase()); // as long as before
  await refused({});
});

/** Runs of the random test; `RUNS=300` raises their number. */
const RUNS = Number(Deno.env.get("RUNS") ?? 25), SEED = 16, SEQ_LEN = 5;
const upTo = (max: number) => fc.integer({ min: 1, max });

/** A stretch of a run: ranks, rows and workers of each, batches until its state is saved, and those that each reads then, until it is killed. */
const legs = fc.array(
  fc.record({
    ...{ dataRanks: upTo(3), batchSize: upTo(3), workers: upTo(3), batches: fc.nat(6) },
    lost: fc.array(fc.nat(4), { minLength: 9, maxLength: 9 }),
  }),
  { minLength: 1, maxLength: 3 },
);

/** What is read, and how. */
const corpora = fc.record({
  sources: fc.array(fc.record({ sizes: fc.array(upTo(12), { minLength: 1, maxLength: 6 }), weight: upTo(5) }), {
    ...{ minLength: 1, maxLength: 3 },
  }),
  ...{ lanes: upTo(5), shuffleWindow: fc.nat(6), shuffle: fc.option(fc.nat(), { nil: undefined }) },
});

/** Writes the files of the sources. All lanes have documents enough; each tells its source, shard and line; some lines are bad.
 * @returns the mixture, and the documents of each source that can be read. */
async function writeSources(
  { sources, lanes }: { sources: { sizes: number[]; weight: number }[]; lanes: number },
  folder: string,
) {
  const mixture = [], readable = [];
  for (const [n, { sizes, weight }] of sources.entries()) {
    const path = `${folder}/${n}`, good: string[] = [];
    await Deno.mkdir(path);
    for (const [shard, size] of sizes.entries()) {
      const lines = Array.from({ length: size + 2 * lanes }, (_, line) => {
        if (line % 7 === 3) return "{";
        const text = `${n}/${shard}/${line}`.padEnd(8 + line % 5, ".");
        good.push(text);
        return JSON.stringify({ text });
      });
      await Deno.writeTextFile(`${path}/${shard}.jsonl`, lines.join("\n"));
    }
    mixture.push({ name: String(n), data: { name: "files", path }, weight });
    readable.push(good.sort());
  }
  return { mixture, readable };
}

/** Windows of a batch. */
const windowsOf = ({ tokens, targets, rows }: Batch): number[][] =>
  Array.from({ length: rows }, (_, row) => {
    const end = SEQ_LEN * (row + 1);
    return [...tokens.subarray(end - SEQ_LEN, end), targets[end - 1]];
  });

/** A data rank whose workers take turns in this thread, as `prefetch` has them in threads. */
async function inTurn(
  options: LoaderOptions & { workers: number },
): Promise<Pick<Prefetcher, "next" | "state"> & AsyncDisposable> {
  const crew: Loader[] = [], batch = makeBatch(options.batchSize, options.seqLen);
  for (let worker = 0; worker < options.workers; worker++) crew.push(await Loader.open({ ...options, worker }));
  return {
    async next() {
      let rows = 0;
      for (const loader of crew) {
        await loader.fill(batch);
        rows += batch.rows;
      }
      return Object.assign(batch, { rows });
    },
    state: () => mergeStates(crew.map((loader) => loader.state())),
    async [Symbol.asyncDispose]() {
      for (const loader of crew) await loader[Symbol.asyncDispose]();
    },
  };
}

/** The property: a run in legs, each of which is killed and goes on from what was saved, has the rows of one that is not. */
function killedRuns(open: typeof inTurn) {
  return fc.asyncProperty(corpora, legs, async ({ sources, lanes, ...order }, legs) => {
    await using folder = await temporaryFolder();
    const { mixture, readable } = await writeSources({ sources, lanes }, folder.path);
    const options = { dataset: { mixture }, tokenizer: "bytes", seqLen: SEQ_LEN, lanes, skipBad: true, ...order };
    await using whole = await Loader.open({ ...options, batchSize: 1 });
    const expected = async () => windowsOf((await whole.next())!)[0], windows: number[][] = [];
    let state = json(whole.state());
    for (const { dataRanks, batches, lost, ...leg } of legs) {
      const ranks = [];
      for (let dataRank = 0; dataRank < dataRanks; dataRank++) {
        ranks.push(await open({ ...options, ...leg, state, dataRanks, dataRank }));
      }
      for (let n = 0; n < batches; n++) for (const rank of ranks) windows.push(...windowsOf((await rank.next())!));
      state = json(mergeStates(ranks.map((rank) => rank.state())));
      for (const [n, rank] of ranks.entries()) {
        for (let batch = 0; batch < lost[n]; batch++) await rank.next();
        const waiting = rank.next().catch(({ message }) => assertEquals(message, "The loader is closed"));
        await rank[Symbol.asyncDispose]();
        await waiting;
      }
    }
    for (const window of windows) assertEquals(window, await expected());
    assertEquals(state.lanes, json(whole.state()).lanes);

    // What follows, until each lane has passed over each source once.
    await using rest = await Loader.open({ ...options, batchSize: 1, state });
    while (rest.state().lanes.some(({ cursors }) => cursors.some(({ epoch }) => epoch === 0))) {
      windows.push(windowsOf((await rest.next())!)[0]);
    }
    const weights = mixture.map(({ weight }) => weight);
    for (const [source, { data }] of mixture.entries()) {
      const { shards } = await openDataset(data, { ...order, onBad: () => {} }), seen: string[] = [];
      for (let lane = 0; lane < lanes; lane++) {
        const own = windows.filter((_, n) =>
          n % lanes === lane && sourceOf(weights, lane, Math.floor(n / lanes)) === source
        );
        let inEpoch = 0;
        for (const { shard, ...part } of share(lane, lanes, shards.length)) {
          for await (const _ of shards[shard].read({ from: 0, ...part }, 0)) inEpoch++;
        }
        seen.push(...documentsOf(own.flat()).slice(0, inEpoch));
      }
      assertEquals(seen.sort(), readable[source]);
    }
  });
}

/** The documents that end in a stream of the byte tokenizer: 256 begins one, and 257 ends it. */
function documentsOf(stream: readonly number[]): string[] {
  const pieces = String.fromCharCode(...stream).split("\u0101").slice(0, -1);
  assert(pieces.every((piece) => piece.startsWith("\u0100")));
  return pieces.map((piece) => piece.slice(1));
}

Deno.test("any run that is killed goes on as the one that is not, and reads each document once an epoch", async () => {
  await fc.assert(killedRuns(inTurn), { numRuns: RUNS, seed: SEED });
});

Deno.test("so does one whose workers are threads, which are terminated while they read", async () => {
  await fc.assert(killedRuns(prefetch), { numRuns: Math.ceil(RUNS / 8), seed: SEED });
});
