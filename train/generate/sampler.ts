/** Which token comes next: the likeliest, or one that is drawn. What is drawn depends on seed, sequence and position alone, so that a
 * sample is the same whatever others are made beside it.
 * @module */
import { philox } from "../../graph/ops/random.ts";
import { GenerateError } from "./error.ts";

/** How tokens are drawn. Filters work in this order, each on what those before it have left. */
export interface SamplingOptions {
  /** What logits are divided by before they become probabilities; 0 takes the likeliest token always. Default 0.8. */
  readonly temperature?: number;
  /** Only so many of the likeliest tokens; 0, the default: all. */
  readonly topK?: number;
  /** Only the likeliest tokens that have this probability together; default 1: all. */
  readonly topP?: number;
  /** Only tokens that have this part of the likeliest one's probability; default 0: all. */
  readonly minP?: number;
  /** What the logits of tokens that are there already are divided by, and multiplied by below 0; default 1: nothing is changed. */
  readonly repetitionPenalty?: number;
  /** A whole number; another one draws other tokens. Default 0. */
  readonly seed?: number;
}

/** Options with nothing left open. */
export type Sampling = Required<SamplingOptions>;

/** What holds unless it is said otherwise. */
export const defaultSampling: Sampling = {
  temperature: 0.8,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 0,
};

/** What each option may be, as words and as a rule. */
const RULES: Readonly<Record<keyof Sampling, readonly [expected: string, holds: (x: number) => boolean]>> = {
  temperature: ["a number from 0 on", (x) => x >= 0 && x < Infinity],
  topK: ["a whole number from 0 on", (x) => Number.isSafeInteger(x) && x >= 0],
  topP: ["a number above 0, up to 1", (x) => x > 0 && x <= 1],
  minP: ["a number from 0 to 1", (x) => x >= 0 && x <= 1],
  repetitionPenalty: ["a number above 0", (x) => x > 0 && x < Infinity],
  seed: ["a whole number", (x) => Number.isSafeInteger(x)],
};

/** Fills in defaults.
 * @param shown how an option is called where it was given. @throws {GenerateError} when one cannot be. */
export function samplingOf(options: SamplingOptions, shown: (option: string) => string = (option) => option): Sampling {
  const complete = { ...defaultSampling };
  for (const name of Object.keys(RULES) as (keyof Sampling)[]) {
    const value = options[name] ?? defaultSampling[name], [expected, holds] = RULES[name];
    if (!holds(value)) throw new GenerateError(`${shown(name)} is ${value}`, expected, `change ${shown(name)}`);
    complete[name] = value;
  }
  return complete;
}

/** Where a token comes, for {@linkcode sample}. */
export interface Place {
  /** Number of the sequence, from 0. */
  readonly sequence: number;
  /** Tokens before it in its sequence. */
  readonly position: number;
  /** All of them that count as there already. */
  readonly before: Iterable<number>;
}

/** The next token.
 * @param logits of all tokens; they may be changed.
 * @throws {GenerateError} when they are no numbers. */
export function sample(logits: Float32Array, { sequence, position, before }: Place, options: Sampling): number {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = options;
  if (repetitionPenalty !== 1) {
    for (const token of new Set(before)) logits[token] *= logits[token] < 0 ? repetitionPenalty : 1 / repetitionPenalty;
  }
  const best = likeliest(logits);
  if (temperature === 0) return best;
  const chosen = topK > 0 ? largest(logits, topK) : all(logits.length);
  let kept: Candidates = { tokens: chosen, weights: weightsOf(chosen, logits, { best: logits[best], temperature }) };
  if (topP < 1) kept = nucleus(kept, topP);
  if (minP > 0) kept = filtered(kept, minP);
  let left = uniform(seed, sequence, position) * sumOf(kept.weights), last = best;
  for (let i = 0; i < kept.tokens.length; i++) {
    if (kept.weights[i] > 0) last = kept.tokens[i];
    left -= kept.weights[i];
    if (left < 0) break;
  }
  return last; // of the end by rounding alone
}

/** Tokens that may come, and their probabilities up to a common factor: the likeliest one's is 1. Typed arrays and loops, as this is done
 * for each token of a text. */
interface Candidates {
  readonly tokens: Uint32Array;
  readonly weights: Float64Array;
}

function all(count: number): Uint32Array {
  const tokens = new Uint32Array(count);
  for (let token = 0; token < count; token++) tokens[token] = token;
  return tokens;
}

function weightsOf(
  tokens: Uint32Array,
  logits: Float32Array,
  { best, temperature }: { readonly best: number; readonly temperature: number },
): Float64Array {
  const weights = new Float64Array(tokens.length);
  for (let i = 0; i < tokens.length; i++) weights[i] = Math.exp((logits[tokens[i]] - best) / temperature);
  return weights;
}

/** Those with so large a weight at least. */
function filtered({ tokens, weights }: Candidates, least: number): Candidates {
  const kept = { tokens: new Uint32Array(tokens.length), weights: new Float64Array(tokens.length) };
  let count = 0;
  for (let i = 0; i < tokens.length; i++) {
    if (!(weights[i] >= least)) continue;
    kept.tokens[count] = tokens[i];
    kept.weights[count++] = weights[i];
  }
  return { tokens: kept.tokens.subarray(0, count), weights: kept.weights.subarray(0, count) };
}

function sumOf(weights: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < weights.length; i++) sum += weights[i];
  return sum;
}

/** The likeliest token, of equal ones the first. */
function likeliest(logits: Float32Array): number {
  let best = 0;
  for (let token = 0; token < logits.length; token++) {
    if (logits[token] > logits[best]) best = token;
    else if (Number.isNaN(logits[token])) best = token;
    if (!(logits[best] < Infinity)) {
      throw new GenerateError(
        `The model gives token ${best} the logit ${logits[best]}`,
        "numbers that are finite",
        "choose another checkpoint: its weights are no longer numbers",
      );
    }
  }
  return best;
}

/** The tokens with the largest logits, the largest first, of equal ones the first. */
function largest(logits: Float32Array, count: number): Uint32Array {
  const found: number[] = [];
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token];
    if (found.length === count && logit <= logits[found[count - 1]]) continue; // nearly all of them
    let [low, high] = [0, found.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (logits[found[middle]] >= logit) low = middle + 1;
      else high = middle;
    }
    found.splice(low, 0, token);
    if (found.length > count) found.pop();
  }
  return Uint32Array.from(found);
}

/** The fewest of the likeliest tokens whose weights make up a part of all weights. */
function nucleus(all: Candidates, part: number): Candidates {
  const total = sumOf(all.weights);
  // Tokens below this have less than the rest together, so that they need not be sorted.
  const { tokens, weights } = filtered(all, (1 - part) * total / all.tokens.length);
  const order = Uint32Array.from(tokens.keys()).sort((a, b) => weights[b] - weights[a] || tokens[a] - tokens[b]);
  let sum = 0, count = 0;
  while (count < order.length && sum < part * total) sum += weights[order[count++]];
  const kept = order.subarray(0, count);
  return { tokens: kept.map((i) => tokens[i]), weights: Float64Array.from(kept, (i) => weights[i]) };
}

/** A number from 0 up to 1 for a place. */
function uniform(seed: number, sequence: number, position: number): number {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];
  const [high, low] = philox([position, sequence, 0x73616d70, 0], key); // "samp": other numbers than initial values have
  return ((high >>> 5) * 2 ** 26 + (low >>> 6)) / 2 ** 53;
}
