/** Whole training steps of a small Llama on meshes: initial values, microbatches, updates and an evaluation are those of one rank.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr } from "../../graph/array.ts";
import { Builder, f32 } from "../../graph/builder.ts";
import type { Graph } from "../../graph/ir.ts";
import type { RematPolicy } from "../../graph/passes/remat.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { verify } from "../../graph/verify.ts";
import type { LlamaOptions } from "../../model/llama.ts";
import type { Mesh, MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { Layouts, PlanOptions } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { compileGraphs, passes, planGraphs, type Ranks } from "../../train/compile.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { type Memories, runBoth } from "./lockstep.ts";
import { boundPlan, collectivesOf, meshOf, stepGraphs } from "./step_graphs.ts";
import { precision } from "../graph/passes/on_cpu.ts";

const batch = 4, seqLen = 8;

/** Two steps of two microbatches each, then an evaluation; every output and every state is compared after each graph. */
function checkSteps(options: MeshOptions, plan: PlanOptions = {}, model: LlamaOptions = {}, documents = false): void {
  const llama = tinyLlama(model), mesh = meshOf(options);
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f64", documents });
  const layouts = boundPlan(llama, mesh, graphs, plan);
  const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
  const run = (name: keyof typeof graphs, inputs: Record<string, Arr>, first = true) =>
    runBoth(graphs[name], mesh, layouts, { inputs, memories, first, tolerance: 1e-12 });
  const rowsOf = (shift: number): Record<string, Arr> => {
    const rows = someRows(batch, seqLen, 32), ids = rows.tokens.map((_, i) => Number(i % seqLen > 4));
    const shifted = {
      ...rows,
      tokens: rows.tokens.map((t) => (t + shift) % 32),
      ...(documents ? { documents: ids } : {}),
    };
    return Object.fromEntries(Object.entries(shifted).map(([name, data]) => [name, arr([batch, seqLen], data)]));
  };
  run("initialize", { seed: arr([2], [1, 2]) });
  const losses = [1, 2].map((step) => {
    for (const shift of [0, 1]) run("microbatch", rowsOf(shift), shift === 0);
    return run("update", { lr: arr([], [0.01]), step: arr([], [step]) }).loss.data[0];
  });
  assert(losses[1] < losses[0], `${losses}`);
  run("evaluate", rowsOf(2));
  run("evaluate_result", {});
  assertEquals(memories.whole.get("eval_token_count")!.data[0], 27);
}

Deno.test("copies (DDP) train as one rank does", () => checkSteps({ dp_replicate: 2 }));
Deno.test("shards (FSDP) train as one rank does", () => checkSteps({ dp_shard: 4 }));
Deno.test("copies of shards (HSDP) train as one rank does", () => checkSteps({ dp_replicate: 2, dp_shard: 2 }));
Deno.test("slices of the sequence (CP) train as one rank does, inside of documents too", () => {
  checkSteps({ cp: 2 });
  checkSteps({ cp: 4 }, {}, { numLayers: 1 }, true);
});
Deno.test("slices of tensors (TP) train as one rank does, with sequence and loss parallelism or without", () => {
  checkSteps({ tp: 2 });
  checkSteps({ tp: 2 }, { sequenceParallel: false, lossParallel: false });
});
Deno.test("all axes together train as one rank does", () => {
  checkSteps({ dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 }, {}, { numLayers: 1 });
});
Deno.test("sizes that no data axis divides train as one rank does, with padding", () => {
  checkSteps({ dp_shard: 2, cp: 2 }, {}, { vocabSize: 33, ffnHiddenDim: 23, numLayers: 1 });
});

Deno.test("passes behind partition keep what the graphs of a step mean", () => {
  const llama = tinyLlama({ numLayers: 1 }), mesh = meshOf({ dp_shard: 2, cp: 2, tp: 2 });
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f64" }), layouts = boundPlan(llama, mesh, graphs);
  const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
  const behind = passes().filter(({ name }) =>
    ["simplify", "tile", "remat", "reshard", "fuse", "group", "schedule"].includes(name)
  );
  const run = (name: keyof typeof graphs, inputs: Record<string, Arr>) => {
    const fused = behind.reduce((g, pass) => verify(pass.run(g)), partition(graphs[name], mesh, layouts));
    const ranks = Array.from({ length: mesh.size }, (_, rank) => verify(graphOfRank(fused, mesh, rank)));
    runBoth(graphs[name], mesh, layouts, { inputs, memories, tolerance: 1e-11, graphs: ranks });
  };
  const rows = Object.entries(someRows(batch, seqLen, 32)).map(([name, data]) => [name, arr([batch, seqLen], data)]);
  run("initialize", { seed: arr([2], [1, 2]) });
  run("microbatch", Object.fromEntries(rows));
  run("update", { lr: arr([], [0.01]), step: arr([], [1]) });
});

/** A step's graphs as some rank of a mesh runs them. */
function ranksOf(mesh: Mesh, layouts: Layouts, rank: number): Ranks {
  return {
    partition: (graph) => partition(graph, mesh, layouts),
    graphOfRank: (graph) => graphOfRank(graph, mesh, rank),
  };
}

for (
  const [title, options, plan, model] of [
    ["DDP", { dp_replicate: 2 }],
    ["FSDP of uneven sizes", { dp_shard: 4 }, {}, { vocabSize: 33, ffnHiddenDim: 23 }],
    ["CP", { cp: 2 }],
    ["TP", { tp: 2 }, { sequenceParallel: false, lossParallel: false }],
    ["TP with loss parallelism", { tp: 2 }, { sequenceParallel: false }],
    ["TP, SP and loss parallelism", { tp: 4 }, {}, { numKvHeads: 4 }],
    ["FSDP and TP", { dp_shard: 2, tp: 2 }],
    ["all axes", { dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 }],
  ] as readonly [string, MeshOptions, PlanOptions?, LlamaOptions?][]
) {
  Deno.test(`every rank's part of a step has its kernels: ${title}`, () => {
    const llama = tinyLlama({ numLayers: 1, ...model }), mesh = meshOf(options);
    for (const dtype of ["f64", "f32"] as const) {
      const graphs = stepGraphs(llama, { batch, seqLen, dtype, documents: true });
      const layouts = boundPlan(llama, mesh, graphs, plan);
      // In bf16 too, where it is stored beside f32.
      const rounding = dtype === "f32" ? { param: "bf16", reduce: "bf16", stored: "f32" } as const : undefined;
      for (let rank = 0; rank < mesh.size; rank++) {
        const ranks = ranksOf(mesh, layouts, rank);
        const { program } = compileGraphs(Object.values(graphs), { threads: 1, ranks, precision: rounding });
        assertEquals(program.sections.map((s) => s.name), Object.keys(graphs));
      }
    }
  });
}

/** Collectives of the middle one of three blocks over an axis, behind all passes; over cp those of keys and values. */
function counts(axis: string, options: MeshOptions, plan: PlanOptions, remat?: RematPolicy): Record<string, number> {
  const llama = tinyLlama({ numLayers: 3 }), mesh = meshOf(options);
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f32" });
  const layouts = boundPlan(llama, mesh, graphs, plan), ranks = ranksOf(mesh, layouts, 0);
  const { graphs: [microbatch] } = planGraphs([graphs.microbatch], { threads: 1, ranks, remat });
  return collectivesOf(microbatch, axis, axis === "cp" ? /^layers\.1\.attention$/ : /^layers\.1\b/);
}

Deno.test("behind all passes a block exchanges what partition said, and again only where all is made again", () => {
  // The gradients of both norms are one.
  const sequence = { all_gather: 2, reduce_scatter: 2, "all_gather'": 2, "reduce_scatter'": 2, "all_reduce'": 1 };
  const whole = { all_reduce: 2, "all_reduce'": 2 };
  for (const options of [{ tp: 2 }, { dp_shard: 2, cp: 2, tp: 2 }]) {
    for (const remat of [undefined, { mode: "none" }, { mode: "selective", option: "op" }] as const) {
      assertEquals(counts("tp", options, {}, remat), sequence, JSON.stringify(remat));
      assertEquals(counts("tp", options, { sequenceParallel: false }, remat), whole, JSON.stringify(remat));
      const keys = counts("cp", { ...options, cp: 2 }, {}, remat);
      assertEquals(keys, { all_gather: 2, "reduce_scatter'": 2 }, JSON.stringify(remat));
    }
    // What leaves the block is kept, so the last exchange is not made again.
    const full = { mode: "full" } as const;
    assertEquals(counts("tp", options, {}, full), { ...sequence, "all_gather again": 2, "reduce_scatter again": 1 });
    assertEquals(counts("tp", options, { sequenceParallel: false }, full), { ...whole, "all_reduce again": 1 });
  }
});

Deno.test("what a rank slices is copied where a kernel cannot follow it", () => {
  const mesh = meshOf({ tp: 2 }), builder = new Builder("g");
  const [x, w] = [f32(2, 4, 6), f32(6)].map((type, i) => builder.input(`x${i}`, type));
  builder.output("y", builder.emit("rmsnorm", [builder.emit("exp", [x])[0], w], { eps: 1e-5 })[0]);
  const partition = (g: Graph): Graph => {
    const parts = new Builder(g.name, [], "ranks");
    const [x, w] = g.inputs.map((i) => parts.input(i.name, i.value));
    const slice = parts.emit("slice_by_rank", parts.emit("exp", [x]), { axes: ["tp"], size: 2, dim: 1 });
    parts.output("y", parts.emit("rmsnorm", [slice[0], w], { eps: 1e-5 })[0]);
    return parts.finish();
  };
  const ranks = { partition, graphOfRank: (g: Graph) => graphOfRank(g, mesh, 1) };
  const { graphs: [graph] } = compileGraphs([builder.finish()], { threads: 1, ranks });
  assertEquals(graph.nodes.map((n) => n.op), ["map", "slice", "copy", "rmsnorm"]);
});

Deno.test("a microbatch with products of bf16 rounds on a mesh what it rounds on one rank", () => {
  const llama = tinyLlama({ numLayers: 1 }), mesh = meshOf({ dp_shard: 2, cp: 2, tp: 2 });
  const rounded = (g: Graph) => simplify(precision(g, { param: "bf16", reduce: "f32", stored: "f32" }));
  const { initialize, microbatch, ...others } = stepGraphs(llama, { batch, seqLen, dtype: "f32" });
  const graphs = { ...others, initialize, microbatch: rounded(microbatch) }, layouts = boundPlan(llama, mesh, graphs);
  const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
  runBoth(initialize, mesh, layouts, { inputs: { seed: arr([2], [1, 2]) }, memories });
  const rows = Object.entries(someRows(batch, seqLen, 32)).map(([name, data]) => [name, arr([batch, seqLen], data)]);
  runBoth(graphs.microbatch, mesh, layouts, { inputs: Object.fromEntries(rows), memories });
});
