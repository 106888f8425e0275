import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Batch, makeBatch } from "../../data/batch.ts";
import { openDataset, texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Loader, type LoaderOptions } from "../../data/loader.ts";
import { type LoaderState, mergeStates } from "../../data/loader_state.ts";
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

Deno.test("any run goes on as the one that is not interrupted, and reads each document once an epoch", async () => {
  const upTo = (max: number) => fc.integer({ min: 1, max });
  const source = fc.record({ sizes: fc.array(upTo(12), { minLength: 1, maxLength: 6 }), weight: upTo(5) });
  /** Ranks, rows of each, workers of each, and batches until the next state. */
  const leg = fc.record({ dataRanks: upTo(3), batchSize: upTo(3), workers: upTo(3), batches: upTo(6) });
  const cases = fc.record({
    sources: fc.array(source, { minLength: 1, maxLength: 3 }),
    legs: fc.array(leg, { minLength: 1, maxLength: 3 }),
    ...{ lanes: upTo(5), window: fc.nat(6), shuffle: fc.option(fc.nat(), { nil: undefined }) },
  });
  await fc.assert(
    fc.asyncProperty(cases, async ({ sources, legs, lanes, window, shuffle }) => {
      await using folder = await temporaryFolder();
      const mixture = [];
      for (const [n, { sizes, weight }] of sources.entries()) {
        const path = `${folder.path}/${n}`;
        await Deno.mkdir(path);
        for (const [shard, size] of sizes.entries()) {
          // all lanes have documents enough, each of 12 tokens, which tell source, shard and line; some lines are bad
          const lines = Array.from({ length: size + 2 * lanes }, (_, line) => {
            return line % 7 === 3 ? "{" : JSON.stringify({ text: `${n}${shard}${String(line).padStart(8, "0")}` });
          });
          await Deno.writeTextFile(`${path}/${shard}.jsonl`, lines.join("\n"));
        }
        mixture.push({ name: String(n), data: { name: "files", path }, weight });
      }
      const options = {
        ...{ dataset: { mixture }, tokenizer: "bytes", seqLen: 5, lanes, shuffle },
        ...{ shuffleWindow: window, skipBad: true },
      };
      await using whole = await Loader.open({ ...options, batchSize: 1 });
      let state = json(whole.state());
      const rows: string[] = [],
        cut = (batch: Batch, row: number) => String(batch.tokens.subarray(5 * row, 5 * row + 5));
      for (const { dataRanks, batchSize, workers, batches } of legs) {
        const ranks = [];
        for (let n = 0; n < dataRanks * workers; n++) {
          const [dataRank, worker] = [n % dataRanks, Math.floor(n / dataRanks)];
          ranks.push(await Loader.open({ ...options, state, dataRanks, batchSize, workers, dataRank, worker }));
        }
        const filled = Array.from({ length: dataRanks }, () => makeBatch(batchSize, 5));
        for (let n = 0; n < batches; n++) {
          for (const [n, loader] of ranks.entries()) await loader.fill(filled[n % dataRanks]);
          for (const batch of filled) for (let row = 0; row < batchSize; row++) rows.push(cut(batch, row));
        }
        state = json(mergeStates(ranks.map((loader) => loader.state())));
        for (const loader of ranks) await loader[Symbol.asyncDispose]();
      }
      for (const row of rows) assertEquals(row, cut((await whole.next())!, 0));
      assertEquals(state.lanes, json(whole.state()).lanes);

      // one epoch of the first source: every document that can be read, once
      const { sizes } = sources[0], read: string[] = [];
      const shards = (await openDataset(mixture[0].data, { shuffle, shuffleWindow: window, onBad: () => {} })).shards;
      for (let lane = 0; lane < lanes; lane++) {
        for (const { shard, ...part } of share(lane, lanes, shards.length)) {
          for await (const document of shards[shard].read({ from: 0, ...part }, 4)) {
            read.push("text" in document ? document.text : "");
          }
        }
      }
      const good = sizes.map((size) =>
        Array.from({ length: size + 2 * lanes }, (_, n) => n).filter((n) => n % 7 !== 3).length
      );
      assertEquals([read.length, new Set(read).size], Array(2).fill(good.reduce((a, b) => a + b)));
    }),
    { numRuns: 25 },
  );
});
