/** Graphs that several passes are tested on.
 * @module */
import { f64, i32 } from "../../../graph/builder.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { fullPrecision, type Precision } from "../../../graph/passes/precision.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { llamaConfig, TransformerBlock } from "../../../model/llama.ts";
import { bind, namedParameters } from "../../../model/module.ts";
import { Random, randomGraph } from "../random_graphs.ts";
import { at } from "../origins.ts";
import { precision } from "./on_cpu.ts";

/** Every way to use bf16, one by one and together. */
export const precisions: readonly Precision[] = [
  { ...fullPrecision, param: "bf16" },
  { ...fullPrecision, param: "bf16", reduce: "bf16" },
  { ...fullPrecision, stored: "bf16" },
  { param: "bf16", reduce: "bf16", stored: "bf16" },
];

/** A random graph with its gradient in one of the {@linkcode precisions}. */
export function randomMixed(seed: number): Graph {
  const graph = randomGraph(seed, { dtype: "f32" });
  const states = graph.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  return precision(autodiff(graph, { of: "loss", states }), precisions[seed % precisions.length]);
}

/** A random graph; every other one with its gradient, two of four simplified, one of five with bf16. */
export function randomStep(seed: number): Graph {
  if (seed % 5 === 0) return seed % 4 < 2 ? randomMixed(seed) : simplify(randomMixed(seed));
  const graph = randomGraph(seed);
  const states = graph.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  const step = seed % 2 === 0 ? graph : autodiff(graph, { of: "loss", states, inputs: seed % 3 === 0 ? ["x0"] : [] });
  return seed % 4 < 2 ? step : simplify(step);
}

/** Ops of a graph but for reads and constants, in order. */
export function opsOf(graph: Graph): string[] {
  return graph.nodes.map((n) => n.op).filter((op) => op !== "read" && op !== "constant");
}

/** How often each op occurs, by name: `{ add: 2, mul: 1 }`. */
export function countOps(graph: Graph): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const op of opsOf(graph)) counts[op] = (counts[op] ?? 0) + 1;
  return counts;
}

/** One small block of a Llama and the gradient of the sum of its result, simplified: 2 rows of 3 tokens. */
export function llamaBlock(dtype: "f32" | "f64" = "f64"): Graph {
  const config = llamaConfig("debug", { dim: 8, numLayers: 1, numHeads: 2, numKvHeads: 1, ffnHiddenDim: 12 });
  const block = new TransformerBlock(config, 0);
  const forward = traceGraph("block", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", { dtype, shape: [2, 3, 8] }));
    const positions = new Tensor(builder, builder.input("positions", i32(2, 3)));
    const angles = { size: 4, dtype, theta: 100, factor: 1, low: 1, high: 4, original: 64 };
    const [table] = positions.apply("rope_table", [], angles);
    return {
      loss: bind(block, { builder, dtype }, () => block.forward(x, { positions, table }).square().sum()),
    };
  });
  const states = [...namedParameters(block).keys()];
  return simplify(autodiff(forward, { of: "loss", states, inputs: ["x"], keep: false }));
}

/** Sizes of a head: batch, sequence, width, vocabulary. */
export interface HeadSizes {
  readonly B: number;
  readonly T: number;
  readonly D: number;
  readonly V: number;
}

/** Head and cross-entropy over an input h `[B,T,D]`; `between` is work on the logits before the loss. */
export function headGraph({ B, T, D, V }: HeadSizes, between: (logits: Tensor) => Tensor = (x) => x): Graph {
  const sum = (name: string): State => ({ name, kind: "sum", ...f64() });
  const states: State[] = [
    { name: "output.weight", kind: "parameter", ...f64(V, D) },
    sum("loss_sum"),
    sum("token_count"),
  ];
  return traceGraph("microbatch", states, (builder) => {
    const h = new Tensor(builder, builder.input("h", f64(B, T, D), ["batch", "sequence", "features"]));
    const targets = new Tensor(builder, builder.input("targets", i32(B, T), ["batch", "sequence"]));
    builder.origin = at("output");
    const logits = h.contract("b t d, v d -> b t v", new Tensor(builder, builder.read("output.weight")));
    builder.activations.push({ name: "output", value: logits.value });
    builder.origin = at("loss");
    const [loss, count] = between(logits).apply("cross_entropy", [targets], { ignore_index: -1 });
    builder.accumulate("loss_sum", loss.value);
    builder.accumulate("token_count", count.value);
    return { loss };
  });
}

/** A head with its gradients. */
export const headGradients = (graph: Graph): Graph =>
  autodiff(graph, { of: "loss", seed: 0.125, states: ["output.weight"], inputs: ["h"], keep: false });

/** The sum of what `body` makes of x and the weights, and all gradients. */
export function layers(shapes: Record<string, number[]>, body: (x: Tensor, w: Tensor[]) => Tensor): Graph {
  const states = Object.entries(shapes).map(([name, shape]): State => ({ name, kind: "parameter", ...f64(...shape) }));
  const forward = traceGraph("g", states, (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3, 4)));
    return { loss: body(x, states.map((s) => new Tensor(builder, builder.read(s.name)))).sum() };
  });
  return simplify(autodiff(forward, { of: "loss", states: states.map((s) => s.name), inputs: ["x"] }));
}

/** Layers over one x or results of them, with random sizes, uses and mixes; weights have multiples of some rows. */
export function randomLayers(seed: number, rows = 1): Graph {
  const random = new Random(seed), count = random.int(2, 5), D = random.int(1, 3);
  const shapes = Object.fromEntries(Array.from({ length: count }, (_, i) => [`w${i}`, [rows * random.int(1, 3), 4]]));
  const dims = random.pick(["b t i, o i -> b t o", "b t i, o i -> o b t", "b t i, o i -> b o t"]);
  return layers(shapes, (x, weights) => {
    const tensors = [x, x.tanh()];
    let sum = random.oneIn(2) ? x.exp().sum() : x.constant(0);
    for (const w of weights) {
      const from = random.pick(tensors), y = from.contract(random.oneIn(5) ? "b t i, o i -> b t o" : dims, w);
      const part = random.pick([y.square(), y.tanh(), y.neg(), y.exp().mul(y)]).sum();
      sum = random.oneIn(2) ? sum.add(part) : part.tanh().mul(D).add(sum);
      if (random.oneIn(3)) tensors.push(from.mul(y.sum()).tanh());
    }
    return sum;
  });
}
