import { assert, assertEquals } from "@std/assert";
import type { LoaderState } from "../../data/loader.ts";
import { Ring } from "../../data/ring.ts";

const state: LoaderState = {
  version: 1,
  dataset: "fake",
  shards: 5,
  step: 0,
  nextLane: 0,
  lanes: [{ epoch: 0, shard: 0, document: 0, token: 0 }, { epoch: 0, shard: 1, document: 0, token: 0 }],
};

/** Two views of one ring: the filler's and the user's. */
function makeRings(slots = 3): [Ring, Ring] {
  const filler = Ring.make({ batchSize: 2, seqLen: 4, slots, state });
  return [filler, new Ring(structuredClone({ ...filler.spec }))];
}

/** The state after batch `n`. */
function after(n: number): LoaderState {
  const lanes = state.lanes.map(({ shard }, lane) => ({ epoch: n, shard, document: 2 ** 40 + n, token: lane + n }));
  return { ...state, step: n + 1, nextLane: n % 2, lanes };
}

async function fill(ring: Ring, n: number): Promise<void> {
  const batch = await ring.free();
  batch.tokens.fill(n);
  batch.rows = n % 2 + 1;
  ring.publish(after(n));
}

const never = () => false;

/** Runs a test with both ends in one thread. There no worker keeps the event loop going while they wait; a timer does. */
function ringTest(name: string, test: () => Promise<void>): void {
  Deno.test(name, async () => {
    const timer = setInterval(() => {}, 1000);
    try {
      await test();
    } finally {
      clearInterval(timer);
    }
  });
}

ringTest("batches arrive in order with the state after each", async () => {
  const [filler, user] = makeRings();
  assertEquals(user.state(), state);
  const filling = (async () => {
    for (let n = 0; n < 10; n++) await fill(filler, n);
    filler.end();
  })();
  for (let n = 0; n < 10; n++) {
    const batch = (await user.next(never))!;
    assertEquals([...batch.tokens], new Array(8).fill(n));
    assertEquals([...batch.positions], [0, 1, 2, 3, 0, 1, 2, 3]);
    assertEquals([batch.step, batch.rows], [n, n % 2 + 1]);
    assertEquals(user.state(), after(n));
  }
  await filling;
  assertEquals(await user.next(never), undefined);
  assertEquals(user.state(), after(9), "the end does not move the state");
});

ringTest("the filler waits while all slots are full or in use", async () => {
  const [filler, user] = makeRings(2);
  await fill(filler, 0);
  await fill(filler, 1);
  let isFree = false;
  const third = fill(filler, 2).then(() => isFree = true);
  const batch = (await user.next(never))!; // in use: not free yet
  await new Promise((done) => setTimeout(done, 20));
  assertEquals(isFree, false);
  assertEquals([...batch.tokens], new Array(8).fill(0));
  await user.next(never);
  await third;
});

ringTest("the user waits for a batch, and for the end", async () => {
  const [filler, user] = makeRings();
  const first = user.next(never);
  await fill(filler, 0);
  assertEquals((await first)!.step, 0);
  const second = user.next(never);
  filler.end();
  assertEquals(await second, undefined);
});

ringTest("who stops a waiting user lets it use first what was published", async () => {
  const [filler, user] = makeRings();
  let isStopped = false;
  const stopped = () => isStopped;
  await fill(filler, 0);
  await fill(filler, 1);
  isStopped = true;
  assertEquals((await user.next(stopped))!.step, 0);
  assertEquals((await user.next(stopped))!.step, 1);
  assertEquals(await user.next(stopped), undefined);
  isStopped = false;
  const waiting = user.next(stopped);
  isStopped = true;
  user.wake();
  assertEquals(await waiting, undefined);
});

ringTest("no memory is made after the ring", async () => {
  const [filler, user] = makeRings();
  const batches = new Set<unknown>();
  for (let n = 0; n < 20; n++) {
    await fill(filler, n);
    const batch = (await user.next(never))!;
    batches.add(batch);
    for (const array of [batch.tokens, batch.targets, batch.positions, batch.documents]) {
      assert(array.buffer === user.spec.memory);
    }
  }
  assertEquals(batches.size, 3);
});
