/** Products whose rows come or go while they are made mean what they mean with gathers and scatters: on random graphs, and on
 * microbatches of a small Llama; where the exchanges stand.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr } from "../../../graph/array.ts";
import { type Builder, f32, f64 } from "../../../graph/builder.ts";
import type { Memory } from "../../../graph/interpret.ts";
import type { Graph, Node, State } from "../../../graph/ir.ts";
import { shard } from "../../../graph/layout.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { tileAsyncTp } from "../../../graph/passes/tile_async_tp.ts";
import { print } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import type { LlamaOptions } from "../../../model/llama.ts";
import type { Mesh, MeshOptions } from "../../../parallel/mesh.ts";
import { partition } from "../../../parallel/partition.ts";
import { graphOfRank } from "../../../parallel/rank_graph.ts";
import { golden } from "../../golden.ts";
import { initialized, someRows, tinyLlama } from "../../model/tiny.ts";
import { layout, layoutsFor, runBoth, scatter } from "../../parallel/lockstep.ts";
import { randomLayouts } from "../../parallel/random_layouts.ts";
import { boundPlan, meshOf, stepGraphs } from "../../parallel/step_graphs.ts";
import { forSeeds, Random, randomGraph, randomInputs } from "../random_graphs.ts";
import { at } from "../origins.ts";
import { fuse } from "./on_cpu.ts";

const ranksOf = (graph: Graph, mesh: Mesh): Graph[] =>
  Array.from({ length: mesh.size }, (_, rank) => verify(graphOfRank(graph, mesh, rank)));

const count = (graph: Graph, op: string, axis = "tp"): number =>
  graph.nodes.filter((n) => n.op === op && String(n.attrs.axes) === axis).length;

Deno.test("random graphs and their gradients mean the same, before products are joined and after", () => {
  let tiled = 0;
  forSeeds(250, (seed) => {
    const random = new Random(seed), forward = randomGraph(seed, { steps: [3, 12], sizes: [2, 4, 6] });
    const parameters = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
    const graph = random.oneIn(2) ? forward : autodiff(forward, { of: "loss", states: parameters });
    const mesh = meshOf(random.pick<MeshOptions>([{ tp: 2 }, { tp: 3 }, { cp: 2, tp: 2 }, { dp_shard: 2, tp: 2 }]));
    const layouts = randomLayouts(graph, mesh, random), parts = partition(graph, mesh, layouts);
    const after = verify(tileAsyncTp(random.oneIn(2) ? parts : fuse(parts), "tp"));
    if (count(after, "ring_shift") === 0) return;
    tiled++;
    const { inputs, memory } = randomInputs(graph, seed),
      ranks = Array.from({ length: mesh.size }, (): Memory => new Map());
    for (const state of graph.states) {
      scatter(memory.get(state.name)!, layouts.state(state), mesh, random).forEach((part, rank) =>
        ranks[rank].set(state.name, part)
      );
    }
    const memories = { whole: memory, ranks };
    try {
      runBoth(graph, mesh, layouts, { inputs, memories, seed, first: seed % 2 === 0, graphs: ranksOf(after, mesh) });
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}\n${print(parts)}\n${print(after)}`, { cause: error });
    }
  });
  assert(tiled >= 40, `only ${tiled} graphs had something to tile`);
});

/** A microbatch and an evaluation of a small Llama, with all passes up to this one, on a mesh and on one rank. */
function checkMicrobatch(options: MeshOptions, model: LlamaOptions = {}, full = false): Graph {
  const llama = tinyLlama(model), mesh = meshOf(options), batch = 2, seqLen = 16, random = new Random(1);
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f64" }), plan = boundPlan(llama, mesh, graphs);
  const rows = Object.entries(someRows(batch, seqLen, 32));
  const inputs: Record<string, Arr> = Object.fromEntries(
    rows.map(([name, data]) => [name, arr([batch, seqLen], data)]),
  );
  const start = initialized(llama), whole: Memory = new Map(start);
  const ranks = Array.from({ length: mesh.size }, (): Memory => new Map());
  for (const state of graphs.microbatch.states) {
    const value = start.get(state.name) ?? arr(state.shape);
    scatter(value, plan.state(state), mesh, random).forEach((part, rank) => ranks[rank].set(state.name, part));
  }
  const [microbatch] = (["microbatch", "evaluate"] as const).map((name) => {
    const parts = remat(partition(graphs[name], mesh, plan), { mode: full ? "full" : "none" });
    const tiled = verify(tileAsyncTp(fuse(parts), "tp"));
    const memories = { whole, ranks };
    runBoth(graphs[name], mesh, plan, { inputs, memories, tolerance: 1e-12, graphs: ranksOf(tiled, mesh) });
    return tiled;
  });
  return microbatch;
}

/** The collectives over tp that are left in the blocks of a model. */
const left = (graph: Graph): string[] => {
  const isBlock = (n: Node) =>
    String(n.attrs.axes) === "tp" && /^layers\.\d+\.(attention|feed_forward)\b/.test(n.scope);
  return graph.nodes.filter(isBlock).map((n) => n.op).filter((op) => op === "all_gather" || op === "reduce_scatter");
};

Deno.test("a microbatch with products beside their exchanges is that of one rank", () => {
  const graph = checkMicrobatch({ tp: 2 });
  assertEquals(left(graph), []);
  // Each block's four products of each direction, on two layers; the head, whose rows are not cut further here.
  assertEquals(count(graph, "ring_shift"), 2 * 8 + 2);
  // The embedding is a table: its rows are summed over tp, and their gradients gathered.
  assertEquals([count(graph, "reduce_scatter"), count(graph, "all_gather")], [1, 1]);
});
Deno.test("on more ranks of tp, and next to other axes, it is that of one rank", () => {
  checkMicrobatch({ tp: 4 }, { numLayers: 1, numHeads: 8, numKvHeads: 4 });
  checkMicrobatch({ cp: 2, tp: 2 }, { numLayers: 1 });
  assertEquals(left(checkMicrobatch({ dp_shard: 2, tp: 2 }, { numLayers: 1 })), []);
});
Deno.test("when blocks are made again in backward, it is that of one rank", () => {
  assertEquals(left(checkMicrobatch({ tp: 2 }, {}, true)), []);
});

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f64(...shape) });

/** Two products, a gather in front of the first and a scatter behind the second, over four ranks. */
function twoProducts(): Graph {
  const states = [parameter("v", 8, 6), parameter("w", 6, 8)];
  const graph = traceGraph("g", states, (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(8, 6)));
    const [v, w] = states.map(({ name }) => new Tensor(builder, builder.read(name)));
    return { y: x.contract("t i, o i -> t o", v).exp().contract("t o, i o -> t i", w) };
  });
  const layouts = layoutsFor({
    inputs: { x: layout({ tp: shard(0) }) },
    states: { v: layout({ tp: shard(0) }), w: layout({ tp: shard(1) }) },
    used: { v: layout({ tp: shard(0) }), w: layout({ tp: shard(1) }) },
  });
  const mesh = meshOf({ tp: 4 }), parts = partition(simplify(graph), mesh, layouts);
  // The result goes to where x came from.
  const [reduce] = parts.nodes.filter((n) => n.op === "all_reduce"), [y] = reduce.outputs;
  const piece = { ...y, shape: [2, 6] }, attrs = { axes: ["tp"], size: 4, dim: 0, by: "sum" };
  const nodes = parts.nodes.map((n) => n === reduce ? { ...n, op: "reduce_scatter", attrs, outputs: [piece] } : n);
  return verify({ ...parts, nodes, outputs: [{ name: "y", value: piece }] });
}

Deno.test("each step of the ring stands in front of the product of rows that are there already", () => {
  const order = tileAsyncTp(twoProducts(), "tp").nodes.map((n) => n.op).filter((op) => !/read|slice/.test(op)).join(
    " ",
  );
  const step = "ring_shift contract";
  assertEquals(
    order,
    `${step} ${step} ${step} contract concat_by_rank exp contract ring_shift contract add ring_shift contract add ring_shift contract add`,
  );
});

Deno.test("exchanges over other axes, and of what is no product's, stay as they are", () => {
  const graph = twoProducts();
  assertEquals(print(tileAsyncTp(graph, "cp")), print(graph));
  const alone = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2, 6)));
    const [whole] = x.apply("all_gather", [], { axes: ["tp"], size: 2, dim: 0 });
    // Rows that are summed away, and rows that both operands have.
    const squares = whole.contract("t i, t o -> i o", whole), pairs = whole.contract("t i, t i -> t", whole.exp());
    const [piece] = whole.exp().apply("reduce_scatter", [], { axes: ["tp"], size: 2, dim: 0, by: "sum" });
    return { squares, pairs, piece };
  });
  assertEquals(print(tileAsyncTp(alone, "tp")), print(alone));
});

const tp2 = { axes: ["tp"], size: 2, dim: 0 };

/** Ops of what becomes of a graph, views and reads left out. */
function opsOf(body: (x: Tensor, w: Tensor, builder: Builder) => Record<string, Tensor> | void): string {
  const states = [{ name: "gradient/s", kind: "gradient", of: "s", ...f32(8, 6) } as const];
  const graph = traceGraph("g", states, (builder) => {
    const [x, w] = [f32(4, 6), f32(6, 6)].map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    return body(x, w, builder);
  }, "ranks");
  return verify(tileAsyncTp(fuse(graph), "tp")).nodes.map((n) => n.op).filter((op) => !/slice/.test(op)).join(" ");
}
const gathered = (x: Tensor): Tensor => x.apply("all_gather", [], tp2)[0];
const scattered = (x: Tensor): Tensor => x.apply("reduce_scatter", [], { ...tp2, by: "sum" })[0];

Deno.test("rows are on their way while anything else is made that stands in front of their product", () => {
  const early = opsOf((x, w) => {
    const whole = gathered(x), turned = w.contract("i o, o j -> i j", w.exp());
    return { y: whole.contract("t i, i o -> t o", turned) };
  });
  assertEquals(early, "ring_shift map contract contract contract concat_by_rank");
  const late = opsOf((x, w) => {
    const sum = x.contract("t i, i o -> t o", w), other = w.exp().contract("i o, o j -> i j", w);
    return { y: scattered(sum), other };
  });
  assertEquals(late, "contract ring_shift contract map contract add");
});

Deno.test("a product that somebody else reads whole is not cut for a scatter, nor one that was rounded to bf16", () => {
  const shared = opsOf((x, w) => {
    const sum = x.contract("t i, i o -> t o", w);
    return { y: scattered(sum), more: sum.exp() };
  });
  assertEquals(shared, "contract reduce_scatter map");
  const result = opsOf((x, w) => {
    const sum = x.contract("t i, i o -> t o", w);
    return { y: scattered(sum), sum };
  });
  assertEquals(result, "contract reduce_scatter");
  const rounded = opsOf((x, w) => ({ y: scattered(x.contract("t i, i o -> t o", w).cast("bf16")) }));
  assertEquals(rounded, "contract map reduce_scatter");
});

Deno.test("a sum of products is cut with them", () => {
  const states: State[] = [];
  const graph = traceGraph("g", states, (builder) => {
    const [x, w] = [f64(4, 6), f64(6, 6)].map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    return { y: scattered(x.contract("t i, i o -> t o", w).add(x.exp().contract("t i, i o -> t o", w)).add(x)) };
  });
  const maps = tileAsyncTp(fuse(graph), "tp").nodes.filter((n) => n.op === "map" && n.inputs.length === 3);
  assertEquals(maps.map((n) => [n.outputs[0].shape, n.attrs.shape]), [[[2, 6], [2, 6]], [[2, 6], [2, 6]]]);
});

Deno.test("rows that are there since forward, or that end in state, are multiplied at one go", () => {
  const backward = opsOf((x, w, builder) => {
    const whole = gathered(x), y = whole.contract("t i, i o -> t o", w);
    builder.origin = at("layers.0'");
    return { y, again: whole.contract("t i, i o -> t o", w.exp()) };
  });
  assertEquals(backward, "ring_shift contract contract concat_by_rank concat_by_rank map contract");
  const into = opsOf((x, w, builder) =>
    builder.accumulate("gradient/s", gathered(x).contract("t i, i o -> t o", w).value)
  );
  assertEquals(into, "all_gather contract");
});

Deno.test("golden: a product of gathered rows, and one whose rows are scattered", () => {
  const graph = twoProducts();
  golden("graph/tile_async_tp", `before\n\n${print(graph)}\nafter\n\n${print(verify(tileAsyncTp(graph, "tp")))}`);
});
