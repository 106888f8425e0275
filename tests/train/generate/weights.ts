/** Random models for tests of generation.
 * @module */
import { library } from "../../../ffi/library.ts";
import type { Memory } from "../../../graph/interpret.ts";
import { type Llama, llama, type LlamaOptions } from "../../../model/llama.ts";
import type { ModelWeights } from "../../../train/generate/decoder.ts";
import { initialized, logitsOf } from "../../model/tiny.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** Sizes that differ in what a cache and its kernels may get wrong. */
export const sizes: Readonly<Record<string, LlamaOptions>> = {
  grouped: { numHeads: 6, numKvHeads: 2, dim: 24 },
  tied: { tiedEmbeddings: true },
  "with heads of a size of their own": { headDim: 10, numKvHeads: 1 },
  "with llama3's scaling of positions": {
    ropeTheta: 100,
    ropeScaling: { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 16 },
  },
  "of one head for all": { numHeads: 8, numKvHeads: 8, dim: 32, ffnHiddenDim: 40, vocabSize: 70 },
};

/** A small Llama whose parameters are random, so large that each of them matters. */
export function randomLlama(options: LlamaOptions = {}): { model: Llama; memory: Memory; weights: ModelWeights } {
  const small = { dim: 16, numLayers: 2, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 24, vocabSize: 48 };
  const model = llama("debug", { ropeScaling: null, ...small, ...options }), memory = initialized(model);
  for (const [name, { shape, data }] of memory) {
    const size = name.includes("norm") ? 1 : 0.8 * Math.sqrt(3 / shape.at(-1)!);
    data.forEach((_, i) => data[i] = size * (name.includes("norm") ? 1 + 0.5 * wave(i) : wave(i + 31 * name.length)));
  }
  const parameters = new Map([...memory].filter(([name]) => !/^moment/.test(name)));
  const weights: ModelWeights = {
    path: "random",
    family: model.family,
    tensors: new Map([...parameters].map(([name, { shape }]) => [name, { shape, dtype: "f64" as const }])),
    read: (name) => Promise.resolve(Float64Array.from(parameters.get(name)!.data)),
  };
  return { model, memory, weights };
}

/** A number from -1 to 1 that looks random. */
function wave(i: number): number {
  const x = Math.sin(12.9898 * i + 4.1414) * 43758.5453;
  return 2 * (x - Math.floor(x)) - 1;
}

/** Tokens of a sequence, other ones for each seed. */
export function someTokens(length: number, seed: number, vocabSize = 48): number[] {
  return Array.from({ length }, (_, i) => Math.floor((wave(1000 * seed + i) + 1) / 2 * vocabSize) % vocabSize);
}

/** Logits behind a sequence's last token, by the whole forward pass in f64. */
export function fullLogits(model: Llama, memory: Memory, tokens: readonly number[]): Float64Array {
  const logits = logitsOf(model, memory, { tokens: [...tokens], positions: tokens.map((_, i) => i) });
  return logits.slice(-model.vocabSize);
}

/** Largest difference. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new RangeError(`${a.length} and ${b.length} numbers`);
  return Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i])), 0);
}
