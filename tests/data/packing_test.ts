import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { makeBatch } from "../../data/batch.ts";
import { texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { Loader, type LoaderOptions } from "../../data/loader.ts";
import { BEGINS, bestFit, ID, MASKED, PADDING, putRow } from "../../data/packing.ts";
import { mergeStates } from "../../data/loader_state.ts";
import { someTexts, take, temporaryFolder } from "./fixture.ts";

/** Documents of these lengths, whose tokens are all different. */
function documentsOf(lengths: readonly number[]): Int32Array[] {
  let next = 1;
  return lengths.map((length) => Int32Array.from({ length }, () => next++));
}

const tokens = (row: Int32Array) => [...row].map((word) => word & PADDING ? 0 : word & ID);
const firsts = (row: Int32Array) => [...row.keys()].filter((n) => row[n] & BEGINS);

Deno.test("each document goes into the fullest row that has room for it, long ones first", () => {
  const rows = bestFit(documentsOf([3, 5, 2, 4, 1]), 6);
  assertEquals(rows.map(tokens), [[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 15], [9, 10, 11, 12, 13, 14]]);
  assertEquals(rows.map(firsts), [[0, 3], [0, 5], [0, 2]]);
});

Deno.test("a document that fits is not cut, and every token is the target of one place at most", () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 60 });
  fc.assert(fc.property(lengths, fc.integer({ min: 2, max: 20 }), (lengths, length) => {
    const rows = bestFit(documentsOf(lengths), length),
      learned = rows.flatMap((row) => [...row].filter((word) => !(word & MASKED)));
    const all = lengths.reduce((sum, n) => sum + n, 0), begin = new Set(documentsOf(lengths).map(([first]) => first));
    assertEquals(
      learned.sort((a, b) => a - b),
      Array.from({ length: all }, (_, n) => n + 1).filter((n) => !begin.has(n)),
    );
    const pieces = rows.flatMap((row) => firsts(row).filter((n) => !(row[n] & PADDING))).length;
    const needed = (n: number) => Math.max(1, Math.ceil((n - 1) / (length - 1)));
    assertEquals(pieces, lengths.reduce((sum, n) => sum + needed(n), 0));
  }));
});

Deno.test("rows are nearly full: of 400 documents, up to half a row long, less than 2 % is padding", () => {
  let state = 7;
  const lengths = Array.from({ length: 400 }, () => 8 + ((state = (state * 1103515245 + 12345) % 2 ** 31) >> 8) % 120);
  const rows = bestFit(documentsOf(lengths), 257),
    padding = rows.flatMap((row) => [...row]).filter((word) => word & PADDING);
  assert(padding.length < 0.02 * rows.length * 257, `${padding.length} of ${rows.length * 257}`);
});

Deno.test("positions restart with each document but in windows, and padding belongs to no document", () => {
  const [row] = bestFit([Int32Array.of(5, 6, 7), Int32Array.of(8, 9 | MASKED, 4)], 8);
  const batch = makeBatch(1, 7);
  putRow(batch, 0, row, { packing: "best-fit", eosId: 6 });
  assertEquals([...batch.tokens], [5, 6, 7, 8, 9, 4, 0]);
  assertEquals([...batch.targets], [6, 7, -100, -100, 4, -100, -100]);
  assertEquals([...batch.positions], [0, 1, 2, 0, 1, 2, 0]);
  assertEquals([...batch.documents], [0, 0, 0, 1, 1, 1, -1]);
  const words = Int32Array.of(5, 6, 7, 8, 6, 9, 4, 3);
  putRow(batch, 0, words, { packing: "documents", eosId: 6 });
  assertEquals([...batch.targets], [6, 7, 8, 6, 9, 4, 3]);
  assertEquals([...batch.positions], [0, 1, 0, 1, 2, 0, 1]);
  assertEquals([...batch.documents], [0, 0, 1, 1, 1, 2, 2]);
  putRow(batch, 0, words, { packing: "windows", eosId: 6 });
  assertEquals([...batch.positions], [0, 1, 2, 3, 4, 5, 6]);
  assertEquals([...batch.documents], [0, 0, 1, 1, 1, 2, 2]);
});

/** A folder with a `.jsonl` of texts of different lengths. */
async function lines(count: number) {
  const folder = await temporaryFolder(), written = someTexts(count);
  await Deno.writeTextFile(`${folder.path}/a.jsonl`, written.map((text) => JSON.stringify({ text }) + "\n").join(""));
  return { folder, written, options: { dataset: texts(folder.path), packing: "best-fit" } as const };
}

Deno.test("in best-fit each document is in one row, whole, once in a pass over the text", async () => {
  const { folder, written, options } = await lines(300);
  await using _ = folder;
  await using loader = await Loader.open({ ...options, batchSize: 1, seqLen: 256, lanes: 3, infinite: false });
  const { tokenizer } = loader, found: string[] = [];
  let rows = 0;
  for (let batch; (batch = await loader.next()); rows++) {
    for (let t = 0; t < 256;) {
      const document = batch.documents[t], start = t;
      while (t < 256 && batch.documents[t] === document) t++;
      // the last token of a row is the target of the one before it alone
      const ids = [
        ...batch.tokens.subarray(start, t),
        ...(t === 256 && batch.targets[255] >= 0 ? [batch.targets[255]] : []),
      ];
      if (document >= 0) found.push(tokenizer.decode(ids));
    }
  }
  const whole = (text: string) => `<|begin_of_text|>${text}<|end_of_text|>`;
  assertEquals(found.sort(), written.map(whole).sort());
  const needed = written.reduce((sum, text) => sum + tokenizer.encode(text).length + 2, 0) / 257;
  assert(rows < 1.03 * needed + 3, `${rows} rows for ${needed}`); // the last row of each lane may be short
});

Deno.test("a best-fit run goes on with the batches of the uninterrupted one, whatever the data ranks before and after", async () => {
  const { folder, options: what } = await lines(40);
  await using _ = folder;
  const options: LoaderOptions = { ...what, batchSize: 2, seqLen: 96, lanes: 4, shuffle: 5 };
  await using whole = await Loader.open(options);
  const expected = await take(whole, 40);
  const rowsOf = (batches: readonly Record<string, unknown>[]) =>
    batches.map(({ tokens, targets, documents }) => [tokens, targets, documents]);
  for (const at of [1, 7, 18, 33]) {
    await using before = await Loader.open(options);
    await take(before, at);
    await using after = await Loader.open({ ...options, state: JSON.parse(JSON.stringify(before.state())) });
    assertEquals(rowsOf(await take(after, 40 - at)), rowsOf(expected.slice(at)), `from batch ${at}`);
    const halves = await Promise.all([0, 1].map(async (dataRank) => {
      const share = { ...options, batchSize: 1, dataRank, dataRanks: 2 };
      await using first = await Loader.open(share);
      await take(first, at);
      return first.state();
    }));
    await using joined = await Loader.open({ ...options, state: mergeStates(halves) });
    assertEquals(rowsOf(await take(joined, 40 - at)), rowsOf(expected.slice(at)), `from batch ${at} of two ranks`);
  }
});

Deno.test("a state of rows of another length, or of windows, is refused where documents are whole", async () => {
  const { folder, options: what } = await lines(40);
  await using _ = folder;
  const options: LoaderOptions = { ...what, batchSize: 2, seqLen: 96, lanes: 2 };
  await using loader = await Loader.open(options);
  await take(loader, 3);
  const state = loader.state();
  await assertRejects(() => Loader.open({ ...options, seqLen: 64, state }), DataError, "another order of it");
  await assertRejects(() => Loader.open({ ...options, packing: "windows", state }), DataError, "another order of it");
});

Deno.test("text of less than a row fills one with padding", async () => {
  const { folder, options } = await lines(2);
  await using _ = folder;
  await using loader = await Loader.open({ ...options, batchSize: 1, seqLen: 512, lanes: 1 });
  const [first, second] = await take(loader, 2) as unknown as {
    documents: number[];
    epochs: number[];
    tokens: number[];
  }[];
  assertEquals(new Set(first.documents), new Set([0, 1, -1]));
  assertEquals([first.epochs, second.epochs], [[1], [2]]);
  assertEquals(first.tokens, second.tokens);
});

Deno.test("windows whose positions restart have the tokens and documents of plain ones", async () => {
  const { folder, options: { dataset } } = await lines(30);
  await using _ = folder;
  const options: LoaderOptions = { dataset, batchSize: 2, seqLen: 96, lanes: 2 };
  await using plain = await Loader.open(options);
  await using apart = await Loader.open({ ...options, packing: "documents" });
  const [windows, documents] = [await take(plain, 10), await take(apart, 10)] as unknown as Record<
    string,
    number[]
  >[][];
  const without = (batches: Record<string, number[]>[]) => batches.map(({ positions: _, ...batch }) => batch);
  assertEquals(without(documents), without(windows));
  for (const { positions, documents: ids } of documents) {
    positions.forEach((position, i) => {
      const begins = i % 96 === 0 || ids[i] !== ids[i - 1];
      assertEquals(position, begins ? 0 : positions[i - 1] + 1);
    });
  }
});
