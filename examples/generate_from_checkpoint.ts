/**
 * Trains for a few steps, keeps the weights, and has them continue a text: the same seed gives the same words.
 *
 * npx -y deno run --no-prompt --allow-read --allow-write --allow-sys --allow-ffi=build/libtitan.so examples/generate_from_checkpoint.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { generate, llama, texts, train } from "jsr:@libtitan/titan";

const folder = await Deno.makeTempDir();
const run = train({
  model: llama("debug", { dim: 64, numLayers: 2, numHeads: 4 }),
  data: texts("README.md"),
  steps: 40,
  batch: 4,
  seqLen: 64,
  lr: 5e-3,
  checkpoint: { folder, interval: 40 },
});
for await (const { step, loss } of run) if (step === 40) console.log(`step ${step}: loss ${loss.toFixed(3)}`);

for (const seed of [1, 1, 2]) {
  let text = "";
  const options = { prompt: "The run", maxNewTokens: 12, temperature: 0.8, seed };
  for await (const piece of generate(`${folder}/step-40`, options)) text += piece.text;
  console.log(`seed ${seed}: ${JSON.stringify(text)}`);
}
await Deno.remove(folder, { recursive: true });
