import { assert, assertEquals } from "@std/assert";
import { f32, i32 } from "../../graph/builder.ts";
import { type DType, type Graph, sizeBytes } from "../../graph/ir.ts";
import { partial, shard } from "../../graph/layout.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { LlamaOptions } from "../../model/llama.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import { tinyLlama } from "../model/tiny.ts";
import { layout, layoutsFor } from "./lockstep.ts";
import { boundPlan, meshOf, type StepGraphs, stepGraphs } from "./step_graphs.ts";
import { scopeText } from "../../graph/print.ts";
import { precision } from "../graph/passes/on_cpu.ts";

/** The microbatch of a small Llama on a mesh, in bf16 where it may be. */
function inBf16(stored: "f32" | "bf16", options: MeshOptions = { dp_shard: 2, tp: 2 }): Graph {
  const model = tinyLlama({ numLayers: 1 }), mesh = meshOf(options);
  const exact = Object.entries(stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" }));
  const rounded = exact.map(([name, g]) => [name, simplify(precision(g, { param: "bf16", reduce: "bf16", stored }))]);
  const graphs = Object.fromEntries(rounded) as StepGraphs, plan = boundPlan(model, mesh, graphs);
  Object.values(graphs).forEach((g) => verify(partition(g, mesh, plan)));
  return partition(graphs.microbatch, mesh, plan);
}

/** Element types of what a collective moves for products, over an axis. */
function moved(graph: Graph, op: string, axis: string, scope: RegExp): DType[] {
  return graph.nodes.filter((n) => n.op === op && (n.attrs.axes as string[]).includes(axis) && scope.test(scopeText(n)))
    .map((n) => n.inputs[0].dtype);
}

Deno.test("rule 5: parameters and activations are gathered behind the casts that shrink them", () => {
  const graph = inBf16("f32");
  assertEquals(moved(graph, "all_gather", "dp_shard", /attention\.w|feed_forward/), Array(7).fill("bf16"));
  assertEquals(moved(graph, "all_gather", "tp", /attention|feed_forward/), Array(4).fill("bf16"));
  // Norms and embeddings take f32.
  assertEquals(moved(graph, "all_gather", "dp_shard", /norm|tok_embeddings/), Array(4).fill("f32"));
});

Deno.test("rule 5: what is stored in bf16 is gathered before it is widened", () => {
  assertEquals(moved(inBf16("bf16"), "all_gather", "dp_shard", /norm|tok_embeddings/), Array(4).fill("bf16"));
});

Deno.test("rule 5: keys and values are gathered in bf16 where attention rounds them anyway, and once for both ways", () => {
  const graph = inBf16("f32", { cp: 2 });
  const gathers = graph.nodes.filter((n) => n.op === "all_gather" && n.outputs[0].shape.length === 4);
  assertEquals(gathers.map((n) => n.inputs[0].dtype), ["bf16", "bf16"]);
  const readers = graph.nodes.filter((n) => n.op.startsWith("attention"));
  assertEquals(readers.map((n) => n.inputs.slice(1, 3)), Array(2).fill(gathers.map((n) => n.outputs[0])));
  // Their gradients are summed in f32.
  assertEquals(moved(graph, "reduce_scatter", "cp", /attention'$/), ["f32", "f32"]);
});

Deno.test("rule 5: summands of keys are added before they are rounded", () => {
  const cut = layout({ cp: shard(1) }), keys = layout({ cp: shard(1), tp: partial() });
  const graph = traceGraph("g", [], (builder) => {
    const [q, k, v] = ["q", "k", "v"].map((name) => new Tensor(builder, builder.input(name, f32(1, 4, 2, 2))));
    const positions = new Tensor(builder, builder.input("positions", i32(1, 4)));
    return { loss: q.apply("attention", [k, v, positions, positions], { scale: 1, round: "bf16" })[0].sum() };
  });
  const parts = partition(
    graph,
    meshOf({ cp: 2, tp: 2 }),
    layoutsFor({ inputs: { q: cut, positions: cut, k: keys, v: cut } }),
  );
  assertEquals(moved(parts, "all_reduce", "tp", /^/), ["f32"]);
  // What comes of them is gathered as it is; values, which are no summands, are rounded first.
  assertEquals(moved(parts, "all_gather", "cp", /^/).slice(0, 2), ["f32", "bf16"]);
});

Deno.test("rule 5: a gradient is reduced in the type that its cast asks for", () => {
  assertEquals(moved(inBf16("f32"), "reduce_scatter", "dp_shard", /./), Array(12).fill("bf16"));
});

/** A rank's part of the initial values is all that it makes. */
function checkInitialize(options: MeshOptions, sizes: LlamaOptions = {}): void {
  const model = tinyLlama({ numLayers: 1, ...sizes }), mesh = meshOf(options);
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  const { nodes, states } = partition(graphs.initialize, mesh, boundPlan(model, mesh, graphs));
  const bytes = (list: readonly Graph["states"][number][]) => list.reduce((sum, s) => sum + sizeBytes(s), 0);
  const made = nodes.flatMap((n) => n.outputs).reduce((sum, v) => sum + sizeBytes(v), 0);
  assert(made <= bytes(states), `${made} bytes are made for ${bytes(states)}`);
  assertEquals(nodes.every((n) => ["constant", "random", "assign"].includes(n.op)), true);
}

Deno.test("a rank makes no more of constants and random values than its part", () =>
  checkInitialize({ dp_shard: 2, tp: 2 }));

Deno.test("a rank makes no more of zeros than its part, padding included", () => {
  checkInitialize({ dp_shard: 4 }, { vocabSize: 33 });
});

Deno.test("a dim that data axes do not divide is padded with zeros before slices and cut off behind a gather", () => {
  const model = tinyLlama({ numLayers: 1, vocabSize: 33 }), mesh = meshOf({ dp_shard: 4 });
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  const { nodes } = partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs));
  const text = nodes.filter((n) => n.scope.startsWith("output")).map((n) => `${n.op} ${n.outputs[0]?.shape ?? ""}`);
  assertEquals(text, [
    "read 9,16",
    "all_gather 36,16",
    "slice 33,16",
    "contract 1,8,33",
    "contract 1,8,16",
    "contract 33,16",
    "constant 3,16",
    "concat 36,16",
    "reduce_scatter 9,16",
    "accumulate ",
  ]);
});
