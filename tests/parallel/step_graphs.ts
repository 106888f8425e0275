/** The graphs of a step of a small model, as pass `partition` gets them.
 * @module */
import { type Graph, inBackward } from "../../graph/ir.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { verify } from "../../graph/verify.ts";
import type { LlamaOptions } from "../../model/llama.ts";
import type { TrainableModel } from "../../model/loss.ts";
import { AXES, Mesh, type MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import { BoundPlan, planOf, type PlanOptions } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { reduceSums, sumsGradients } from "../../parallel/reduce_sums.ts";
import { passes, type PassOptions, type Ranks } from "../../train/compile.ts";
import { traceInitialize, traceUpdate } from "../../train/optimizer.ts";
import { type BatchShape, traceEvaluate, traceEvaluateResult, traceMicrobatch } from "../../train/step.ts";
import { tinyLlama } from "../model/tiny.ts";
import { isRemade } from "../graph/origins.ts";

/** Graphs by name. */
export type StepGraphs = Readonly<
  Record<"initialize" | "microbatch" | "update" | "evaluate" | "evaluate_result", Graph>
>;

/** All graphs of a step; sizes are those of the whole batch. */
export function stepGraphs(model: TrainableModel, shape: BatchShape): StepGraphs {
  const { dtype, batch, seqLen } = shape, globalTokens = batch * seqLen;
  const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
  const graphs = [
    traceInitialize(model, dtype),
    traceMicrobatch(model, { ...shape, globalTokens }),
    traceUpdate(model, { ...optimizer, dtype, globalTokens }),
    traceEvaluate(model, shape),
    traceEvaluateResult(dtype),
  ].map(simplify);
  return Object.fromEntries(graphs.map((g) => [g.name, g])) as StepGraphs;
}

/** Number of collectives over an axis in some modules: `all_gather` in forward, `all_gather'` in backward,
 * `all_gather again` where backward makes again what forward made. */
export function collectivesOf(graph: Graph, axis: string, modules: RegExp): Record<string, number> {
  const found: Record<string, number> = {};
  for (const node of graph.nodes.filter((n) => modules.test(n.scope))) {
    if (!(node.attrs.axes as string[] | undefined)?.includes(axis) || node.outputs[0].dtype === "i32") continue;
    const name = `${node.op}${isRemade(node) ? " again" : inBackward(node) ? "'" : ""}`;
    found[name] = (found[name] ?? 0) + 1;
  }
  return found;
}

/** A graph of a step of a small Llama on a mesh, by all passes up to one. */
export function meshGraph(
  name: keyof StepGraphs,
  axes: MeshOptions,
  upTo: string,
  options: Omit<PassOptions, "ranks"> & Pick<Ranks, "keepGathered" | "prefetch"> & {
    readonly model?: LlamaOptions;
    readonly dtype?: "f32" | "f64";
  } = {},
): { readonly graph: Graph; readonly mesh: Mesh } {
  const { model, dtype = "f32", keepGathered, prefetch, ...others } = options;
  const llama = tinyLlama(model), mesh = meshOf(axes), graphs = stepGraphs(llama, { batch: 4, seqLen: 8, dtype });
  const layouts = boundPlan(llama, mesh, graphs);
  const ranks: Ranks = {
    partition: (g) => partition(g, mesh, sumsGradients(g) ? layouts : layouts.reduced),
    reduceSums: (g) => reduceSums(g, mesh, (state) => layouts.state(layouts.states.get(state.name)!)),
    graphOfRank: (g) => graphOfRank(g, mesh, 0),
    keepGathered,
    prefetch,
  };
  const list = passes({ ...others, ranks }), end = list.findIndex((p) => p.name === upTo);
  if (end < 0) throw new Error(`no pass "${upTo}"`);
  return { mesh, graph: list.slice(0, end + 1).reduce((g, pass) => verify(pass.run(g)), graphs[name]) };
}

/** A mesh of as many ranks as its degrees make. */
export function meshOf(options: MeshOptions): Mesh {
  const degrees = { dp_shard: 1, ...options };
  return new Mesh(degrees, AXES.reduce((n, axis) => n * (degrees[axis] ?? 1), 1));
}

/** The plan of a model, bound to a mesh and the graphs of its step. */
export function boundPlan(model: TrainableModel, mesh: Mesh, graphs: StepGraphs, options: PlanOptions = {}): BoundPlan {
  return new BoundPlan(planOf(model.plan!, options), mesh, Object.values(graphs));
}
