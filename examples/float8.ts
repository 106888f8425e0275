/**
 * Trains the same model with products of f32, of bf16 and of float8, and compares the losses.
 *
 * npx -y deno run --no-prompt --allow-read --allow-ffi=build/libtitan.so examples/float8.ts
 * @module
 */
// deno-lint-ignore-file no-import-prefix no-unversioned-import -- a file on its own has no import map
import { llama, namedParameters, type Precision, texts, train } from "jsr:@libtitan/titan";

const sizes = { dim: 64, numLayers: 2, numHeads: 4 };
const linear = [...namedParameters(llama("debug", sizes))].map(([name]) => name).filter((name) =>
  /^layers.*\.w\w+\.weight$/.test(name)
);
const cases: Record<string, Partial<Precision>> = {
  f32: { param: "f32" },
  bf16: { param: "bf16" },
  float8: { param: "bf16", float8: { recipe: "rowwise", weights: new Set(linear) } },
};

for (const [name, precision] of Object.entries(cases)) {
  const options = { data: texts("README.md"), steps: 30, batch: 4, seqLen: 64, lr: 5e-3 };
  let last = NaN;
  for await (const { loss } of train({ model: llama("debug", sizes), precision, ...options })) last = loss;
  console.log(`${name}: loss ${last.toFixed(3)}`);
}
console.log(`${linear.length} matrices were multiplied in float8`);
