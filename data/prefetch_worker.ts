/** A worker of `prefetch.ts`: opens a loader, then fills its rows of the ring until the data ends, fails, or the worker is terminated.
 * @module */
import { DataError } from "./error.ts";
import { Loader, type LoaderOptions } from "./loader.ts";
import type { Message, Opened, Order } from "./prefetch.ts";
import { ReadingPlaces } from "./reading.ts";
import { Ring, type RingSpec } from "./ring.ts";

const scope = self as unknown as Worker;
const tell = (message: Message) => scope.postMessage(message);

/** Opens a loader, looks at its lanes, and tells the other side of both; once that sends a ring, fills it. */
async function run(options: LoaderOptions, places: ReadingPlaces, ringOf: Promise<RingSpec>): Promise<void> {
  const { worker = 0 } = options;
  await using loader = await Loader.open({
    ...options,
    onRead: (source, shard, document) => places.tell(worker, { source, shard, document }),
    onSkip: ({ problem }) => tell({ skipped: problem.what }),
    onNote: (note) => tell({ note }),
  });
  tell({ opened: factsOf(loader) });
  await loader.checkLanes();
  tell({ ready: true });
  const ring = new Ring(await ringOf);
  while (await loader.fill(await ring.free())) ring.publish(worker, loader.state(), loader.own);
  ring.end(worker);
}

function factsOf(loader: Loader): Opened {
  const { sources, tokenizer: { vocabSize, bosId, eosId } } = loader, [{ dataset }] = sources;
  const total = sources.reduce((sum, { weight }) => sum + weight, 0);
  const parts = sources.map(({ name, dataset: { description }, weight }) =>
    `${Number((100 * weight / total).toFixed(1))} % ${name}: ${description}`
  );
  return {
    state: loader.state(),
    description: sources.length === 1 ? dataset.description : parts.join("; "),
    documents: sources.length === 1 ? dataset.documents : undefined,
    shards: sources.map(({ dataset: { shards } }) => shards.map(({ name }) => name)),
    vocabSize,
    bosId,
    eosId,
  };
}

const ring = Promise.withResolvers<RingSpec>();
scope.onmessage = async ({ data }: MessageEvent<Order>) => {
  if ("ring" in data) return ring.resolve(data.ring);
  try {
    await run(data.open, new ReadingPlaces(data.places), ring.promise);
  } catch (error) {
    if (error instanceof DataError) return tell({ problem: error.problem });
    const { name, message, stack } = error as Error;
    tell({ error: { name, message, stack } });
  }
};
