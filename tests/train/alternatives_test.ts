import { assertEquals } from "@std/assert";
import { alternativeLines, alternatives, type Need } from "../../train/alternatives.ts";
import { type Config, makeConfig } from "../../train/config.ts";

/** Bytes as a simple rule says: states of 16 a layer, activations by batch, length and checkpointing. */
function plan(config: Config): Need {
  const { training, model, validation } = config;
  const stateBytes = 16 * (model.n_layers ?? 8) / (training.dtype === "bfloat16" ? 2 : 1);
  const half = training.mixed_precision_param === "bfloat16" ? 0.75 : 1;
  const train = training.local_batch_size * training.seq_len * half;
  return { bytes: stateBytes + Math.max(train, validation.enable ? validation.local_batch_size * 100 : 0), stateBytes };
}
const config = makeConfig({
  training: { local_batch_size: 12, seq_len: 256, mixed_precision_param: "float32" },
  model: { flavor: "debugmodel" },
});
const near = (limit: number, from: Config = config) =>
  alternatives(from, { limit, numLayers: from.model.n_layers ?? 8, plan });

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

Deno.test("where the states alone are too large, a batch is no help: another type or a smaller model is", () => {
  const small = makeConfig({ ...config, training: { ...config.training, local_batch_size: 1, seq_len: 1 } });
  assertEquals(near(70, small).map(({ change, bytes }) => [change, bytes]), [
    ['training.dtype "bfloat16" instead of "float32"', 65],
    ["model.n_layers 4 instead of 8", 65],
  ]);
});

Deno.test("where nothing fits, the three that come closest are named as such", () => {
  const list = near(10);
  assertEquals(list.map(({ bytes }) => bytes).toSorted((a, b) => a - b), list.map(({ bytes }) => bytes));
  assertEquals(list.length, 3);
  assertEquals(alternativeLines([{ change: "x 1", bytes: 2048 }, { change: "y 2", bytes: 1024 }], 1024), [
    "x 1 needs 2.0 KiB, which is still too much",
    "y 2 needs 1.0 KiB",
  ]);
});
