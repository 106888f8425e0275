import { assert, assertEquals } from "@std/assert";
import { Loader } from "../../data/loader.ts";
import type { Message } from "../../data/prefetch.ts";
import { ReadingPlaces } from "../../data/reading.ts";
import { Ring } from "../../data/ring.ts";
import { plain } from "./fixture.ts";

/** Starts a worker and gives its first message, and where it reads. */
async function start(open: unknown) {
  const worker = new Worker(new URL("../../data/prefetch_worker.ts", import.meta.url), { type: "module" });
  const places = ReadingPlaces.make(2);
  worker.postMessage({ open, places: places.memory });
  const message = await new Promise<Message>((resolve) => worker.onmessage = ({ data }) => resolve(data));
  return { worker, message, places, [Symbol.dispose]: () => worker.terminate() };
}

Deno.test("a worker tells what it has opened, and fills its rows of the ring that it is given", async () => {
  const options = { dataset: { name: "c4_test" }, batchSize: 2, seqLen: 32 };
  using first = await start({ ...options, worker: 0, workers: 2 });
  using second = await start({ ...options, worker: 1, workers: 2 });
  assert("opened" in first.message, JSON.stringify(first.message));
  const ring = Ring.make({ batchSize: 2, seqLen: 32, slots: 3, workers: 2, state: first.message.opened.state });
  for (const { worker } of [first, second]) worker.postMessage({ ring: ring.spec });
  await using loader = await Loader.open(options);
  for (let n = 0; n < 5; n++) {
    assertEquals(plain((await ring.next(() => false))!), plain((await loader.next())!));
    assertEquals(ring.state(), loader.state());
  }
  assertEquals([first.places.of(0)?.shard, first.places.of(1)], [loader.state().lanes[6].cursors[0].shard, undefined]);
});

Deno.test("the worker tells of a problem with the data as plain data", async () => {
  using worker = await start({ dataset: { name: "c5" }, batchSize: 1, seqLen: 8 });
  assert("problem" in worker.message);
  assertEquals(worker.message.problem.code, "unknown_dataset");
});

Deno.test("the worker tells of any other error with its name and message", async () => {
  using worker = await start({ dataset: null, batchSize: 1, seqLen: 8 });
  assert("error" in worker.message);
  assertEquals(worker.message.error.name, "TypeError");
  assert(worker.message.error.message.length > 0);
});
