/** The graphs of text generation: what a model says of the token that follows, for several sequences at once. All of them share the
 * model's parameters and its cache, and differ in how many new tokens of a sequence they read: one to decode, more for a prompt.
 * @module */
import type { Builder } from "../../graph/builder.ts";
import { i32 } from "../../graph/builder.ts";
import type { DType, Graph } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { Cache, type GenerativeModel } from "../../model/cache.ts";
import { bind } from "../../model/module.ts";
import { assignStages } from "../../parallel/pipeline/assign_stages.ts";
import type { Stages } from "../../parallel/pipeline/stages.ts";
import type { RealType } from "../step.ts";

/** What is generated, and how. */
export interface GenerationShape {
  /** Sequences side by side. */
  readonly sequences: number;
  /** Tokens of a sequence that there is room for. */
  readonly maxLength: number;
  /** What is computed in, and what logits are. */
  readonly dtype: RealType;
  /** How the cache stores what it keeps; default: as it is computed. */
  readonly cache?: DType;
  /** Of a pipeline, which nodes then have. */
  readonly stages?: Stages;
}

/** New tokens of a sequence that graphs are made for: one, few enough that reading the weights still counts, and enough that it does not. */
const TOKENS: readonly number[] = [1, 32, 128];

/** To read the weights takes as long as to multiply them with so many tokens. */
const READING = 32;

/** The numbers of new tokens that graphs are made for, from 1 on. */
export function tokenCounts(maxLength: number): number[] {
  return TOKENS.filter((n) => n <= Math.max(1, maxLength));
}

/** Of numbers of new tokens that there are graphs for, the one that gets on fastest where a sequence has `left`. */
export function quickest(counts: readonly number[], left: number, sequences: number): number {
  const perToken = (count: number): number => (sequences * count + READING) / Math.min(count, left);
  return counts.reduce((best, count) => perToken(count) < perToken(best) ? count : best);
}

/** Name of the graph for so many new tokens of each sequence. */
export function generationName(tokens: number): string {
  return tokens === 1 ? "decode" : `prefill_${tokens}`;
}

/** Graphs `decode` and `prefill_N`. Inputs `tokens` and `positions`, i32 `[sequences, N]`, and `last`, i32 `[sequences, 1]`: see
 * {@linkcode NewTokens}. Their dims have no roles, so all ranks of a mesh read all tokens: a single one cannot be shared out. Output `logits`,
 * `[sequences, vocabSize]`. */
export function generationGraphs(model: GenerativeModel, shape: GenerationShape): Graph[] {
  return tokenCounts(shape.maxLength).map((tokens) => traceNext(model, tokens, shape));
}

function traceNext(model: GenerativeModel, count: number, shape: GenerationShape): Graph {
  const { sequences, maxLength, dtype, stages } = shape;
  const graph = traceGraph(generationName(count), [], (builder: Builder) => {
    const input = (name: string, n: number): Tensor => new Tensor(builder, builder.input(name, i32(sequences, n)));
    const [tokens, positions] = ["tokens", "positions"].map((name) => input(name, count)), last = input("last", 1);
    return bind(model, { builder, dtype }, () => {
      const cache = new Cache(positions, maxLength, shape.cache ?? dtype);
      return { logits: model.next({ tokens, positions, last, cache }) };
    });
  });
  return stages ? assignStages(graph, stages) : graph;
}
