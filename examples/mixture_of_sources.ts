/**
 * Trains on two sources at once, three rows of one for each row of the other, and tells how often each has been read.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/mixture_of_sources.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, texts, train } from "jsr:@libtitan/titan";

const run = train({
  model: llama("debug", { dim: 64, numLayers: 1, numHeads: 4 }),
  data: {
    mixture: [
      { name: "book", data: texts("docs/"), weight: 3 },
      { name: "changes", data: texts("CHANGELOG.md"), weight: 1 },
    ],
  },
  steps: 30,
  batch: 8,
  seqLen: 64,
  lr: 5e-3,
  notice: () => {}, // the changes are short, and read again
});
for await (const { step, loss, epochs } of run) {
  const read = Object.entries(epochs).map(([name, epoch]) => `${name} ${epoch.toFixed(2)} times`).join(", ");
  if (step % 10 === 0) console.log(`step ${step}: loss ${loss.toFixed(3)}, read ${read}`);
}
