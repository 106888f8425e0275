/** A Llama small enough for the interpreter, and short ways to run it there.
 * @module */
import { arr } from "../../graph/array.ts";
import { i32 } from "../../graph/builder.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import { bind } from "../../model/module.ts";
import { type Llama, llama, type LlamaOptions } from "../../model/llama.ts";
import { traceInitialize } from "../../train/optimizer.ts";

/** A Llama that the interpreter can run in a moment. */
export function tinyLlama(options: LlamaOptions = {}): Llama {
  return llama("debug", {
    dim: 16,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    ffnHiddenDim: 24,
    vocabSize: 32,
    ...options,
  });
}

/** First values of a model's parameters, and of its moments. */
export function initialized(model: Llama, seed: readonly [number, number] = [1, 2]): Memory {
  const memory: Memory = new Map();
  interpret(verify(traceInitialize(model, "f64")), { inputs: { seed }, memory });
  return memory;
}

/** Tokens, targets and positions of `batch` rows, and perhaps document ids. */
export type Rows = Record<"tokens" | "targets" | "positions", number[]> & { documents?: number[] };

/** Rows that a formula makes: any two of them differ. Every seventh target is ignored. */
export function someRows(batch: number, seqLen: number, vocabSize: number): Rows {
  const at = (i: number): number => (7 * i * i + 13 * i + 5) % vocabSize;
  const index = Array.from({ length: batch * seqLen }, (_, i) => i);
  return {
    tokens: index.map(at),
    targets: index.map((i) => i % 7 === 3 ? -100 : at(i + 1)),
    positions: index.map((i) => i % seqLen),
  };
}

/** Logits `[B,T,V]` of rows, flat. */
export function logitsOf(model: Llama, memory: Memory, rows: Omit<Rows, "targets">, batch = 1): Float64Array {
  const seqLen = rows.tokens.length / batch;
  const graph = traceGraph("logits", [], (builder) => {
    const input = (name: string): Tensor => new Tensor(builder, builder.input(name, i32(batch, seqLen)));
    const { tokens, positions } = { tokens: input("tokens"), positions: input("positions") };
    const documents = rows.documents ? input("documents") : undefined;
    return { logits: bind(model, { builder, dtype: "f64" }, () => model.forward({ tokens, positions, documents })) };
  });
  const inputs = Object.fromEntries(Object.entries(rows).map(([name, data]) => [name, arr([batch, seqLen], data)]));
  return interpret(verify(graph), { inputs, memory }).logits.data;
}
