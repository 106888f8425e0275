/** How the graphs of a step are shared out among the ranks of a mesh.
 * @module */
import type { Graph, State } from "../graph/ir.ts";
import { LayoutError } from "../graph/layout.ts";
import type { ModelPlan } from "../graph/roles.ts";
import { scopeText } from "../graph/print.ts";
import type { Module } from "../model/module.ts";
import type { LoadBalancer } from "../parallel/balance.ts";
import { inOrderOf } from "../parallel/dim_roles.ts";
import { BATCH_AXES, DEGREE_KEYS, type Mesh } from "../parallel/mesh.ts";
import { partition } from "../parallel/partition.ts";
import { BoundPlan, dataPlan, planOf, type PlanOptions } from "../parallel/plan.ts";
import { graphOfRank } from "../parallel/rank_graph.ts";
import { reduceSums, sumsGradients } from "../parallel/reduce_sums.ts";
import type { Ranks } from "./compile.ts";
import type { PipelineChoices } from "./pipeline.ts";

/** Choices that a mesh leaves open. */
export interface MeshChoices extends PlanOptions {
  /** What tensor and expert parallelism may cut; default: what the model says. */
  readonly plan?: ModelPlan;
  /** Which tokens of a sequence the ranks of `cp` work on; default `headtail`, which changes their order: a model that goes by their
   * order, instead of by positions, needs `null`. */
  readonly balancer?: LoadBalancer;
  /** How keys and values get to the ranks of `cp`: all at once, or around a ring, slice by slice; default `allgather`. */
  readonly rotateMethod?: "allgather" | "alltoall";
  /** Do the exchanges of `tp` go on beside the products that they belong to? Needs sequence parallelism; default false. */
  readonly asyncTensorParallel?: boolean;
  /** Are parameters gathered again for backward, rather than kept since forward, and from one microbatch of a step to the next? Default: they
   * are, but not in the stages of a pipeline. */
  readonly reshard?: boolean;
  /** How many units ahead parameters are gathered; default 1. */
  readonly prefetch?: number;
  /** The stages of `pp`, and the order in which ranks work on them; default: 1F1B, with a stage on each rank. */
  readonly pipeline?: PipelineChoices;
}

/** A mesh, and how a model is spread over it. */
export interface MeshLayout extends MeshChoices {
  /** Its axes and ranks. */
  readonly mesh: Mesh;
  /** The rank that is compiled for. */
  readonly rank: number;
}

/** What the passes ask, and the layouts that it comes from. */
export interface BoundRanks extends Ranks {
  readonly layouts: BoundPlan;
}

/** Binds a mesh to a model and the graphs of its step, or of text generation.
 * @param microbatches of a step.
 * @throws {LayoutError} when the model cannot be cut as the mesh asks. */
export function bindRanks(
  model: Module & { readonly plan?: ModelPlan },
  graphs: readonly Graph[],
  layout: MeshLayout,
  microbatches = 1,
): BoundRanks {
  const { mesh, rank, reshard = mesh.degrees.pp === 1, prefetch } = layout;
  const roles = layout.plan ?? model.plan;
  if (!roles && mesh.degrees.tp > 1) {
    throw new LayoutError(
      `Cannot cut ${model.constructor.name} over tp, ${mesh.degrees.tp} ranks: expected a plan that names the parameters to ` +
        `cut; give the model a property plan, or leave tp at 1`,
    );
  }
  if (mesh.degrees.ep > 1 && !roles?.parameters.some(({ role }) => role === "expert")) {
    throw new LayoutError(
      `Cannot share out the experts of ${model.constructor.name} over ep, ${mesh.degrees.ep} ranks: expected a plan that ` +
        `names parameters of the role expert; name them in the model's property plan, or leave ${DEGREE_KEYS.ep} at 1`,
    );
  }
  if (layout.asyncTensorParallel && layout.sequenceParallel === false) {
    throw new LayoutError(
      "Cannot hide the exchanges of tp without sequence parallelism: expected rows that are gathered and scattered; leave " +
        "sequenceParallel at true, or asyncTensorParallel at false",
    );
  }
  const ordered = mesh.degrees.cp > 1 && layout.balancer !== null && graphs.flatMap((g) => inOrderOf("sequence", g))[0];
  if (ordered) {
    throw new LayoutError(
      `Cannot share out sequences over cp, ${mesh.degrees.cp} ranks, in an order that balances attention, since ` +
        `"${ordered.op}" of ${
          scopeText(ordered) || model.constructor.name
        } goes by the order of tokens: expected work that ` +
        `goes by positions; set context_parallel_load_balancer to None (balancer: null), or leave ${DEGREE_KEYS.cp} at 1`,
    );
  }
  /** A sum of gradients before it was cut: it has the shape of its parameter. */
  const whole = (state: State): State => ({ ...state, shape: layouts.states.get(state.of!)!.shape });
  const layouts: BoundPlan = new BoundPlan(roles ? planOf(roles, layout) : dataPlan, mesh, graphs);
  return {
    layouts,
    // What is added up in microbatches is whole, or in shards, when it is read.
    partition: (graph) => partition(graph, mesh, sumsGradients(graph) ? layouts : layouts.reduced),
    reduceSums: (graph) => reduceSums(graph, mesh, (state) => layouts.state(whole(state))),
    graphOfRank: (graph) => graphOfRank(graph, mesh, rank),
    ringAttention: layout.rotateMethod === "alltoall",
    asyncAxis: layout.asyncTensorParallel ? "tp" : undefined,
    keepGathered: reshard ? "forward" : microbatches === 1 ? "microbatch" : "step",
    prefetch,
  };
}

/** Number of ranks that share out a batch, and which of them a rank is. */
export function dataRankOf(mesh: Mesh, rank: number): { readonly dataRank: number; readonly dataRanks: number } {
  return BATCH_AXES.reduce(({ dataRank, dataRanks }, axis) => ({
    dataRank: dataRank * mesh.degrees[axis] + mesh.placeOn(axis, rank),
    dataRanks: dataRanks * mesh.degrees[axis],
  }), { dataRank: 0, dataRanks: 1 });
}
