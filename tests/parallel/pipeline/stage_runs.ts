/** Models in stages, run in one process: what a pipeline does with a microbatch, one stage after another.
 * @module */
import { interpret, type Memory } from "../../../graph/interpret.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { verify } from "../../../graph/verify.ts";
import { parameterStates } from "../../../model/module.ts";
import { type Boundary, type CutGraph, cutStages, separateSums } from "../../../parallel/pipeline/cut_stages.ts";
import { cutTurn, type StageSections } from "../../../parallel/pipeline/cut_turn.ts";
import { type StageOptions, type Stages, stagesOf } from "../../../parallel/pipeline/stages.ts";
import type { TrainableModel } from "../../../model/loss.ts";
import { traceMicrobatch } from "../../../train/step.ts";

/** Sizes of a microbatch for the interpreter. */
export const SIZES = { batch: 2, seqLen: 8, dtype: "f64", globalTokens: 32 } as const;

/** The microbatch of a model in stages. */
export function inStages(
  model: TrainableModel,
  options: StageOptions & { readonly documents?: boolean },
): { readonly stages: Stages; readonly graph: Graph; readonly cut: CutGraph } {
  const stages = stagesOf(parameterStates(model, "f64"), options);
  const graph = verify(traceMicrobatch(model, { ...SIZES, documents: options.documents, stages }));
  return { stages, graph, cut: cutStages(graph, stages.count) };
}

/** The sections of all stages, as if one rank had them all. */
export function sectionsOf({ graphs }: CutGraph, halves: boolean, prepare = (graph: Graph) => graph): StageSections[] {
  return separateSums(graphs).map((graph) => cutTurn(verify(prepare(verify(graph))), { halves }));
}

/** Runs a microbatch through all stages, forward and back. */
export function runStages(
  sections: readonly StageSections[],
  { up, down }: CutGraph,
  options: { readonly inputs: Record<string, number[]>; readonly memory: Memory; readonly first: boolean },
): void {
  const { memory } = options, run = (graph: Graph | undefined) => graph && interpret(verify(graph), options);
  const handOver = ({ sent, received }: Boundary) =>
    sent.forEach(({ name }: State, i) => memory.set(received[i].name, memory.get(name)!));
  sections.forEach(({ forward }, stage) => {
    run(forward);
    if (stage < up.length) handOver(up[stage]);
  });
  for (let stage = sections.length - 1; stage >= 0; stage--) {
    const { backward, backward_input: input, backward_weight: weight } = sections[stage];
    [backward, input, weight].forEach(run);
    if (stage > 0) handOver(down[stage]!);
  }
}
