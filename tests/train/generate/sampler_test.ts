import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { GenerateError } from "../../../train/generate/error.ts";
import { sample, samplingOf, type SamplingOptions } from "../../../train/generate/sampler.ts";

const LOGITS = [1, 3, 2.5, -1, 0, 2.9];

/** How often each token is drawn. */
function shares(options: SamplingOptions, logits = LOGITS, draws = 4000, before: number[] = []): number[] {
  const counts = logits.map(() => 0), sampling = samplingOf({ temperature: 1, ...options });
  for (let position = 0; position < draws; position++) {
    counts[sample(Float32Array.from(logits), { sequence: 0, position, before }, sampling)]++;
  }
  return counts.map((count) => count / draws);
}

/** What they should be. */
function softmax(logits: readonly number[], kept: readonly number[] = [...logits.keys()], temperature = 1): number[] {
  const weights = logits.map((x, i) => kept.includes(i) ? Math.exp(x / temperature) : 0);
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((w) => w / sum);
}

function assertShares(found: readonly number[], expected: readonly number[]): void {
  found.forEach((share, i) => {
    if (expected[i] === 0) assertEquals(share, 0, `token ${i}`);
    else assertAlmostEquals(share, expected[i], 4 * Math.sqrt(expected[i] / 4000), `token ${i}`);
  });
}

Deno.test("tokens are drawn as often as their probabilities say, at any temperature", () => {
  assertShares(shares({}), softmax(LOGITS));
  assertShares(shares({ temperature: 0.5 }), softmax(LOGITS, undefined, 0.5));
  assertShares(shares({ seed: 2 ** 40 + 1 }), softmax(LOGITS));
});

Deno.test("each filter leaves the tokens that it should, and their proportions", () => {
  assertShares(shares({ topK: 2 }), softmax(LOGITS, [1, 5]));
  assertShares(shares({ topK: 100 }), softmax(LOGITS));
  const [, first, third, , , second] = softmax(LOGITS);
  assertShares(shares({ topP: first * 0.99 }), softmax(LOGITS, [1]));
  assertShares(shares({ topP: first + second * 0.5 }), softmax(LOGITS, [1, 5]));
  assertShares(shares({ topP: first + second + third * 0.5 }), softmax(LOGITS, [1, 2, 5]));
  assertShares(shares({ minP: Math.exp(-0.55) }), softmax(LOGITS, [1, 2, 5]));
  assertShares(shares({ topK: 3, topP: 0.7, minP: 0.95 }), softmax(LOGITS, [1])); // the second has 0.90 of the first
});

Deno.test("of tokens that are equally likely the first are kept", () => {
  const equal = [0, 1, 1, 1, 0];
  assertShares(shares({ topK: 2 }, equal), softmax(equal, [1, 2]));
  assertShares(shares({ topP: 0.5 }, equal), softmax(equal, [1, 2]));
  assertEquals(shares({ temperature: 0 }, equal), [0, 1, 0, 0, 0]);
});

Deno.test("a penalty makes tokens that are there already rarer, whatever their logits' sign, and each once", () => {
  const penalized = [1, 3 / 1.5, 2.5, -1.5, 0, 2.9];
  assertShares(shares({ repetitionPenalty: 1.5 }, LOGITS, 4000, [1, 3, 1, 1]), softmax(penalized));
  assertEquals(shares({ repetitionPenalty: 2, temperature: 0 }, LOGITS, 1, [1]).indexOf(1), 5);
});

Deno.test("a draw depends on seed, sequence and position, and on nothing else", () => {
  const draw = (seed: number, sequence: number, position: number) =>
    sample(new Float32Array(1000), { sequence, position, before: [] }, samplingOf({ temperature: 1, seed }));
  const here = draw(1, 2, 3);
  assertEquals(draw(1, 2, 3), here);
  const others = [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1 + 2 ** 32, 2, 3), draw(-1, 2, 3)];
  assert(others.every((token) => token !== here), `${here} and ${others}`);
});

Deno.test("tokens of a long tail, which are not sorted, leave the others their shares", () => {
  const logits = Array.from({ length: 3000 }, (_, i) => i < 3 ? 10 - i : -30);
  assertShares(shares({ topP: 0.999 }, logits, 2000).slice(0, 3), softmax([10, 9, 8]));
});

Deno.test("logits that are no numbers end it, with the token", () => {
  for (const wrong of [NaN, Infinity]) {
    const logits = Float32Array.of(1, wrong, 2), place = { sequence: 0, position: 0, before: [] };
    assertThrows(() => sample(logits, place, samplingOf({})), GenerateError, `token 1 the logit ${wrong}`);
  }
});

Deno.test("an option that cannot be is refused by the name that it was given under", () => {
  const wrong: SamplingOptions[] = [
    ...[{ temperature: -1 }, { temperature: NaN }, { topK: 1.5 }, { topK: -1 }, { topP: 0 }, { topP: 1.1 }],
    ...[{ minP: -0.1 }, { minP: 2 }, { repetitionPenalty: 0 }, { seed: 0.5 }],
  ];
  for (const options of wrong) {
    const [[name, value]] = Object.entries(options);
    assertThrows(() => samplingOf(options, (n) => `<${n}>`), GenerateError, `<${name}> is ${value}`);
  }
  assertEquals(samplingOf({ topK: 5 }).temperature, 0.8);
});
