import { assertEquals } from "@std/assert";
import { alternativeLines, alternatives, type Need } from "../../../train/report/alternatives.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { type Config, makeConfig } from "../../../train/config/config.ts";

/** Bytes as a simple rule says: 128 of states, shared out by shards, activations by batch, length and type, and four for each sequence of a step. */
function plan(config: Config): Need {
  const { training, parallelism, validation } = config;
  const shards = Math.max(1, parallelism.data_parallel_shard_degree);
  const stateBytes = 16 * 8 / (training.dtype === "bfloat16" ? 2 : 1) / shards;
  const half = training.mixed_precision_param === "bfloat16" ? 0.75 : 1;
  const train = training.local_batch_size * training.seq_len * half;
  return { bytes: stateBytes + Math.max(train, validation.enable ? validation.local_batch_size * 100 : 0), stateBytes };
}
const config = makeConfig({
  training: { local_batch_size: 12, seq_len: 256, mixed_precision_param: "float32" },
  model: { flavor: "debugmodel" },
});
const alone = new Mesh({}, 1);
const near = (limit: number, from: Config = config, mesh = alone) =>
  alternatives(from, { limit, parameters: 8_000_000, mesh, now: plan(from), plan });

Deno.test("the largest batch that fits is found, and accumulation keeps the steps as they are", () => {
  assertEquals(near(128 + 4 * 256), [{
    change: "training.local_batch_size 4 instead of 12 (training.global_batch_size 12: the same steps)",
    bytes: 128 + 4 * 256,
  }]);
});

Deno.test("every key that is enough by itself is named", () => {
  assertEquals(near(128 + 12 * 256 * 0.75).map(({ change }) => change), [
    "training.local_batch_size 6 instead of 12 (training.global_batch_size 12: the same steps)",
    'training.mixed_precision_param "bfloat16" instead of "float32"',
  ]);
});

Deno.test("a step of several microbatches keeps its global batch", () => {
  const accumulating = makeConfig({ training: { ...config.training, global_batch_size: 24 } });
  const [{ change }] = near(128 + 6 * 256, accumulating);
  assertEquals(change, "training.local_batch_size 6 instead of 12 (training.global_batch_size 24: the same steps)");
});

Deno.test("keys that are not enough by themselves are tried together", () => {
  const batch = "training.local_batch_size 1 instead of 12 (training.global_batch_size 12: the same steps)";
  assertEquals(near(128 + 200), [{
    change: `${batch}, training.mixed_precision_param "bfloat16" instead of "float32"`,
    bytes: 128 + 192,
  }]);
});

Deno.test("a validation that needs more than training gets smaller batches", () => {
  const validating = makeConfig({ ...config, validation: { enable: true, local_batch_size: 40 } });
  assertEquals(near(128 + 12 * 256, validating), [{
    change: "validation.local_batch_size 20 instead of 40",
    bytes: 128 + 12 * 256,
  }]);
});

Deno.test("where the states alone are too large, a batch is no help: another type, more ranks or a smaller model are", () => {
  const small = makeConfig({ ...config, training: { ...config.training, local_batch_size: 1, seq_len: 1 } });
  assertEquals(near(70, small).map(({ change, bytes }) => [change, bytes]), [
    ['training.dtype "bfloat16" instead of "float32"', 65],
    ["parallelism.data_parallel_shard_degree 2 on 2 ranks with this memory each", 65],
    [
      "a model of at most 4 million parameters instead of 8 million (model.flavor, model.dim, model.n_layers), " +
      "whose state alone",
      70,
    ],
  ]);
});

Deno.test("more ranks are asked for as multiples of those that there are, in whole steps", () => {
  const small = makeConfig({ ...config, training: { ...config.training, local_batch_size: 1, seq_len: 1 } });
  const ranks = (from: Config, mesh: Mesh) =>
    near(20, from, mesh).map((a) => a.change).filter((c) => c.startsWith("parallelism"));
  assertEquals(ranks(small, new Mesh({ dp_shard: 2, tp: 2 }, 4)), [
    "parallelism.data_parallel_shard_degree 16 on 32 ranks with this memory each",
  ]);
  const whole = makeConfig({ ...small, training: { ...small.training, global_batch_size: 6 } });
  assertEquals(ranks(whole, alone), []);
});

Deno.test("a step of too many sequences gets fewer, where all that one rank holds of them is what is too large", () => {
  const long = makeConfig({ training: { ...config.training, local_batch_size: 1, global_batch_size: 4096 } });
  const hosted = (config: Config) => ({ ...plan(config), bytes: 128 + 4 * config.training.global_batch_size });
  assertEquals(alternatives(long, { limit: 128 + 4096, parameters: 1, mesh: alone, now: hosted(long), plan: hosted }), [
    { change: "training.global_batch_size 1024 instead of 4096", bytes: 128 + 4096 },
  ]);
});

Deno.test("a batch of many divisors takes few plans", () => {
  const many = makeConfig({ training: { ...config.training, local_batch_size: 50400 } });
  let plans = 0;
  const counted = (config: Config) => (plans++, plan(config));
  const [{ change }] = alternatives(many, {
    limit: 128 + 256 * 1000,
    parameters: 1,
    mesh: alone,
    now: plan(many),
    plan: counted,
  });
  assertEquals(change.startsWith("training.local_batch_size 900 instead of 50400"), true, change);
  assertEquals(plans < 20, true, `${plans} plans`);
});

Deno.test("where nothing fits, the three that come closest are named as such", () => {
  const list = near(128 + 20);
  assertEquals(list.map(({ bytes }) => bytes).toSorted((a, b) => a - b), list.map(({ bytes }) => bytes));
  assertEquals(list.length, 3);
  assertEquals(alternativeLines([{ change: "x 1", bytes: 2048 }, { change: "y 2", bytes: 1024 }], 1024), [
    "x 1 needs 2.0 KiB, which is still too much",
    "y 2 needs 1.0 KiB",
  ]);
});
