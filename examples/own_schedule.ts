/**
 * A learning rate that warms up, stays, and decays along a cosine in the last third, with AdamW's own numbers.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/own_schedule.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, type LrScheduleOptions, texts, train } from "jsr:@libtitan/titan";

const steps = 30;
const lrSchedule: LrScheduleOptions = {
  warmupSteps: 5,
  totalSteps: steps,
  decayRatio: 1 / 3,
  decayType: "cosine",
  minLrFactor: 0.1,
};
const run = train({
  model: llama("debug", { dim: 64, numLayers: 1, numHeads: 4 }),
  data: texts("README.md"),
  steps,
  batch: 4,
  seqLen: 64,
  lr: 5e-3,
  lrSchedule,
  optimizer: { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.05, maxNorm: 0.5 },
});
for await (const { step, loss, lr } of run) {
  if (step % 5 === 0) console.log(`step ${step}: rate ${lr.toExponential(2)}, loss ${loss.toFixed(3)}`);
}
