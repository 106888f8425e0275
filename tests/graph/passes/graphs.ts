/** Graphs that several passes are tested on.
 * @module */
import { f64, i32 } from "../../../graph/builder.ts";
import type { Graph } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { llamaConfig, TransformerBlock } from "../../../model/llama.ts";
import { bind, namedParameters } from "../../../model/module.ts";
import { randomGraph } from "../random_graphs.ts";

/** A random graph; every other one with its gradient, and two of four simplified. */
export function randomStep(seed: number): Graph {
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
export function llamaBlock(): Graph {
  const config = llamaConfig("debug", { dim: 8, numLayers: 1, numHeads: 2, numKvHeads: 1, ffnHiddenDim: 12 });
  const block = new TransformerBlock(config, 0);
  const forward = traceGraph("block", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 3, 8)));
    const positions = new Tensor(builder, builder.input("positions", i32(2, 3)));
    const angles = { size: 4, dtype: "f64", theta: 100, factor: 1, low: 1, high: 4, original: 64 };
    const [table] = positions.apply("rope_table", [], angles);
    return {
      loss: bind(block, { builder, dtype: "f64" }, () => block.forward(x, { positions, table }).square().sum()),
    };
  });
  const states = [...namedParameters(block).keys()];
  return simplify(autodiff(forward, { of: "loss", states, inputs: ["x"], keep: false }));
}
