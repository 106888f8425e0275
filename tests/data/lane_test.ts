import { assertEquals, assertRejects } from "@std/assert";
import type { Dataset } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { beginning, type Cursor, Lane, type LaneOptions } from "../../data/lane.ts";
import type { Take } from "../../data/shard.ts";

/** Shards of documents whose text names them; notes what is read. */
function fakeDataset(sizes: readonly number[], asked: Take[] = []): Dataset {
  const shards = sizes.map((size, shard) => ({
    name: `shard ${shard}`,
    async *read(take: Take) {
      asked.push(take);
      for (let index = take.from; index < size; index++) {
        if (index % take.every === take.offset) yield { index, text: `${shard}.${index}` };
      }
      await Promise.resolve();
    },
  }));
  return { name: "fake", description: "a fake", shards, identity: "" };
}

/** Document 2.7 becomes 20070, 20071, ...: as many tokens as its index modulo 4, and one more. */
const encoder = {
  encoded: [] as string[],
  vocabSize: 1e6,
  encode(text: string): Int32Array {
    this.encoded.push(text);
    const [shard, index] = text.split(".").map(Number);
    return Int32Array.from({ length: index % 4 + 1 }, (_, token) => shard * 10_000 + index * 10 + token);
  },
};

function makeLane(sizes: readonly number[], options: Partial<LaneOptions> = {}, asked?: Take[]): Lane {
  const { lane = 0, lanes = 1 } = options;
  const dataset = fakeDataset(sizes, asked), from = beginning(dataset, lane, lanes);
  return new Lane(dataset, encoder, { lane, lanes, window: 1, infinite: false, from, ...options });
}

/** All tokens of a lane, or the first `count`. */
async function tokens(lane: Lane, count = Infinity): Promise<number[]> {
  const window = new Int32Array(1);
  const taken = [];
  while (taken.length < count && await lane.take(window)) taken.push(window[0]);
  return taken;
}

Deno.test("in one pass no document is read twice and none is lost", async () => {
  for (
    const [lanes, sizes] of [[1, [5]], [3, [7, 5, 9]], [4, [9, 8, 11, 10, 9, 8]], [8, [20, 21, 19, 22]], [5, [
      11,
      12,
    ]]] as const
  ) {
    const read: number[] = [];
    for (let lane = 0; lane < lanes; lane++) {
      read.push(...(await tokens(makeLane(sizes, { lane, lanes }))).filter((token) => token % 10 === 0));
    }
    const all = sizes.flatMap((size, shard) => Array.from({ length: size }, (_, index) => shard * 10_000 + index * 10));
    assertEquals(read.sort((a, b) => a - b), all);
  }
});

Deno.test("windows follow one another across documents and shards without overlap", async () => {
  const window = new Int32Array(4);
  const lane = makeLane([3, 2], { window: 4 });
  const taken = [];
  while (await lane.take(window)) taken.push([...window]);
  assertEquals(taken, [[0, 10, 11, 20], [21, 22, 10_000, 10_010]]); // 10,011 is left over
  assertEquals(lane.cursor, { epoch: 0, shard: 1, document: 1, token: 1 });
});

Deno.test("an infinite lane begins again, and what was left over comes first", async () => {
  const window = new Int32Array(4);
  const lane = makeLane([3, 2], { window: 4, infinite: true });
  const taken = [];
  for (let n = 0; n < 4; n++) {
    await lane.take(window);
    taken.push([...window]);
  }
  assertEquals(taken, [[0, 10, 11, 20], [21, 22, 10_000, 10_010], [10_011, 0, 10, 11], [20, 21, 22, 10_000]]);
  assertEquals(lane.cursor, { epoch: 1, shard: 1, document: 1, token: 0 });
  await lane[Symbol.asyncDispose]();
});

Deno.test("from each cursor a lane goes on with the same tokens", async () => {
  const options = { lane: 1, lanes: 2, infinite: true };
  const sizes = [9, 11];
  const lane = makeLane(sizes, options);
  const whole = await tokens(makeLane(sizes, options), 120);
  for (let place = 0; place < 80; place++) {
    const from: Cursor = JSON.parse(JSON.stringify(lane.cursor));
    const other = makeLane(sizes, { ...options, from });
    assertEquals(await tokens(other, 40), whole.slice(place, place + 40), `at ${JSON.stringify(from)}`);
    await tokens(lane, 1);
  }
});

Deno.test("going on does not tokenise the past", async () => {
  const asked: Take[] = [];
  encoder.encoded = [];
  const lane = makeLane([5000], { from: { epoch: 3, shard: 0, document: 4001, token: 1 } }, asked);
  assertEquals(await tokens(lane, 3), [40_011, 40_020, 40_021]);
  assertEquals(asked, [{ from: 4001, every: 1, offset: 0 }]);
  assertEquals(encoder.encoded, ["0.4001", "0.4002"]);
  await lane[Symbol.asyncDispose]();
});

Deno.test("what is read ahead is not taken, and tells whether there is as much", async () => {
  const lane = makeLane([6], { window: 4 }), window = new Int32Array(4); // 13 tokens
  assertEquals([await lane.readAhead(4), lane.cursor], [true, { epoch: 0, shard: 0, document: 0, token: 0 }]);
  await lane.take(window);
  assertEquals([...window], [0, 10, 11, 20]);
  assertEquals([await lane.readAhead(9), await lane.readAhead(10)], [true, false]);
});

Deno.test("a lane without a document is an error", async () => {
  for (const infinite of [true, false]) {
    const lane = makeLane([3], { lane: 4, lanes: 5, infinite });
    const error = await assertRejects(() => tokens(lane), DataError, "Lane 4 of 5 finds no document in a fake");
    assertEquals(error.code, "too_many_lanes");
  }
});

Deno.test("a pass that is shorter than a window is an error with both numbers", async () => {
  for (const infinite of [true, false]) {
    const lane = makeLane([6], { window: 14, infinite }); // 1 + 2 + 3 + 4 + 1 + 2 = 13 tokens
    const error = await assertRejects(
      () => lane.take(new Int32Array(14)),
      DataError,
      "Lane 0 of 1 has 13 tokens in its 6 documents of a fake\n  expected: at least 14 tokens",
    );
    assertEquals(error.code, "too_short");
  }
});

Deno.test("the rest of a pass may be shorter than a window", async () => {
  const lane = makeLane([6], { window: 10, infinite: true, from: { epoch: 0, shard: 0, document: 5, token: 0 } });
  const window = new Int32Array(10);
  await lane.take(window);
  assertEquals([...window], [50, 51, 0, 10, 11, 20, 21, 22, 30, 31]);
  await lane[Symbol.asyncDispose]();
});

Deno.test("a document that has become shorter, or is gone, is an error", async () => {
  for (const from of [{ document: 2, token: 3 }, { document: 9, token: 1 }]) {
    const lane = makeLane([6], { infinite: true, from: { epoch: 0, shard: 0, ...from } });
    const message = `Cannot go on at token ${from.token} of document ${from.document} in shard 0`;
    const error = await assertRejects(() => tokens(lane, 1), DataError, message);
    assertEquals(error.code, "bad_state");
  }
});
