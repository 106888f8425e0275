import { assert, assertEquals } from "@std/assert";
import type { LoaderState } from "../../data/loader_state.ts";
import { Ring } from "../../data/ring.ts";

const state: LoaderState = {
  version: 2,
  sources: [{ name: "a", shards: 5, identity: "" }, { name: "b", shards: 1, identity: "" }],
  tokenizer: "",
  step: 0,
  nextLane: 0,
  lanes: [place(0, 0), place(1, 0)],
};

/** A lane's place after batch `n`. */
function place(lane: number, n: number) {
  const cursors = [0, 1].map((source) => ({
    epoch: n,
    shard: lane,
    document: 2 ** 40 + n,
    token: lane + n + 7 * source,
  }));
  return { rows: n, cursors };
}

/** Two views of one ring: the filler's and the user's. */
function makeRings(slots = 3): [Ring, Ring] {
  const filler = Ring.make({ batchSize: 2, seqLen: 4, slots, workers: 1, state });
  return [filler, new Ring(structuredClone({ ...filler.spec }))];
}

/** The state after batch `n`. */
function after(n: number): LoaderState {
  return { ...state, step: n + 1, nextLane: n % 2, lanes: [place(0, n), place(1, n)] };
}

async function fill(ring: Ring, n: number): Promise<void> {
  const batch = await ring.free();
  batch.tokens.fill(n);
  [batch.rows, batch.skipped, batch.epochs] = [n % 2 + 1, n, [n, 2 * n]];
  ring.publish(0, after(n), [0, 1]);
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
    await filler.free();
    filler.end(0);
  })();
  for (let n = 0; n < 10; n++) {
    const batch = (await user.next(never))!;
    assertEquals([...batch.tokens], new Array(8).fill(n));
    assertEquals([...batch.positions], [0, 1, 2, 3, 0, 1, 2, 3]);
    assertEquals([batch.step, batch.rows, batch.skipped, batch.epochs], [n, n % 2 + 1, n, [n, 2 * n]]);
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
  await filler.free();
  filler.end(0);
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

ringTest(
  "a batch is whole when all workers have filled their rows of it, and its state is of what each reads",
  async () => {
    const { spec } = Ring.make({ batchSize: 2, seqLen: 4, slots: 2, workers: 2, state });
    const [first, second, user] = [new Ring(spec), new Ring(spec), new Ring(spec)];
    const fillRow = async (ring: Ring, worker: number, n: number) => {
      const batch = await ring.free();
      batch.tokens.fill(10 * n + worker, 4 * worker, 4 * worker + 4);
      [batch.rows, batch.skipped, batch.epochs] = [1, worker + 1, [worker === 0 ? 3 : 5, Infinity]];
      const nowhere = place(0, 999); // of lanes that a worker does not read it knows nothing
      const lanes = [0, 1].map((lane) => lane === worker ? place(lane, n) : nowhere);
      ring.publish(worker, { ...after(n), lanes }, [worker]);
    };
    await fillRow(first, 0, 0);
    await fillRow(first, 0, 1);
    let isThere = false;
    const next = user.next(never).then((batch) => (isThere = true, batch!));
    await new Promise((done) => setTimeout(done, 20));
    assertEquals(isThere, false);
    assertEquals(user.awaited, 1);
    await fillRow(second, 1, 0);
    const batch = await next;
    assertEquals([...batch.tokens], [0, 0, 0, 0, 1, 1, 1, 1]);
    assertEquals([batch.rows, batch.skipped, batch.epochs], [2, 3, [3, Infinity]]);
    assertEquals(user.state(), after(0));
  },
);

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
