import { assert, assertEquals } from "@std/assert";
import { Loader } from "../../data/loader.ts";
import type { Message } from "../../data/prefetch.ts";
import { Ring } from "../../data/ring.ts";
import { plain } from "./fixture.ts";

/** Starts a worker and gives its first message. */
async function start(options: unknown): Promise<Disposable & { message: Message }> {
  const worker = new Worker(new URL("../../data/prefetch_worker.ts", import.meta.url), { type: "module" });
  worker.postMessage(options);
  const message = await new Promise<Message>((resolve) => worker.onmessage = ({ data }) => resolve(data));
  return { message, [Symbol.dispose]: () => worker.terminate() };
}

Deno.test("the worker tells of its ring and fills it", async () => {
  const options = { dataset: { name: "c4_test" }, batchSize: 2, seqLen: 32, ahead: 2 };
  using worker = await start(options);
  assert("opened" in worker.message, JSON.stringify(worker.message));
  const ring = new Ring(worker.message.opened.ring);
  assertEquals(ring.spec.slots, 3);
  await using loader = await Loader.open(options);
  for (let n = 0; n < 5; n++) {
    assertEquals(plain((await ring.next(() => false))!), plain((await loader.next())!));
  }
});

Deno.test("the worker tells of a problem with the data as plain data", async () => {
  using worker = await start({ dataset: { name: "c5" }, batchSize: 1, seqLen: 8, ahead: 1 });
  assert("problem" in worker.message);
  assertEquals(worker.message.problem.code, "unknown_dataset");
});

Deno.test("the worker tells of any other error with its name and message", async () => {
  using worker = await start({ dataset: null, batchSize: 1, seqLen: 8, ahead: 1 });
  assert("error" in worker.message);
  assertEquals(worker.message.error.name, "TypeError");
  assert(worker.message.error.message.length > 0);
});
