/** The worker of `prefetch.ts`: fills the ring until the data ends, fails, or the worker is terminated. @module */
import { DataError } from "./error.ts";
import { Loader, type LoaderOptions } from "./loader.ts";
import type { Message } from "./prefetch.ts";
import { Ring } from "./ring.ts";

/** Opens a loader, tells the other side, and fills the ring. */
async function run(
  options: LoaderOptions & { readonly ahead: number },
  tell: (message: Message) => void,
): Promise<void> {
  await using loader = await Loader.open(options);
  const { batchSize, seqLen, ahead } = options;
  const ring = Ring.make({ batchSize, seqLen, slots: ahead + 1, state: loader.state() });
  const { vocabSize, bosId, eosId } = loader.tokenizer;
  await loader.checkLanes();
  const { description, documents } = loader.dataset;
  tell({ opened: { ring: ring.spec, description, documents, vocabSize, bosId, eosId } });
  while (await loader.fill(await ring.free())) ring.publish(loader.state());
  ring.end();
}

const scope = self as unknown as Worker;
scope.onmessage = async ({ data }) => {
  const tell = (message: Message) => scope.postMessage(message);
  try {
    await run(data, tell);
  } catch (error) {
    if (error instanceof DataError) return tell({ problem: error.problem });
    const { name, message, stack } = error as Error;
    tell({ error: { name, message, stack } });
  }
};
