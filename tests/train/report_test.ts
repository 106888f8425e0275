import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { opOf } from "../../graph/builder.ts";
import { flopsOf } from "../../graph/op.ts";
import type { Block, MemoryPlan } from "../../graph/passes/memory.ts";
import type { Batch, LossSum } from "../../model/loss.ts";
import { Module, numParameters, parameter } from "../../model/module.ts";
import { bytesText, deviceText, graphFlops, memoryText, modelText, planText, slowPaths } from "../../train/report.ts";
import { compileStep } from "../../train/step_program.ts";
import { tinyLlama } from "../model/tiny.ts";

const model = tinyLlama();
const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const compiled = compileStep({ model, optimizer, dtype: "f32", batch: 2, seqLen: 16, accumulation: 3, threads: 2 });

Deno.test("bytes have the unit that suits them", () => {
  const texts = [0, 1, 1023, 1024, 1536, 1024 ** 2, 5.25 * 1024 ** 3, 3 * 1024 ** 4, 2048 * 1024 ** 4].map(bytesText);
  assertEquals(texts, ["0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.3 GiB", "3.0 TiB", "2048.0 TiB"]);
});

Deno.test("a device tells its level, and announces slower paths: a forced level, no BLAS", () => {
  const device = {
    threads: 2,
    vectorBits: 512,
    level: "avx512",
    levelIsForced: false,
    memoryBytes: 1,
    processor: "A CPU",
    blas: "A BLAS 1.2",
    blasIsBuiltin: false,
  };
  assertEquals(
    deviceText(device, 99.6),
    "A CPU, 2 threads, level avx512 (512-bit vectors), A BLAS 1.2, 100 GFLOP/s in a product of 1024^3 (f32)",
  );
  assertStringIncludes(
    deviceText({ ...device, level: "avx2", levelIsForced: true, vectorBits: 256 }, 9),
    "level avx2, forced by TITAN_CPU (256-bit vectors)",
  );
  const slow = deviceText({ ...device, blasIsBuiltin: true }, 9);
  assertStringIncludes(
    slow,
    "the built-in matrix product (no BLAS was found when libtitan was built: slower), 9 GFLOP/s",
  );
});

Deno.test("a model is told in parameters, tokens and FLOPs, as far as it knows them", () => {
  const mflop = (model.flopsPerToken(16) / 1e6).toFixed(1);
  assertEquals(numParameters(model), 4944);
  assertEquals(modelText(model, 12345, 16), `4,944 parameters, 12,345 tokens per step, ${mflop} MFLOP per token`);
  class Own extends Module {
    readonly weight = parameter([7], { kind: "constant", value: 0 });
    loss(): never {
      throw new Error("not asked for here");
    }
  }
  assertEquals(modelText(new Own(), 3, 16), "7 parameters, 3 tokens per step");
});

Deno.test("a graph's FLOPs are those of its nodes", () => {
  const graph = compiled.graphs.find((g) => g.name === "microbatch")!;
  const products = graph.nodes.filter((n) => n.op === "contract").map((n) => flopsOf(opOf(n.op), n));
  assert(products.length > 20 && graphFlops(graph) > products.reduce((a, b) => a + b));
  assertEquals(
    graphFlops({ ...graph, nodes: graph.nodes.filter((n) => n.op === "contract") }),
    products.reduce((a, b) => a + b),
  );
});

Deno.test("memory is told at the moment when most is alive, and its parts add up to the arena", () => {
  const block = (label: string, bytes: number, first: number, last: number, kept: boolean): Block => ({
    ...{ label, bytes, first, last, kept },
    offset: 0,
  });
  const blocks = [
    block("a", 100, 0, 5, true),
    block("b", 50, 1, 2, false),
    block("c", 80, 3, 4, false),
    block("d", 60, 5, 9, true),
  ];
  const section = { ...compiled.plan.sections[0], graph: { ...compiled.graphs[0], name: "microbatch" }, blocks };
  const plan: MemoryPlan = {
    ...compiled.plan,
    sections: [{ ...section, graph: { ...section.graph, name: "update" }, blocks: [] }, section],
    categories: { parameter: 1, gradient: 2, moment: 3, sum: 4, transient: 200 },
    arenaBytes: 210,
  };
  assertEquals(memoryText(plan).split("\n").slice(1).map((line) => line.trim().replace(/ {2,}/, ": ")), [
    "parameters: 1 B",
    "gradient sums: 2 B",
    "moments: 3 B",
    "sums of loss and tokens: 4 B",
    "kept for backward, at the peak: 100 B",
    "transient, at the peak: 80 B",
    "gaps: 20 B",
    "arena: 210 B = 210 B",
    "Largest values of a microbatch",
    "a: 100 B",
    "c: 80 B",
    "d: 60 B",
    "b: 50 B",
  ]);
});

Deno.test("the plan of a step has its sections, its memory and its program", () => {
  const text = planText(model, compiled, 96, 16);
  assertStringIncludes(text, modelText(model, 96, 16));
  assertStringIncludes(text, memoryText(compiled.plan));
  for (const { name, instructions } of compiled.program.sections) {
    assertMatch(text, new RegExp(`\\n {2}${name} +${instructions.length} instructions, +\\d+\\.\\d+ GFLOP\\n`));
  }
  const { parameter, gradient, moment } = compiled.plan.categories, bytes = 4 * numParameters(model);
  assert(parameter >= bytes && gradient >= bytes && moment >= 2 * bytes);
  assertStringIncludes(text, `${compiled.program.bytes.length.toLocaleString("en-US")} B for 2 threads`);
});

Deno.test("a step that takes a slower path says which, and the usual one has nothing to say", () => {
  assertEquals(slowPaths(compiled), []);
  class Pooled extends Module {
    readonly table = parameter([8, 4], { kind: "normal", std: 1 });
    loss({ tokens, targets }: Batch): LossSum {
      const x_BTD = tokens.apply("embedding", [this.table()])[0];
      // Each row's logits also see the mean over all rows: no chunk has all that it needs.
      const logits_BTV = x_BTD.matmul(this.table().transpose(0, 1));
      const mixed = logits_BTV.add(logits_BTV.mean([0, 1]));
      const [lossSum, count] = mixed.apply("cross_entropy", [targets], { ignore_index: -100 });
      return { lossSum, count };
    }
  }
  const pooled = { model: new Pooled(), optimizer, dtype: "f32", accumulation: 1, threads: 1 } as const;
  const [line] = slowPaths(compileStep({ ...pooled, batch: 2, seqLen: 300 }));
  assertStringIncludes(line, "microbatch holds all logits");
  assertEquals(slowPaths(compileStep({ ...pooled, batch: 2, seqLen: 30 })), []);
});
