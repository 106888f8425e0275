import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Graph } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import { trace } from "../../graph/trace.ts";
import { f64 } from "../../graph/builder.ts";
import { verify } from "../../graph/verify.ts";
import { llama } from "../../model/llama.ts";
import { compileGraphs, passes } from "../../train/compile.ts";
import { traceInitialize, traceUpdate } from "../../train/optimizer.ts";
import { type RealType, traceEvaluate, traceEvaluateResult, traceMicrobatch } from "../../train/step.ts";
import { golden } from "../golden.ts";
import { assertSameMeaning } from "../graph/random_graphs.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** All graphs of a run. */
function graphsOf(model: ReturnType<typeof llama>, shape: { batch: number; seqLen: number; dtype: RealType }): Graph[] {
  const globalTokens = shape.batch * shape.seqLen, { dtype } = shape;
  return [
    traceInitialize(model, dtype),
    traceMicrobatch(model, { ...shape, globalTokens }),
    traceUpdate(model, { ...optimizer, dtype, globalTokens }),
    traceEvaluate(model, shape),
    traceEvaluateResult(dtype),
  ];
}

const tiny = llama("debug", { dim: 32, numLayers: 2, numHeads: 4, numKvHeads: 2, ffnHiddenDim: 48, vocabSize: 61 });
const graphs = graphsOf(tiny, { batch: 2, seqLen: 4, dtype: "f64" });

Deno.test("watch sees every graph after every pass, each made from the one before", () => {
  const seen: [string, Graph][] = [];
  const { graphs: last } = compileGraphs(graphs, { threads: 1, watch: (pass, graph) => seen.push([pass, graph]) });
  const names = ["input", ...passes.map((p) => p.name)];
  assertEquals(
    seen.map(([pass, { name }]) => [pass, name]),
    graphs.flatMap(({ name }) => names.map((pass) => [pass, name])),
  );
  graphs.forEach((graph, i) => {
    const own = seen.slice(i * names.length, (i + 1) * names.length).map(([, g]) => g);
    assertEquals([own[0], own.at(-1)], [graph, last[i]]);
    passes.forEach(({ run }, k) => assertEquals(print(own[k + 1]), print(run(own[k]))));
  });
});

Deno.test("every pass leaves a valid graph that means the same", () => {
  for (const graph of graphs) {
    passes.reduce((before, { run }) => {
      const after = verify(run(before));
      assertSameMeaning(before, after, 1, 1e-10);
      return after;
    }, graph);
  }
});

Deno.test("compile prints the microbatch of a small Llama after each pass", () => {
  const texts: string[] = [];
  let before = "";
  compileGraphs([graphs[1]], {
    threads: 1,
    watch(pass, graph) {
      const text = print(graph);
      if (pass !== "input") texts.push(`after ${pass}\n\n${text === before ? "nothing has changed\n" : text}`);
      before = text;
    },
  });
  golden("train/compile", texts.join("\n"));
});

/** How often each kernel runs in each section. */
function kernelsOf(
  model: ReturnType<typeof llama>,
  batch: number,
  seqLen: number,
): Record<string, Record<string, number>> {
  const { program } = compileGraphs(graphsOf(model, { batch, seqLen, dtype: "f32" }), { threads: 2 });
  return Object.fromEntries(program.sections.map(({ name, instructions }) => {
    const counts: Record<string, number> = {};
    for (const { kernel } of instructions) counts[kernel] = (counts[kernel] ?? 0) + 1;
    return [name, counts];
  }));
}

const total = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);

Deno.test("a step of the debug model, 8 rows of 512 tokens, is so many kernels and no copy", () => {
  const { microbatch, update, evaluate, evaluate_result } = kernelsOf(llama("debug"), 8, 512);
  // 6 layers, 8 chunks of the head. Forward and backward of a layer: 4 and 8 products, 2 norms, attention, SwiGLU each.
  assertEquals(microbatch.gemm, 6 * (4 + 8) + 8 * (1 + 2));
  assertEquals([microbatch.attention, microbatch.attention_backward], [6, 6]);
  assertEquals([microbatch.rmsnorm, microbatch.add_rmsnorm, microbatch.rmsnorm_backward], [1, 12, 13]);
  assert(microbatch.map <= 6 + 6 + 1, `${microbatch.map} maps`);
  assertEquals([microbatch.copy, evaluate.copy], [undefined, undefined]);
  assertEquals(update, { sum_squares: 1, map: 2, adamw: 1, copy: 3 });
  const most = { microbatch: 182, update: 7, evaluate: 83, evaluate_result: 3 };
  Object.entries({ microbatch, update, evaluate, evaluate_result }).forEach(([name, counts]) =>
    assert(
      total(counts) <= most[name as keyof typeof most],
      `${name} has ${total(counts)} instructions: ${JSON.stringify(counts)}`,
    )
  );
});

Deno.test("a Llama of 8B is planned without its memory being there, one layer as the other", () => {
  const shape = { batch: 1, seqLen: 512, dtype: "f32" } as const;
  const { plan, program } = compileGraphs(graphsOf(llama("8B"), shape), { threads: 2 });
  assert(plan.arenaBytes > 128e9 && program.bytes.length < 1e6);
  const [, { instructions }] = program.sections,
    of = (layer: number) => instructions.filter((i) => i.scope.startsWith(`layers.${layer}.`)).map((i) => i.kernel);
  assertEquals(of(1), of(30));
  assert(of(1).length >= 16);
});

Deno.test("TITAN_PRINT names a pass whose graphs are printed, or all", () => {
  const write = console.error, before = Deno.env.get("TITAN_PRINT");
  const printed = (value: string): string[] => {
    const lines: string[] = [];
    Deno.env.set("TITAN_PRINT", value);
    console.error = (line: string) => lines.push(line);
    try {
      compileGraphs([{ ...trace((x) => x.add(0).exp(), f64(2)), name: "small" }], { threads: 1 });
    } finally {
      console.error = write;
      if (before === undefined) Deno.env.delete("TITAN_PRINT");
      else Deno.env.set("TITAN_PRINT", before);
    }
    return lines;
  };
  assertEquals(printed("none"), []);
  assertEquals(printed("fuse").length, 1);
  assertMatch(printed("fuse")[0], /^# after fuse\ngraph small\n[^]* = map\(/);
  assertEquals(printed("all").length, 1 + passes.length);
});
