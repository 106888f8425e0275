import { assert, assertEquals } from "@std/assert";
import { fullPrecision } from "../../../graph/passes/precision.ts";
import { compileGraphs } from "../../../train/compile.ts";
import { generationGraphs, generationName, quickest, tokenCounts } from "../../../train/generate/graphs.ts";
import { touchedStates } from "../../../graph/edit.ts";
import { verify } from "../../../graph/verify.ts";
import { parameterStates } from "../../../model/module.ts";
import { cutStages } from "../../../parallel/pipeline/cut_stages.ts";
import { stagesOf } from "../../../parallel/pipeline/stages.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { randomLlama } from "./weights.ts";

Deno.test("there is no graph for more tokens than there is room for, but always one for a single token", () => {
  assertEquals([1, 31, 32, 1000].map(tokenCounts), [[1], [1], [1, 32], [1, 32, 128]]);
  const { model } = randomLlama(), shape = { sequences: 2, maxLength: 40, dtype: "f64" } as const;
  assertEquals(generationGraphs(model, shape).map((g) => g.name), ["decode", "prefill_32"]);
  assertEquals(tokenCounts(40).map(generationName), ["decode", "prefill_32"]);
});

Deno.test("a prompt is read in the pieces that take the least time, not in one that is mostly empty", () => {
  const all = [1, 32, 128],
    pieces = (left: number, sequences: number): number[] => {
      const count = left > 0 ? [quickest(all, left, sequences)] : [];
      return [...count, ...count.flatMap((n) => pieces(left - n, sequences))];
    };
  assertEquals(pieces(1, 1), [1]);
  assertEquals(pieces(8, 1), [32]);
  assertEquals(pieces(300, 1), [128, 128, 32, 32]);
  assertEquals(pieces(129, 1), [128, 1]);
  assertEquals(pieces(2, 64), [1, 1], "of many sequences at once an empty place costs as much as a token");
});

for (const dtype of ["f32", "bf16"] as const) {
  Deno.test(`rows of new tokens are written into the cache where they belong, and nothing copies it: ${dtype}`, () => {
    const { model } = randomLlama(), shape = { sequences: 2, maxLength: 300, dtype: "f32", cache: dtype } as const;
    const precision = dtype === "bf16" ? { ...fullPrecision, param: dtype, stored: dtype } as const : fullPrecision;
    const { plan } = compileGraphs(generationGraphs(model, shape), { threads: 1, precision });
    for (const { graph, inPlaceAssigns } of plan.sections) {
      const assigns = graph.nodes.filter((n) => n.op === "assign");
      assertEquals(assigns.length, 4, "keys and values of two layers");
      assert(assigns.every((n) => inPlaceAssigns.has(n)), `${graph.name} copies a cache`);
    }
    assertEquals(plan.categories.cache, 4 * 2 * 300 * 8 * { f32: 4, bf16: 2 }[dtype]);
    const whole = 2 * 300 * 8,
      copies = plan.sections.flatMap(({ graph }) => graph.nodes)
        .filter((n) => ["copy", "cast"].includes(n.op) && n.outputs[0].shape.reduce((a, b) => a * b, 1) >= whole);
    assertEquals(copies.map((n) => n.op), []);
  });
}

for (const [count, tiedEmbeddings] of [[2, true], [3, false], [5, false]] as const) {
  Deno.test(`each of ${count} stages reads the parameters that it trains, keeps what its blocks see, and the last one has the logits`, () => {
    const { model } = randomLlama({ numLayers: 4, tiedEmbeddings });
    const stages = stagesOf(parameterStates(model, "f64"), { count });
    const shape = { batch: 2, seqLen: 8, dtype: "f64", globalTokens: 16, stages } as const;
    const trained = cutStages(traceMicrobatch(model, shape), count).graphs;
    for (const graph of generationGraphs(model, { sequences: 2, maxLength: 40, dtype: "f64", stages })) {
      const { graphs, results, down } = cutStages(graph, count);
      graphs.forEach((stage, i) => {
        const of = (kind: string, g: typeof stage) => g.states.filter((s) => s.kind === kind).map((s) => s.name).sort();
        assertEquals(of("parameter", verify(stage)), of("parameter", trained[i]));
        const blocks = [...new Set(stage.nodes.flatMap((n) => n.block ?? []))];
        assertEquals(
          of("cache", stage),
          blocks.flatMap((b) => [`cache/${b}.attention.keys`, `cache/${b}.attention.values`]),
        );
        assertEquals([stage.outputs.length, down[i]?.sent.length ?? 0], [0, 0]);
        const gives = stage.nodes.some((n) => touchedStates(n).includes(results[0].state.name));
        assertEquals(gives, i === count - 1);
      });
      assertEquals(results.map(({ name, state }) => [name, state.shape]), [["logits", [2, 48]]]);
    }
  });
}
