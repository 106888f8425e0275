import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { opOf } from "../../../graph/builder.ts";
import { flopsOf } from "../../../graph/op.ts";
import type { Allocation, MemoryPlan } from "../../../graph/passes/memory.ts";
import { numParameters } from "../../../model/module.ts";
import {
  bytesText,
  deviceFit,
  deviceFitText,
  graphFlops,
  memoryText,
  memoryUse,
  planText,
  smallPages,
} from "../../../train/report/plan_report.ts";
import { modelText } from "../../../train/report/header.ts";
import { compileStep } from "../../../train/step_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";

const model = tinyLlama();
const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const compiled = compileStep({ model, optimizer, dtype: "f32", batch: 2, seqLen: 16, accumulation: 3, threads: 2 });

Deno.test("bytes have the unit that suits them", () => {
  const texts = [0, 1, 1023, 1024, 1536, 1024 ** 2, 5.25 * 1024 ** 3, 3 * 1024 ** 4, 2048 * 1024 ** 4].map(bytesText);
  assertEquals(texts, ["0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.3 GiB", "3.0 TiB", "2048.0 TiB"]);
});

Deno.test("an arena in small pages is told, but for what is less than a tenth or two huge pages", () => {
  const MIB = 2 ** 20;
  assertEquals(smallPages({ arenaBytes: 100 * MIB, hugeBytes: 90 * MIB }), []);
  assertEquals(smallPages({ arenaBytes: 4 * MIB, hugeBytes: 0 }), []);
  const [line, ...more] = smallPages({ arenaBytes: 100 * MIB, hugeBytes: 88 * MIB });
  assertStringIncludes(line, "12.0 MiB of the arena's 100.0 MiB are in small pages");
  assertEquals(more, []);
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
  const allocation = (
    label: string,
    bytes: number,
    first: number,
    last: number,
    use: Allocation["use"],
  ): Allocation => ({
    ...{ label, bytes, first, last, use },
    offset: 0,
    held: last,
  });
  const allocations = [
    allocation("a", 100, 0, 5, "kept"),
    allocation("b", 50, 1, 2, "transient"),
    allocation("c", 80, 3, 4, "transient"),
    allocation("d", 60, 5, 9, "kept"),
    allocation("scratch of e", 7, 4, 4, "scratch"),
  ];
  const section = { ...compiled.plan.sections[0], graph: { ...compiled.graphs[0], name: "microbatch" }, allocations };
  const plan: MemoryPlan = {
    ...compiled.plan,
    sections: [{ ...section, graph: { ...section.graph, name: "update" }, allocations: [] }, section],
    categories: {
      parameter: 1,
      gradient: 2,
      moment: 3,
      sum: 4,
      buffer: 5,
      cache: 6,
      activation: 0,
      gathered: 0,
      transient: 200,
    },
    arenaBytes: 221,
  };
  assertEquals(memoryText(plan).split("\n").slice(1).map((line) => line.trim().replace(/ {2,}/, ": ")), [
    "parameters: 1 B",
    "gradient sums: 2 B",
    "moments: 3 B",
    "sums of loss and tokens: 4 B",
    "buffers: 5 B",
    "caches: 6 B",
    "kept for backward, at the peak: 100 B",
    "transient, at the peak: 80 B",
    "scratch of kernels, at the peak: 7 B",
    "gaps: 13 B",
    "arena: 221 B = 221 B",
    "Largest values of microbatch",
    "a, kept: 100 B",
    "c: 80 B",
    "d, kept: 60 B",
    "b: 50 B",
    "scratch of e: 7 B",
  ]);
});

Deno.test("what a collective still reads counts, unless what travels next lies there already", () => {
  const allocation = (offset: number, first: number, last: number, held: number): Allocation => ({
    ...{ label: "x", bytes: 10, offset, first, last, held },
    use: "transient",
  });
  const transient = (...allocations: Allocation[]) => {
    const section = { ...compiled.plan.sections[0], allocations };
    return memoryUse({ ...compiled.plan, sections: [section] }).use.transient;
  };
  assertEquals(transient(allocation(0, 0, 1, 3), allocation(10, 2, 4, 4)), 20);
  assertEquals(transient(allocation(0, 0, 1, 3), allocation(0, 2, 4, 4)), 10);
  assertEquals(transient(allocation(0, 0, 1, 1), allocation(10, 2, 4, 4)), 10);
});

Deno.test("where another section needs most of the shared region, the table is about that one", () => {
  const at = (name: string, bytes: number) => ({
    ...compiled.plan.sections[0],
    graph: { ...compiled.graphs[0], name },
    allocations: [{ label: `of ${name}`, bytes, offset: 0, first: 0, last: 0, held: 0, use: "transient" as const }],
  });
  const text = memoryText({ ...compiled.plan, sections: [at("microbatch", 10), at("evaluate", 20)] });
  assertStringIncludes(text, "Largest values of evaluate\n  of evaluate  20 B");
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

Deno.test("a rank fits into a device of just its bytes and those beside its arena, and the line says what is left or too much", () => {
  const line = (arena: number, device?: number) => deviceFitText(arena, deviceFit(arena, device));
  assertEquals(
    line(2 ** 30, 3 * 2 ** 30),
    "fits: a rank needs 1.0 GiB of a device's 3.0 GiB, which leaves 2.0 GiB",
  );
  const taken = { "its driver": 1024, "2 groups": 2048 }, all = { bytes: 8, room: 8, taken: {} };
  assertEquals([deviceFit(8, 8), deviceFit(9, 8)], [{ ...all, fits: true }, { ...all, fits: false }]);
  assertEquals([deviceFit(1024, 4096, taken)?.fits, deviceFit(1025, 4096, taken)?.fits], [true, false]);
  assertEquals(
    deviceFitText(1024, deviceFit(1024, 4096, taken)),
    "fits: a rank needs 1.0 KiB of a device's 4.0 KiB, which leaves 0 B beside 1.0 KiB for its driver, 2.0 KiB for 2 groups",
  );
  assertEquals(line(9 * 1024, 8 * 1024), "does not fit: a rank needs 9.0 KiB of a device's 8.0 KiB, 1.0 KiB too much");
  assertStringIncludes(line(9), "--device-memory 80GB says whether a rank fits");
});
