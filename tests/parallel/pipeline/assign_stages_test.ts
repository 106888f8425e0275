import { assert, assertEquals, assertThrows } from "@std/assert";
import { interpret } from "../../../graph/interpret.ts";
import { LayoutError } from "../../../graph/layout.ts";
import { touchedStates } from "../../../graph/edit.ts";
import { stateUse } from "../../../graph/facts.ts";
import { parameterStates } from "../../../model/module.ts";
import { stagesOf } from "../../../parallel/pipeline/stages.ts";
import { generationGraphs } from "../../../train/generate/graphs.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { initialized, someRows, tinyLlama } from "../../model/tiny.ts";
import { inStages, SIZES } from "./stage_runs.ts";

/** The stages of the nodes that come from a module, by its path. */
const stagesAt = (
  scope: string,
  options: Parameters<typeof inStages>[1],
  model = tinyLlama({ numLayers: 4 }),
): number[] => {
  const { graph } = inStages(model, options);
  return [...new Set(graph.nodes.filter((n) => n.scope === scope).map((n) => n.stage!))].sort();
};

Deno.test("a node is on the stage of its block, what comes before on the first, and what comes behind on the last, in backward too", () => {
  assertEquals([0, 1, 2, 3].map((i) => stagesAt(`layers.${i}.attention.wq`, { count: 2 })), [[0], [0], [1], [1]]);
  assertEquals(["tok_embeddings", "norm", "output", "cross_entropy"].map((path) => stagesAt(path, { count: 2 })), [
    [0],
    [1],
    [1],
    [1],
  ]);
  const { graph } = inStages(tinyLlama({ numLayers: 4 }), { count: 2 });
  assert(graph.nodes.every((n) => n.stage !== undefined || n.inputs.length === 0), "only constants are anywhere");
});

Deno.test("what needs nothing from before is made by each stage that uses it", () => {
  const { graph } = inStages(tinyLlama({ numLayers: 4 }), { count: 2 });
  const tables = graph.nodes.filter((n) => n.scope === "rotary_embedding" && n.phase === "forward");
  assertEquals(tables.map((n) => n.stage), [0, 1]);
});

Deno.test("stages without a block have the embedding, or the head", () => {
  assertEquals([stagesAt("tok_embeddings", { count: 6 }), stagesAt("layers.0.attention.wq", { count: 6 })], [[0], [1]]);
  assertEquals([stagesAt("layers.3.attention.wq", { count: 6 }), stagesAt("norm", { count: 6 })], [[4], [5]]);
});

Deno.test("the stages of text that is read are those of training, though what its inputs count is not said", () => {
  const model = tinyLlama({ numLayers: 4 }), stages = stagesOf(parameterStates(model, "f64"), { count: 6 });
  const [graph] = generationGraphs(model, { sequences: 2, maxLength: 8, dtype: "f64", stages });
  const stagesOfModule = (
    path: string,
  ) => [...new Set(graph.nodes.filter((n) => n.scope === path).map((n) => n.stage))];
  const modules = ["tok_embeddings", "layers.0.attention.wq", "layers.3.attention.wq", "output"];
  assertEquals(modules.map(stagesOfModule), [[0], [1], [4], [5]]);
});

Deno.test("a list of modules puts the norm where it says", () => {
  const modules = [["tok_embeddings", "layers.0", "layers.1", "layers.2"], ["layers.3", "norm"], ["output"]];
  assertEquals(["layers.3.ffn_norm", "norm", "output"].map((path) => stagesAt(path, { count: 3, modules })), [
    [1],
    [1],
    [2],
  ]);
});

Deno.test("a parameter of two stages is read on both, and its gradient is summed on both", () => {
  const { graph } = inStages(tinyLlama({ numLayers: 2, tiedEmbeddings: true }), { count: 2 });
  const touching = (name: string) => graph.nodes.filter((n) => touchedStates(n).includes(name));
  assertEquals(new Set(touching("tok_embeddings.weight").map((n) => n.stage)), new Set([0, 1]));
  const sums = touching("gradient/tok_embeddings.weight").filter((n) => stateUse(n) === "adds");
  assertEquals(sums.map((n) => n.stage), [1, 0]);
});

Deno.test("the graph means the same", () => {
  const model = tinyLlama({ numLayers: 3, tiedEmbeddings: true }), rows = someRows(2, 8, 32);
  const run = (stages?: ReturnType<typeof stagesOf>) => {
    const memory = initialized(model);
    interpret(traceMicrobatch(model, { ...SIZES, stages }), { inputs: rows, memory });
    return memory;
  };
  const [alone, staged] = [run(), run(stagesOf(parameterStates(model, "f64"), { count: 3 }))];
  for (const [name, value] of alone) assertEquals(staged.get(name), value, name);
});

Deno.test("blocks that do not run in the order of their stages are refused", () => {
  const model = tinyLlama({ numLayers: 2 }), parameters = parameterStates(model, "f64");
  const modules = [["tok_embeddings", "layers.1"], ["layers.0", "norm", "output"]];
  assertThrows(
    () => traceMicrobatch(model, { ...SIZES, stages: stagesOf(parameters, { count: 2, modules }) }),
    LayoutError,
    "is on stage 0 and reads what stage 1 makes; expected blocks on stages in the order in which they run",
  );
});
