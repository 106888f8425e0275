/** Steps of a small Llama in float8 on meshes: what is scaled by the largest of all ranks' numbers is the same wherever they are. */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr } from "../../graph/array.ts";
import type { Graph } from "../../graph/ir.ts";
import type { Float8Products, Float8Recipe } from "../../graph/passes/float8.ts";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { verify } from "../../graph/verify.ts";
import { type Exchange, exchangesOf } from "../../parallel/exchanges.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { PlanOptions } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { planGraphs } from "../../train/compile.ts";
import { float8ProductsOf } from "../../train/float8.ts";
import { precision } from "../graph/passes/on_cpu.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { type Memories, runBoth } from "./lockstep.ts";
import { boundPlan, meshOf, stepGraphs } from "./step_graphs.ts";

const batch = 4, seqLen = 8;
/** Sizes that blocks of 32 fit into, on two ranks of each axis. */
const ofBlocks = { batch: 2, seqLen: 64, sizes: { dim: 64, ffnHiddenDim: 64, numHeads: 4, numKvHeads: 4 } };

/** A step of two microbatches; every output and every state is compared after each graph. */
function checkStep(
  options: MeshOptions,
  recipe: Float8Recipe,
  param: "f32" | "bf16",
  gathered = false,
  plan: PlanOptions = {},
) {
  const { batch: rows, seqLen: length, sizes } = recipe === "mxfp8"
    ? ofBlocks
    : { batch, seqLen, sizes: { dim: 32, ffnHiddenDim: 48 } };
  const llama = tinyLlama({ ...sizes, numLayers: 1 }), mesh = meshOf(options);
  const graphs = stepGraphs(llama, { batch: rows, seqLen: length, dtype: "f32" });
  const float8 = { ...float8ProductsOf(llama, { recipe, filter: ["output"] }), gathered };
  const rounded = {
    ...graphs,
    microbatch: verify(simplify(precision(graphs.microbatch, { ...fullPrecision, param, float8 }))),
  };
  const layouts = boundPlan(
    llama,
    mesh,
    Object.values(rounded).reduce((all, g) => ({ ...all, [g.name]: g }), graphs),
    plan,
  );
  const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
  const run = (name: keyof typeof graphs, inputs: Record<string, Arr>, first = true) =>
    runBoth(rounded[name], mesh, layouts, { inputs, memories, first, tolerance: 1e-10 });
  const inputs = Object.fromEntries(
    Object.entries(someRows(rows, length, 32)).map(([n, data]) => [n, arr([rows, length], data)]),
  );
  run("initialize", { seed: arr([2], [1, 2]) });
  for (const first of [true, false]) run("microbatch", inputs, first);
  const { loss } = run("update", { lr: arr([], [0.01]), step: arr([], [1]) });
  assert(loss.data[0] > 3 && loss.data[0] < 6, `${loss.data}`);
  assertEquals(rounded.microbatch.nodes.some((n) => n.outputs.some((v) => v.dtype === "f8e4m3")), true);
}

for (
  const [options, recipe, param, gathered, plan] of [
    [{ dp_replicate: 2 }, "tensorwise", "f32"],
    [{ dp_shard: 2 }, "tensorwise", "bf16"],
    [{ dp_shard: 4 }, "tensorwise", "bf16", true],
    [{ dp_shard: 2 }, "rowwise", "bf16"],
    [{ dp_replicate: 2, dp_shard: 2 }, "tensorwise", "f32", true],
    [{ tp: 2 }, "tensorwise", "f32"],
    [{ tp: 2 }, "rowwise_with_gw_hp", "bf16", false, { sequenceParallel: false }],
    [{ dp_shard: 2, tp: 2 }, "tensorwise", "bf16", true],
    [{ cp: 2 }, "tensorwise", "f32"],
    [{ cp: 2, tp: 2 }, "rowwise", "f32"],
    [{ dp_shard: 2, cp: 2 }, "rowwise_with_gw_hp", "f32"],
    [{ dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 }, "tensorwise", "bf16", true],
    [{ dp_shard: 2 }, "mxfp8", "f32"],
    [{ tp: 2 }, "mxfp8", "f32"],
    [{ cp: 2, tp: 2 }, "mxfp8", "bf16"],
  ] as readonly [MeshOptions, Float8Recipe, "f32" | "bf16", boolean?, PlanOptions?][]
) {
  const what = `${recipe} of ${param}${gathered ? ", gathered as float8" : ""}`;
  Deno.test(`float8 trains as on one rank: ${JSON.stringify(options)}, ${what}`, () =>
    checkStep(options, recipe, param, gathered, plan));
}

/** Exchanges of a microbatch, by default over four shards, behind all passes, by what they are.
 * @param options of float8; `null`: without it. */
function exchanges(
  options: Partial<Float8Products> | null,
  axes: MeshOptions = { dp_shard: 4 },
  sizes = { batch, seqLen, model: { dim: 32, ffnHiddenDim: 48, numLayers: 3 } },
): Map<string, Exchange> {
  const llama = tinyLlama(sizes.model), mesh = meshOf(axes);
  const graphs = stepGraphs(llama, { batch: sizes.batch, seqLen: sizes.seqLen, dtype: "f32" }),
    layouts = boundPlan(llama, mesh, graphs);
  const float8 = options
    ? { ...float8ProductsOf(llama, { recipe: options.recipe, filter: ["output"] }), ...options }
    : undefined;
  const ranks = {
    partition: (graph: Graph) => partition(graph, mesh, layouts),
    graphOfRank: (graph: Graph) => graphOfRank(graph, mesh, 0),
  };
  const { graphs: [microbatch] } = planGraphs([graphs.microbatch], {
    threads: 1,
    ranks,
    precision: { ...fullPrecision, param: "bf16", float8 },
  });
  return new Map(exchangesOf(microbatch).map((e) => [`${e.op} ${e.dtype}`, e]));
}

Deno.test("weights that are gathered as float8 are half the bytes of bf16, block by block, forward and backward", () => {
  const [plain, gathered] = [exchanges({}), exchanges({ gathered: true })];
  const weights = 3 * (4 * 32 * 32 + 3 * 32 * 48); // heads are as many as those of keys
  // The output layer's weight goes as bf16 in either case; the last block is kept for backward, as is the output layer.
  const [before, after] = [plain.get("all_gather bf16")!, gathered.get("all_gather bf16")!];
  const float8 = gathered.get("all_gather f8e4m3")!;
  assertEquals(plain.has("all_gather f8e4m3"), false);
  assertEquals(before.bytes - after.bytes, 2 * float8.bytes);
  assert(float8.bytes >= weights * 3 / 4 && float8.tensors === 7 * float8.count, JSON.stringify(float8));
});

Deno.test("the scales of all weights take one exchange if they are precomputed, else one for each block", () => {
  const count = (options: Partial<Float8Products>) => exchanges(options).get("all_reduce f32")!.count;
  const none = count({});
  assertEquals([count({ gathered: true }) - none, count({ gathered: true, precomputed: true }) - none], [3, 1]);
});

Deno.test("tensor parallelism exchanges what it does without float8: activations, and half the bytes of those it gathers", () => {
  const [plain, float8] = [exchanges(null, { tp: 2 }), exchanges({}, { tp: 2 })];
  assertEquals(float8.get("reduce_scatter f32"), plain.get("reduce_scatter f32"));
  // The output layer's input goes as bf16 in either case.
  const [before, after] = [plain.get("all_gather bf16")!, float8.get("all_gather bf16")!];
  const [forward, backward] = [float8.get("all_gather f8e4m3")!, float8.get("all_gather f8e5m2")!];
  assertEquals([forward.count, backward.count, after.count], [6, 6, 1]);
  assertEquals(before.bytes - after.bytes, 2 * (forward.bytes + backward.bytes));
});

Deno.test("weights are cut for mxfp8 as without it, and data ranks send the same; tp gathers what is rounded along two dims twice", () => {
  const sizes = { batch: ofBlocks.batch, seqLen: ofBlocks.seqLen, model: { ...ofBlocks.sizes, numLayers: 3 } };
  const both = (axes: MeshOptions) => [exchanges(null, axes, sizes), exchanges({ recipe: "mxfp8" }, axes, sizes)];
  for (const axes of [{ dp_shard: 2 }, { cp: 2 }]) {
    const [plain, mx] = both(axes);
    assertEquals(mx, plain);
  }
  const [plain, mx] = both({ tp: 2 }), gather = "all_gather bf16";
  assertEquals(mx.get("reduce_scatter f32"), plain.get("reduce_scatter f32"));
  // Of each block: in backward, what wq, wk and wv and what w1 and w3 take, and the gradients of what wo and w2 give.
  assertEquals(mx.get(gather)!.count, plain.get(gather)!.count + 3 * 4);
  assertEquals(mx.size, plain.size);
});
