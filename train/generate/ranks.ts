/** How the graphs of text generation are shared out among the ranks of a mesh: `tp` cuts weights and caches by heads and features; every
 * rank reads all tokens and gets all logits.
 * @module */
import type { Graph } from "../../graph/ir.ts";
import type { GenerativeModel } from "../../model/cache.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import { BoundPlan, dataPlan, planOf } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import type { BoundRanks } from "../ranks.ts";

/** Binds a mesh to a model and its graphs of generation.
 * @throws {LayoutError} when the model cannot be cut as the mesh asks. */
export function bindGeneration(
  model: GenerativeModel,
  graphs: readonly Graph[],
  { mesh, rank }: { readonly mesh: Mesh; readonly rank: number },
): BoundRanks {
  const layouts = new BoundPlan(model.plan ? planOf(model.plan) : dataPlan, mesh, graphs);
  return {
    layouts,
    partition: (graph) => partition(graph, mesh, layouts.undivided),
    graphOfRank: (graph) => graphOfRank(graph, mesh, rank),
  };
}
