import { assertEquals, assertThrows } from "@std/assert";
import { LayoutError } from "../../../graph/layout.ts";
import { parameterStates } from "../../../model/module.ts";
import { blocksPerStage, modulesText, stageCount, stagesOf } from "../../../parallel/pipeline/stages.ts";
import { tinyLlama } from "../../model/tiny.ts";

const parameters = parameterStates(tinyLlama({ numLayers: 4 }), "f32");

Deno.test("blocks are shared out so that embedding and head count as one each, as torchtitan does", () => {
  const table: [number, number, number[]][] = [
    [6, 2, [3, 3]],
    [6, 4, [1, 2, 2, 1]],
    [6, 8, [0, 1, 1, 1, 1, 1, 1, 0]],
    [32, 4, [8, 9, 8, 7]],
    [32, 8, [4, 5, 4, 4, 4, 4, 4, 3]],
    [80, 4, [20, 21, 20, 19]],
    [126, 8, [15, 16, 16, 16, 16, 16, 16, 15]],
    [126, 16, [7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7]],
  ];
  for (const [blocks, count, expected] of table) assertEquals(blocksPerStage(blocks, { count }), expected);
  assertEquals(blocksPerStage(5, { count: 1 }), [5]);
  assertEquals(blocksPerStage(8, { count: 2, firstLess: 0, lastLess: 2 }), [5, 3]);
});

Deno.test("more stages than there are blocks for are refused, with the keys that decide it", () => {
  assertThrows(() => blocksPerStage(2, { count: 5 }), LayoutError, "expected at most 4, as many as there are blocks");
  assertThrows(
    () => blocksPerStage(4, { count: 3, firstLess: 3 }),
    LayoutError,
    "a stage has 2, and parallelism.pipeline_parallel_first_stage_less_layers is 3; expected at most 2",
  );
});

Deno.test("a list of modules decides which stage has what, and each module is in one", () => {
  const modules = [["tok_embeddings", "layers.0"], ["layers.1", "layers.2", "layers.3", "norm", "output"]];
  const stages = stagesOf(parameters, { count: 2, modules });
  assertEquals([stages.count, stages.ofBlock("layers.0"), stages.ofBlock("layers.3")], [2, 0, 1]);
  assertEquals(
    ["tok_embeddings.weight", "output.weight", "layers.1.attention.wq.weight"].map((n) => stages.ofParameter(n)),
    [
      0,
      1,
      undefined, // its block says it
    ],
  );
  const refused = (modules: string[][], message: string) =>
    assertThrows(() => stagesOf(parameters, { count: 2, modules }), LayoutError, message);
  refused([["layers.0"], ["layers.1"]], `no stage has "layers.2"; expected every module in one`);
  refused([modules[0], [...modules[1], "layers.0"]], `"layers.0" is in stages 0 and 1; expected each module once`);
  refused([["embedding"], modules[1]], `there is no "embedding"; expected one of tok_embeddings, layers.0,`);
  refused([["layers.0"], modules[1]], `no stage has "tok_embeddings.weight"`);
});

Deno.test("there is a stage on each rank, or two where the schedule has several, or what blocks on each need", () => {
  const count = (options: Partial<Parameters<typeof stageCount>[0]>) =>
    stageCount({ ranks: 2, several: false, blocks: 6, ...options });
  assertEquals([count({}), count({ several: true }), count({ several: true, perStage: 2 })], [2, 4, 4]);
  assertEquals([count({ perStage: 4 }), count({ modules: 2 })], [2, 2]);
  assertThrows(() => count({ perStage: 3 }), LayoutError, "layers_per_stage 3 makes 3 stages: expected a multiple of");
  assertThrows(() => count({ perStage: 2 }), LayoutError, "makes 2 stages on each rank: expected one for the schedule");
  assertThrows(() => count({ several: true, modules: 2 }), LayoutError, "expected at least two for the schedule");
});

Deno.test("modules that are numbered one after another are told as one", () => {
  assertEquals(modulesText(["tok_embeddings", "layers.0", "layers.1", "layers.2"]), "tok_embeddings layers.0-2");
  assertEquals(
    modulesText(["layers.9", "layers.10", "layers.12", "norm", "output"]),
    "layers.9-10 layers.12 norm output",
  );
  assertEquals(modulesText(["encoder.0", "decoder.1"]), "encoder.0 decoder.1");
  assertEquals(modulesText([]), "");
});
