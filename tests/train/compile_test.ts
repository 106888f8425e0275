import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import type { Graph } from "../../graph/ir.ts";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import { llama } from "../../model/llama.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { compileGraphs, passes, printing } from "../../train/compile.ts";
import { traceInitialize, traceUpdate } from "../../train/optimizer.ts";
import type { MeshLayout } from "../../train/ranks.ts";
import { compileStep } from "../../train/step_plan.ts";
import { type RealType, traceEvaluate, traceEvaluateResult, traceMicrobatch } from "../../train/step.ts";
import { golden } from "../golden.ts";
import { orderOf, unordered } from "../graph/order.ts";
import { assertSameMeaning } from "../graph/random_graphs.ts";
import { tinyLlama } from "../model/tiny.ts";
import { meshOf } from "../parallel/step_graphs.ts";

const model = tinyLlama(), shape = { batch: 2, seqLen: 16, dtype: "f32" } as const;
const graphs = [traceInitialize(model, "f32"), traceEvaluate(model, shape)];

Deno.test("every graph goes through every pass in order, and each result can be watched", () => {
  const seen: string[] = [], texts = graphs.map(print);
  const { graphs: compiled, plan, program } = compileGraphs(graphs, {
    threads: 3,
    watch: (pass, graph) => seen.push(`${graph.name} ${pass}`),
  });
  const names = ["input", ...passes().map((p) => p.name)];
  assertEquals(names, ["input", "precision", "simplify", "tile", "remat", "fuse", "materialize"]);
  assertEquals(seen, ["initialize", "evaluate"].flatMap((graph) => names.map((pass) => `${graph} ${pass}`)));
  assertEquals(compiled.map((g) => g.name), ["initialize", "evaluate"]);
  assertEquals(plan.threads, 3);
  assertEquals(plan.sections.map((s) => s.graph), [...compiled]);
  assertEquals(program.sections.map((s) => s.name), ["initialize", "evaluate"]);
  assertEquals(graphs.map(print), texts, "the graphs that were given are as they were");
});

Deno.test("what any pass makes is verified, and what it is given first", () => {
  const [{ nodes: [read] }] = graphs.slice(1), [initialize] = graphs;
  const twice: Graph = { ...initialize, nodes: [...initialize.nodes, read, read] };
  assertThrows(() => compileGraphs([twice], { threads: 1 }), Error, `Invalid graph "initialize": `);
  const ranks = { partition: () => ({ ...twice, level: "ranks" }) as const, graphOfRank: (g: Graph) => g };
  assertThrows(
    () => compileGraphs([initialize], { threads: 1, ranks }),
    Error,
    `Pass "partition" made a graph that it may not make. Invalid graph "initialize": `,
  );
});

Deno.test("the same graphs make the same program", () => {
  const bytes = () => compileGraphs(graphs, { threads: 2 }).program.bytes;
  assertEquals(bytes(), bytes());
});

Deno.test("TITAN_PRINT prints what a pass makes, or what all make", async () => {
  const module = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url));
  const source = `import { compileGraphs } from ${module("train/compile.ts")};
    import { trace } from ${module("graph/trace.ts")};
    const graph = trace((x) => x.add(0).exp().neg(), { dtype: "f32", shape: [4] });
    compileGraphs([graph], { threads: 1 });`;
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, source);
    const printed = async (wanted: string, ...flags: string[]): Promise<string> => {
      const config = new URL("../../deno.json", import.meta.url).pathname;
      const args = ["run", "--quiet", "--no-check", "--no-prompt", "--config", config, ...flags, file];
      const { stderr } = await new Deno.Command(Deno.execPath(), { args, env: { TITAN_PRINT: wanted } }).output();
      return new TextDecoder().decode(stderr);
    };
    const fused = await printed("fuse", "--allow-env=TITAN_PRINT");
    assert(fused.startsWith("# after fuse\ngraph function\n"), fused);
    assertStringIncludes(fused, "map(%");
    assertEquals([...fused.matchAll(/^# after/gm)].length, 1);
    assertEquals([...(await printed("all", "--allow-env=TITAN_PRINT")).matchAll(/^# after (\w+)/gm)].map((m) => m[1]), [
      "input",
      ...passes().map((p) => p.name),
    ]);
    assertEquals(await printed("all"), "", "without leave to read it, it is not set");
  } finally {
    await Deno.remove(file);
  }
});

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
const stepGraphs = graphsOf(tiny, { batch: 2, seqLen: 4, dtype: "f64" });

Deno.test("every pass leaves a valid graph that means the same", () => {
  for (const graph of stepGraphs) {
    passes().reduce((before, { run }) => {
      const after = verify(run(before));
      assertSameMeaning(before, after, 1, 1e-10);
      return after;
    }, graph);
  }
});

/** Text of a graph after each pass that changes it. */
function textsOf(graph: Graph): string {
  const texts: string[] = [];
  let before = "";
  compileGraphs([graph], {
    threads: 1,
    watch(pass, graph) {
      const text = print(graph);
      if (pass !== "input") texts.push(`after ${pass}\n\n${text === before ? "nothing has changed\n" : text}`);
      before = text;
    },
  });
  return texts.join("\n");
}

Deno.test("compile prints the microbatch of a small Llama after each pass", () => {
  golden("train/compile", textsOf(stepGraphs[1]));
});

Deno.test("compile prints the microbatch of the debug model after each pass", () => {
  const debug = { batch: 8, seqLen: 512, dtype: "f32", globalTokens: 8 * 512 } as const;
  golden("train/compile_debug", textsOf(traceMicrobatch(llama("debug"), debug)));
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
  // Both norms of a layer are made again in backward.
  assertEquals([microbatch.rmsnorm, microbatch.add_rmsnorm, microbatch.rmsnorm_backward], [1 + 12, 12, 13]);
  assert(microbatch.map <= 6 + 6 + 1, `${microbatch.map} maps`);
  assertEquals([microbatch.copy, evaluate.copy], [undefined, undefined]);
  assertEquals(update, { sum_squares: 1, map: 2, adamw: 1, copy: 3 });
  const most = { microbatch: 182 + 12, update: 7, evaluate: 83, evaluate_result: 3 };
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

Deno.test("graphs are printed after the pass that is named, of one graph alone where that is named too; no other name is taken", () => {
  const seen = (wanted: string | undefined) => {
    const lines: string[] = [], watch = printing(wanted, (text) => lines.push(text.split("\n", 1)[0]));
    for (const graph of graphs) for (const pass of ["input", "fuse", "rank"]) watch(pass, graph);
    return lines;
  };
  assertEquals(seen(undefined), []);
  assertEquals(seen("fuse"), ["# after fuse", "# after fuse"]);
  assertEquals(seen("evaluate:fuse").length, 1);
  assertEquals(seen("all").length, 6);
  const { message } = assertThrows(() => seen("fuze"), RangeError);
  assertStringIncludes(message, 'after "fuze"');
  assertStringIncludes(message, "schedule, rank, materialize");
});

/** The steps of a tiny Llama that its first or last rank runs. */
const meshes: readonly (readonly [MeshOptions, Partial<MeshLayout>?])[] = [
  [{}],
  [{ dp_shard: 2 }, { prefetch: 2 }],
  [{ dp_replicate: 2, dp_shard: 2 }, { reshard: false }],
  [{ tp: 2 }, { asyncTensorParallel: true }],
  [{ cp: 2 }, { rotateMethod: "alltoall" }],
  [{ dp_shard: 2, cp: 2, tp: 2 }],
];
const stepOf = (axes: MeshOptions, choices: Partial<MeshLayout> = {}, last = false): Uint8Array => {
  const mesh = meshOf(axes), ranks = { ...choices, mesh, rank: last ? mesh.size - 1 : 0 };
  const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
  const evaluate = { batch: 2, seqLen: 16 }, sizes = { batch: 2, seqLen: 16, accumulation: 3, threads: 2 };
  const options = { model: tinyLlama(), optimizer, dtype: "f32" as const, ...sizes, evaluate };
  return compileStep(mesh.size > 1 ? { ...options, ranks } : options).program.bytes;
};
/** Steps with and without evaluations, and every section behind every other. */
const orders = (count: number) => [
  [0, 1, 1, 1, 2, 1, 1, 1, 2],
  Array.from({ length: count * count }, (_, i) => [i % count, Math.floor(i / count)]).flat(),
];

for (const [axes, choices] of meshes) {
  const name = JSON.stringify({ ...axes, ...choices });
  Deno.test(`streams of a step on ${name} never meet in memory, in whatever order its sections run`, () => {
    for (const last of [false, true]) {
      const sections = orderOf(stepOf(axes, choices, last));
      for (const actions of orders(sections.length)) assertEquals(unordered(sections, actions), []);
    }
  });
}

Deno.test("streams that do not wait for what they need are noticed in any step", () => {
  for (const [axes, choices] of meshes.slice(1)) {
    const sections = orderOf(stepOf(axes, choices)), [actions] = orders(sections.length), list = sections.flat();
    const lacking = list.filter((i) => i.waits.length > 0);
    const noticed = lacking.filter((left) => {
      const without = sections.map((section) => section.map((i) => i === left ? { ...i, waits: [] } : i));
      return unordered(without, actions).length > 0;
    });
    // Some waits are implied by those of others, and some are those of evaluations.
    assert(noticed.length > 0.3 * lacking.length, `${noticed.length} of ${lacking.length} for ${JSON.stringify(axes)}`);
  }
});
