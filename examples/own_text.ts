/**
 * Trains a tiny Llama on text files, and prints the loss as it falls. Name your own instead of CONTRIBUTING.md: a folder, or "notes/*.md".
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/own_text.ts CONTRIBUTING.md
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, texts, train } from "jsr:@libtitan/titan";

const run = train({
  model: llama("debug", { dim: 64, numLayers: 2, numHeads: 4 }),
  data: texts(...Deno.args),
  steps: 50,
  batch: 4,
  seqLen: 64,
  lr: 5e-3,
});

for await (const { step, loss } of run) {
  if (step === 1 || step % 10 === 0) console.log(`step ${step}: loss ${loss.toFixed(3)}`);
}
