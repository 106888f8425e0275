import { assertEquals } from "@std/assert";
import { texts } from "../../data/dataset.ts";
import { complete } from "../../train/options.ts";
import { tinyLlama } from "../model/tiny.ts";

Deno.test("what is not asked for has defaults, and options of the optimizer may be given one by one", () => {
  const { steps, batch, accumulation, seqLen, lr, lrSchedule, optimizer, dtype, seed, threads } = complete({
    model: tinyLlama(),
    data: texts("a.txt"),
    steps: 55,
    optimizer: { beta2: 0.99 },
  });
  assertEquals({ steps, batch, accumulation, seqLen, lr, dtype, seed, threads }, {
    steps: 55,
    batch: 8,
    accumulation: 1,
    seqLen: 256,
    lr: 2e-3,
    dtype: "f32",
    seed: 0,
    threads: 0,
  });
  assertEquals(optimizer, { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 });
  assertEquals([lrSchedule.warmupSteps, lrSchedule.totalSteps], [6, 55]);
});
