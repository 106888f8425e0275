import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { IGNORE_INDEX, makeBatch } from "../../data/batch.ts";
import { Loader, type LoaderOptions, timesRead } from "../../data/loader.ts";
import { type LoaderState, mergeStates } from "../../data/loader_state.ts";
import { share } from "../../data/share.ts";
import { isOpen, someTexts, take, temporaryFolder, writeShards } from "./fixture.ts";

/** Three shards, of 11, 12 and 13 documents. */
async function corpus() {
  const folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(11), someTexts(12, 100), someTexts(13, 200)]);
  return folder;
}

const json = <T>(value: T): T => JSON.parse(JSON.stringify(value));

/** Complete passes of each lane over the only source. */
const passesOf = ({ lanes }: LoaderState) => lanes.map(({ cursors: [{ epoch }] }) => epoch);

/** Rows of batches one below the other. */
function rows(batches: Record<string, unknown>[], seqLen: number): number[][] {
  return batches.flatMap((batch) => {
    const tokens = batch.tokens as number[];
    return Array.from({ length: batch.rows as number }, (_, row) => tokens.slice(row * seqLen, (row + 1) * seqLen));
  });
}

Deno.test("one lane cuts BOS, text, EOS of its documents into windows of seq_len + 1", async () => {
  await using folder = await temporaryFolder();
  const documents = someTexts(4);
  writeShards(folder.path, [documents]);
  await using loader = await Loader.open({
    dataset: { name: "c4", path: folder.path },
    batchSize: 2,
    seqLen: 9,
    lanes: 1,
    infinite: false,
  });
  const { tokenizer } = loader;
  const stream = documents.flatMap((text) => [tokenizer.bosId!, ...tokenizer.encode(text), tokenizer.eosId!]);
  const batches = await take(loader);
  const count = Math.floor(stream.length / 10);
  assertEquals(batches.length, Math.ceil(count / 2));
  batches.forEach((batch, n) => {
    assertEquals(batch.step, n);
    for (let row = 0; row < (batch.rows as number); row++) {
      const window = stream.slice((2 * n + row) * 10, (2 * n + row + 1) * 10);
      const part = (name: string) => (batch[name] as number[]).slice(row * 9, row * 9 + 9);
      assertEquals(part("tokens"), window.slice(0, 9));
      assertEquals(part("targets"), window.slice(1));
      assertEquals(part("positions"), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
  });
});

Deno.test("a document's number is the number of EOS tokens before it in its row", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [["a", "", "bb"]]); // B a E B E B b b E, whatever bb becomes
  await using loader = await Loader.open({
    dataset: { name: "c4", path: folder.path },
    batchSize: 1,
    seqLen: 6,
    lanes: 1,
  });
  const batch = (await loader.next())!;
  const [bos, eos] = [loader.tokenizer.bosId, loader.tokenizer.eosId];
  assertEquals([...batch.tokens].map((id) => id === bos ? "B" : id === eos ? "E" : "x").join(""), "BxEBEB");
  assertEquals([...batch.documents], [0, 0, 0, 1, 1, 2]);
});

Deno.test("row n comes from lane n modulo lanes, each with documents of its own", async () => {
  await using folder = await corpus();
  const options = { dataset: { name: "c4", path: folder.path }, seqLen: 16, lanes: 6, batchSize: 4 };
  await using loader = await Loader.open(options);
  const mixed = rows(await take(loader, 9), 16);
  assertEquals(new Set(mixed.slice(0, 6).map(String)).size, 6);
  for (let lane = 0; lane < 6; lane++) {
    // the same lane alone: a loader that goes on from this lane's place with rows of this lane only
    const state = json(await Loader.open(options).then((other) => other.state()));
    await using other = await Loader.open({ ...options, batchSize: 6, state });
    const own = rows(await take(other, 6), 16).filter((_, n) => n % 6 === lane);
    assertEquals(mixed.filter((_, n) => n % 6 === lane), own);
  }
});

Deno.test("a loader that goes on from any state gives the same batches and states", async () => {
  await using folder = await corpus();
  const options: LoaderOptions = { dataset: { name: "c4", path: folder.path }, batchSize: 4, seqLen: 24, lanes: 6 };
  await using loader = await Loader.open(options);
  const states: LoaderState[] = [loader.state()];
  const batches: Record<string, unknown>[] = [];
  for (let n = 0; n < 60; n++) {
    batches.push(...await take(loader, 1));
    states.push(json(loader.state()));
  }
  assert(
    states[60].lanes.every(({ cursors: [{ epoch }] }) => epoch > 0),
    "the test is meant to pass the end of the corpus",
  );
  for (const at of [0, 1, 2, 7, 19, 23, 40]) {
    await using other = await Loader.open({ ...options, state: states[at] });
    for (let n = at; n < at + 20; n++) {
      assertEquals(await take(other, 1), [batches[n]], `batch ${n} from ${at}`);
      assertEquals(other.state(), states[n + 1]);
    }
  }
});

Deno.test("on the sample, a loader that goes on in mid-shard gives the same 20 batches", async () => {
  const options: LoaderOptions = { dataset: { name: "c4_test" }, batchSize: 8, seqLen: 128 };
  await using loader = await Loader.open(options);
  await take(loader, 37);
  const state = json(loader.state());
  assert(state.lanes.every(({ cursors: [{ document }] }) => document > 10));
  const expected = await take(loader, 20);
  await using other = await Loader.open({ ...options, state });
  assertEquals(await take(other, 20), expected);
});

Deno.test("another batch size and another sequence length go on in the same stream", async () => {
  await using folder = await corpus();
  const options = { dataset: { name: "c4", path: folder.path }, seqLen: 15, lanes: 6 };
  await using whole = await Loader.open({ ...options, batchSize: 6 });
  const expected = rows(await take(whole, 10), 15);
  await using first = await Loader.open({ ...options, batchSize: 5 });
  const begun = rows(await take(first, 4), 15);
  const state = json(first.state());
  await using second = await Loader.open({ ...options, batchSize: 8, state });
  assertEquals([...begun, ...rows(await take(second, 5), 15)], expected);

  // windows of 8 tokens are halves of windows of 16, here of one lane
  const one = { dataset: options.dataset, lanes: 1, batchSize: 1 };
  await using long = await Loader.open({ ...one, seqLen: 15 });
  await take(long, 3);
  await using short = await Loader.open({ ...one, seqLen: 7, state: json(long.state()) });
  const [window] = await take(long, 1);
  const halves = await take(short, 2);
  const tokens = window.tokens as number[];
  assertEquals(halves.map((half) => half.tokens), [tokens.slice(0, 7), tokens.slice(8, 15)]);
});

Deno.test("restore takes a loader back", async () => {
  await using folder = await corpus();
  await using loader = await Loader.open({
    dataset: { name: "c4", path: folder.path },
    batchSize: 2,
    seqLen: 20,
    lanes: 3,
  });
  await take(loader, 5);
  const state = json(loader.state());
  const expected = await take(loader, 5);
  await loader.restore(state);
  assertEquals(await take(loader, 5), expected);
});

Deno.test("restore and disposal close what is open", { ignore: Deno.build.os !== "linux" }, async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [Array.from({ length: 150_000 }, (_, n) => String(Math.sin(n)))]); // more than one chunk
  const path = `${folder.path}/c4-train.00000-of-00001.json.gz`;
  const loader = await Loader.open({ dataset: { name: "c4", path }, batchSize: 1, seqLen: 8, lanes: 1 });
  await loader.next();
  assertEquals(isOpen(path), true);
  await loader.restore(loader.state());
  assertEquals(isOpen(path), false);
  await loader.next();
  assertEquals(isOpen(path), true);
  await loader[Symbol.asyncDispose]();
  assertEquals(isOpen(path), false);
});

Deno.test("a finite loader gives every window once, and pads the last batch with ignored rows", async () => {
  await using folder = await corpus();
  const options = { dataset: { name: "c4", path: folder.path }, seqLen: 16, lanes: 6, infinite: false };
  await using single = await Loader.open({ ...options, batchSize: 1 });
  const windows = rows(await take(single), 16);
  await using loader = await Loader.open({ ...options, batchSize: 7 });
  const begun = json(loader.state());
  const batches = await take(loader);
  assertEquals(rows(batches, 16), windows);
  const last = batches.at(-1)!;
  const used = last.rows as number * 16;
  assert(used < 7 * 16, "the test is meant to have a short last batch");
  assert((last.targets as number[]).slice(used).every((target) => target === IGNORE_INDEX));
  assert((last.tokens as number[]).slice(used).every((token) => token === 0));
  assert((last.targets as number[]).slice(0, used).every((target) => target >= 0));
  assertEquals(await take(loader), []);
  // the lanes' leftovers are less than a window each
  const total = await countTokens(folder.path);
  assert(windows.length * 17 <= total && windows.length * 17 > total - 6 * 17);

  await loader.restore(json(loader.state()));
  assertEquals(await take(loader), [], "the end is the end after a restore, too");
  await loader.restore(begun);
  assertEquals(await take(loader), batches, "an ended loader can begin again");
});

async function countTokens(path: string): Promise<number> {
  await using one = await Loader.open({
    dataset: { name: "c4", path },
    batchSize: 1,
    seqLen: 1,
    lanes: 1,
    infinite: false,
  });
  return 2 * (await take(one)).length;
}

Deno.test("a finite loader goes on from any state, also where some lanes have ended", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(3), someTexts(12, 100)]); // one lane ends long before the other
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 2, seqLen: 16, lanes: 2, infinite: false };
  await using loader = await Loader.open(options);
  const states = [json(loader.state())];
  const batches: Record<string, unknown>[] = [];
  for (let some; (some = await take(loader, 1)).length > 0;) {
    batches.push(...some);
    states.push(json(loader.state()));
  }
  for (let at = 0; at < states.length; at++) {
    await using other = await Loader.open({ ...options, state: states[at] });
    assertEquals(await take(other), batches.slice(at));
  }
});

Deno.test("a batch counts the passes that all lanes of its loader have made", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(2), someTexts(30)]); // the lane of the first is far ahead of the other
  const common = { dataset: { name: "c4", path: folder.path }, batchSize: 2, seqLen: 16, lanes: 2 };
  await using loader = await Loader.open(common);
  let last = 0;
  const [first, second] = [new Set<number>(), new Set<number>()];
  for (let n = 0; n < 500 && last < 2; n++) {
    const { epochs: [epoch] } = (await loader.next())!, passes = passesOf(loader.state());
    assertEquals(epoch, Math.min(...passes));
    assert(epoch >= last);
    last = epoch;
    passes.forEach((pass, lane) => [first, second][lane].add(pass));
  }
  assertEquals([last, second.size], [2, 3]);
  assert(first.size > 3);
  // A data rank that reads the longer lane alone knows nothing of the other.
  await using own = await Loader.open({ ...common, batchSize: 1, dataRank: 1, dataRanks: 2 });
  for (let n = 0; n < 500 && last > 0; n++) last = (await own.next())!.epochs[0] === 1 ? 0 : last;
  assertEquals(last, 0);
});

Deno.test("lanes default to eight, to those of the state, and to as many as each have a window of one's own text", async () => {
  await using sample = await Loader.open({ dataset: { name: "c4_test" }, batchSize: 1, seqLen: 8 });
  assertEquals(sample.state().lanes.length, 8);
  await using folder = await temporaryFolder();
  for (const [n, text] of someTexts(3).entries()) await Deno.writeTextFile(`${folder.path}/${n}.txt`, text);
  const options = { dataset: texts(`${folder.path}/*.txt`), batchSize: 1, seqLen: 8 };
  await using three = await Loader.open(options);
  assertEquals(three.state().lanes.length, 3);
  await using two = await Loader.open({ ...options, lanes: 2 });
  await using again = await Loader.open({ ...options, state: two.state() });
  assertEquals(again.state().lanes.length, 2);
  await using long = await Loader.open({ ...options, seqLen: 64 });
  assertEquals(long.state().lanes.length, 1);
  const error = await assertRejects(
    () => Loader.open({ ...options, lanes: 4 }),
    DataError,
    "3 documents among 4 lanes",
  );
  assertEquals(error.code, "too_many_lanes");
});

Deno.test("a corpus shorter than one window is an error with both numbers", async () => {
  await using folder = await temporaryFolder();
  writeShards(folder.path, [["a"]]);
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 1, seqLen: 64, lanes: 1 };
  await using loader = await Loader.open(options);
  const error = await assertRejects(() => loader.next(), DataError, "Lane 0 of 1 has 3 tokens in its 1 documents");
  assert(error.message.includes("at least 65 tokens"));
});

Deno.test("sizes that are no whole number from 1 on are errors", async () => {
  const options = { dataset: { name: "c4_test" }, batchSize: 1, seqLen: 8, lanes: 1 };
  for (const wrong of [{ batchSize: 0 }, { seqLen: 1.5 }, { lanes: -1 }]) {
    const [[name, value]] = Object.entries(wrong);
    const error = await assertRejects(() => Loader.open({ ...options, ...wrong }), DataError, `${name} = ${value}`);
    assertEquals(error.code, "bad_option");
  }
});

/** One's own text: files of one document, and of many. */
async function ownText() {
  const folder = await temporaryFolder();
  for (const [n, text] of someTexts(9).entries()) await Deno.writeTextFile(`${folder.path}/${n}.md`, text);
  const lines = someTexts(25, 100).map((body) => JSON.stringify({ body }));
  await Deno.writeTextFile(`${folder.path}/many.jsonl`, lines.join("\n"));
  return folder;
}

Deno.test("one's own text goes on to the token from any place, at any number of data ranks, in any epoch's order", async () => {
  await using folder = await ownText();
  const dataset = { name: "text", path: folder.path, field: "body" },
    upTo = (max: number) => fc.integer({ min: 1, max });
  const shuffles = fc.option(fc.nat(), { nil: undefined });
  const tokenizers = fc.constantFrom("bytes", undefined);
  await fc.assert(
    fc.asyncProperty(
      ...[upTo(8), upTo(40), fc.nat(30), shuffles, tokenizers],
      fc.constantFrom([6, 2, 3], [2, 1, 2], [4, 4, 1], [1, 1, 3], [3, 2, 2]),
      async (lanes, seqLen, at, shuffle, tokenizer, [first, second, dataRanks]) => {
        const options = { dataset, tokenizer, shuffle, seqLen, lanes };
        const rest = 40;
        await using whole = await Loader.open({ ...options, batchSize: 1 });
        const expected = rows(await take(whole, at * first + rest * second * dataRanks), seqLen);
        await using begun = await Loader.open({ ...options, batchSize: first });
        const before = rows(await take(begun, at), seqLen), state = json(begun.state());
        const parts: number[][][][] = [], states: LoaderState[] = [];
        for (let dataRank = 0; dataRank < dataRanks; dataRank++) {
          await using loader = await Loader.open({ ...options, batchSize: second, dataRank, dataRanks, state });
          parts.push((await take(loader, rest)).map((batch) => rows([batch], seqLen)));
          states.push(json(loader.state()));
        }
        const after = Array.from({ length: rest }, (_, n) => parts.flatMap((part) => part[n])).flat();
        assertEquals([...before, ...after], expected);
        assertEquals(mergeStates(states).lanes, json(whole.state()).lanes);
      },
    ),
    { numRuns: 25 },
  );
});

Deno.test("the epoch of one's own text has a fraction, which never falls, and is the same behind a resume", async () => {
  await using folder = await ownText();
  const dataset = { name: "text", path: folder.path, field: "body" };
  const options = { dataset, batchSize: 1, seqLen: 12, lanes: 3, shuffle: 1 };
  await using loader = await Loader.open(options);
  const states = [json(loader.state())], epochs = [];
  for (let n = 0, epoch = 0; epoch < 2.5; n++) {
    epochs.push(epoch = (await loader.next())!.epochs[0]);
    states.push(json(loader.state()));
    assertEquals(Math.floor(epoch), Math.min(...passesOf(loader.state())));
  }
  assertEquals(epochs, epochs.toSorted((a, b) => a - b));
  assert(
    new Set(epochs).size > epochs.length / 4 && epochs.some((epoch) => epoch > 0.4 && epoch < 0.6),
    String(epochs),
  );
  for (const at of [1, 20, epochs.length - 10]) {
    await using other = await Loader.open({ ...options, state: states[at] });
    assertEquals((await take(other, 9)).map(({ epochs }) => (epochs as number[])[0]), epochs.slice(at, at + 9));
  }
});

Deno.test("an only document has an epoch with a fraction, too", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/book.txt`, "x".repeat(98)); // 100 tokens
  const options = { dataset: texts(folder.path), tokenizer: "bytes", batchSize: 1, seqLen: 9 };
  await using loader = await Loader.open(options);
  assertEquals((await take(loader, 12)).map(({ epochs }) => Math.round(10 * (epochs as number[])[0])), [
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
  ]);
});

Deno.test("data ranks have the rows of one loader between them, whatever divides what", async () => {
  await using folder = await corpus();
  const dataset = { name: "c4", path: folder.path };
  for (const [lanes, batchSize, dataRanks] of [[8, 2, 2], [3, 2, 2], [4, 1, 3], [6, 3, 4], [12, 2, 3]]) {
    const common = { dataset, seqLen: 9, lanes };
    await using whole = await Loader.open({ ...common, batchSize: batchSize * dataRanks });
    const expected = await take(whole, 5), parts: typeof expected[] = [];
    for (let dataRank = 0; dataRank < dataRanks; dataRank++) {
      await using loader = await Loader.open({ ...common, batchSize, dataRank, dataRanks });
      parts.push(await take(loader, 5));
    }
    expected.forEach((batch, n) => {
      for (const name of ["tokens", "targets", "documents"]) {
        const where = `${name} of batch ${n}, ${lanes} lanes, ${dataRanks} x ${batchSize}`;
        assertEquals(parts.flatMap((p) => p[n][name] as number[]), batch[name], where);
      }
    });
  }
});

Deno.test("data ranks of a finite loader have all its rows between them, once each, and read no lane of other groups", async () => {
  await using folder = await corpus();
  const dataset = { name: "c4", path: folder.path };
  for (
    const [lanes, batchSize, dataRanks, own] of [[8, 2, 2, 4], [3, 2, 2, 3], [1, 1, 3, 1], [6, 3, 4, 3], [3, 2, 6, 1]]
  ) {
    const common = { dataset, seqLen: 9, lanes, infinite: false };
    await using whole = await Loader.open({ ...common, batchSize: 1 });
    const expected = rows(await take(whole), 9).map(String).sort(), read: string[] = [];
    for (let dataRank = 0; dataRank < dataRanks; dataRank++) {
      await using loader = await Loader.open({ ...common, batchSize, dataRank, dataRanks });
      assertEquals(loader.own.length, own);
      read.push(...rows(await take(loader), 9).map(String));
    }
    assertEquals(read.sort(), expected, `${lanes} lanes, ${dataRanks} x ${batchSize}`);
  }
});

Deno.test("workers of a data rank fill the rows of its loader between them, and its state", async () => {
  await using folder = await corpus();
  const options = {
    dataset: { name: "c4", path: folder.path },
    seqLen: 9,
    lanes: 12,
    batchSize: 3,
    dataRank: 1,
    dataRanks: 2,
  };
  await using whole = await Loader.open(options);
  const batch = makeBatch(3, 9), workers = 4, crew: Loader[] = [];
  for (let worker = 0; worker < workers; worker++) crew.push(await Loader.open({ ...options, worker, workers }));
  assertEquals(crew.flatMap(({ own }) => own).sort((a, b) => a - b), whole.own);
  for (let n = 0; n < 9; n++) {
    let filled = 0;
    for (const loader of crew) {
      await loader.fill(batch);
      filled += batch.rows;
    }
    const expected = (await whole.next())!;
    for (const name of ["tokens", "targets", "documents"] as const) assertEquals(batch[name], expected[name]);
    assertEquals(filled, 3);
    assertEquals(mergeStates(crew.map((loader) => loader.state())), whole.state());
  }
  for (const loader of crew) await loader[Symbol.asyncDispose]();
});

Deno.test("a data rank reads no lane that gives it no rows", async () => {
  await using folder = await corpus();
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 2, seqLen: 9, lanes: 8 };
  await using loader = await Loader.open({ ...options, dataRank: 1, dataRanks: 4 });
  const before = loader.state();
  await take(loader, 3);
  const moved = loader.state().lanes.map((place, i) => JSON.stringify(place) !== JSON.stringify(before.lanes[i]));
  assertEquals(moved, [false, false, true, true, false, false, false, false]);
});

Deno.test("a loader reads one's own text in another order in the next epoch, and in the same one where it is not shuffled", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(
    `${folder.path}/a.jsonl`,
    [..."abcdefgh"].map((text) => JSON.stringify({ text })).join("\n"),
  );
  const options = { dataset: texts(folder.path), tokenizer: "bytes", batchSize: 1, seqLen: 23, lanes: 1 };
  for (const [shuffle, isSame] of [[1, false], [undefined, true]] as const) {
    await using loader = await Loader.open({ ...options, shuffle });
    const [first, second] = rows(await take(loader, 2), 23);
    assertEquals(String(first) === String(second), isSame);
  }
});

Deno.test("lanes default to a multiple of the rows of all data ranks, of which each lane is then read once", async () => {
  for (
    const [batchSize, dataRanks, lanes] of [[8, 1, 8], [2, 2, 8], [8, 2, 16], [3, 1, 8], [200, 1, 8], [5, 4, 20], [
      1,
      7,
      14,
    ]]
  ) {
    const options = { dataset: { name: "c4_test" }, batchSize, dataRanks, seqLen: 8 };
    await using loader = await Loader.open(options);
    assertEquals([loader.lanes, timesRead(loader.lanes, options)], [lanes, 1]);
  }
  const times = [[8, 8, 16], [8, 8, 2], [12, 4, 3], [8, 2, 3]].map(([lanes, batchSize, dataRanks]) =>
    timesRead(lanes, { batchSize, dataRanks })
  );
  assertEquals(times, [16, 2, 1, 3]);
});

Deno.test("of 16 data ranks each reads a sixteenth of the shards and one, whatever their number", async () => {
  const whole = (shards: number, dataRank: number) => {
    const read = new Map<number, Set<number>>();
    for (let lane = 8 * dataRank; lane < 8 * dataRank + 8; lane++) {
      for (const { shard, offset } of share(lane, 128, shards)) {
        read.set(shard, (read.get(shard) ?? new Set()).add(offset));
      }
    }
    return read.size;
  };
  for (const shards of [128, 129, 200, 255, 1000, 1024, 1029]) {
    for (let rank = 0; rank < 16; rank++) {
      assert(whole(shards, rank) <= shards / 16 + 1, `rank ${rank} reads ${whole(shards, rank)} of ${shards}`);
    }
  }
  // and the loader opens no other file than those of its lanes
  await using folder = await temporaryFolder();
  writeShards(folder.path, Array.from({ length: 33 }, (_, n) => someTexts(40, 100 * n)));
  const options = { dataset: { name: "c4", path: folder.path }, batchSize: 2, seqLen: 8, dataRanks: 16 };
  for (const dataRank of [0, 7, 15]) {
    const read = new Set<number>();
    await using loader = await Loader.open({ ...options, dataRank, onRead: (_, shard) => read.add(shard) });
    for (let epoch = 0; epoch < 1;) epoch = (await loader.next())!.epochs[0];
    assert(read.size <= 33 / 16 + 1, `rank ${dataRank} read ${[...read]}`);
  }
});

Deno.test("a mixture gives each source its share of the rows, and goes on to the token", async () => {
  await using folder = await temporaryFolder();
  for (const [n, name] of ["a", "b", "c"].entries()) {
    await Deno.mkdir(`${folder.path}/${name}`);
    writeShards(`${folder.path}/${name}`, [someTexts(30, 300 * n), someTexts(20, 300 * n + 100)]);
  }
  const source = (name: string, weight: number) => ({
    name,
    data: { name: "c4", path: `${folder.path}/${name}` },
    weight,
  });
  const dataset = { mixture: [source("a", 5), source("b", 3), source("c", 2)] };
  const options = { dataset, batchSize: 4, seqLen: 32, lanes: 4 };
  await using loader = await Loader.open(options);
  const states = [json(loader.state())], batches: Record<string, unknown>[] = [];
  for (let n = 0; n < 100; n++) {
    batches.push(...await take(loader, 1));
    states.push(json(loader.state()));
  }
  const alone = async (name: string) => {
    await using one = await Loader.open({ ...options, dataset: dataset.mixture.find((s) => s.name === name)!.data });
    return new Set(rows(await take(one, 130), 32).map(String));
  };
  const all = rows(batches, 32).map(String);
  for (const [name, share] of [["a", 200], ["b", 120], ["c", 80]] as const) {
    const own = await alone(name), count = all.filter((row) => own.has(row)).length;
    assert(Math.abs(count - share) <= 8, `${count} rows of ${name}`);
  }
  const [a, b, c] = batches.at(-1)!.epochs as number[];
  assert(a > b && b >= c, `each source has epochs of its own: ${a}, ${b}, ${c}`);
  for (const at of [0, 1, 37, 80]) {
    await using other = await Loader.open({ ...options, batchSize: 2, state: states[at] });
    assertEquals(rows(await take(other, 30), 32), rows(batches.slice(at, at + 15), 32));
  }
});
