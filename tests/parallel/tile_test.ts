/** Pass `tile` behind `partition`: a rank's logits are never whole either, and what ranks exchange about a chunk is in it.
 * @module */
import { assert, assertEquals } from "@std/assert";
import type { Graph } from "../../graph/ir.ts";
import { type Layout, layoutOf, localShape, type Placement, replicate, shard } from "../../graph/layout.ts";
import { f64 } from "../../graph/builder.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { cpu } from "../../graph/target/cpu.ts";
import { print, scopeText } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { Axis, Mesh, MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { Layouts, PlanOptions } from "../../parallel/plan.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { planGraphs } from "../../train/compile.ts";
import { golden } from "../golden.ts";
import { headGradients, headGraph, opsOf } from "../graph/passes/graphs.ts";
import { forSeeds, Random, randomGraph } from "../graph/random_graphs.ts";
import { tinyLlama } from "../model/tiny.ts";
import { assertSameOnMesh, layoutsFor } from "./lockstep.ts";
import { randomLayouts, randomMesh } from "./random_layouts.ts";
import { boundPlan, meshOf, stepGraphs } from "./step_graphs.ts";
import { tile } from "../graph/passes/on_cpu.ts";

const meshes: readonly MeshOptions[] = [
  { dp_shard: 2 },
  { cp: 2 },
  { tp: 2 },
  { tp: 3 },
  { dp_replicate: 2, tp: 2 },
  { dp_shard: 2, cp: 2 },
  { cp: 2, tp: 2 },
];

/** A head as the plan of a model lays it out. */
function headLayouts(mesh: Mesh, options: { lossParallel: boolean; sequenceParallel: boolean }): Layouts {
  const layout = (placements: Partial<Record<Axis, Placement>>): Layout =>
    layoutOf(
      Object.entries(placements).filter(([axis, p]) => mesh.degrees[axis as Axis] > 1 && p.kind !== "replicate"),
      mesh.degrees,
    );
  const rows = { dp_replicate: shard(0), dp_shard: shard(0), cp: shard(1) };
  const weight = { tp: shard(0), dp_shard: shard(0, { padded: true }), cp: shard(0, { padded: true }) };
  return layoutsFor({
    inputs: {
      h: layout({ ...rows, tp: options.sequenceParallel ? shard(1) : replicate }),
      targets: layout(rows),
    },
    states: { "output.weight": layout(weight), "gradient/output.weight": layout(weight) },
    used: { "output.weight": layout({ tp: shard(0) }) },
    activations: options.lossParallel ? {} : { output: new Map([["tp", replicate]]) },
    residual: layout(options.sequenceParallel ? { tp: shard(1) } : {}),
  });
}

Deno.test("tile keeps the meaning of a head on any mesh, with sequence and loss parallelism or without", () => {
  forSeeds(200, (seed) => {
    const random = new Random(seed), mesh = meshOf(random.pick(meshes)), { degrees } = mesh;
    const data = degrees.dp_replicate * degrees.dp_shard, B = data * random.int(1, 3);
    const T = degrees.cp * degrees.tp * random.int(1, 3), V = degrees.tp * random.int(2, 4), D = random.int(1, 4);
    const layouts = headLayouts(mesh, { lossParallel: random.oneIn(2), sequenceParallel: random.oneIn(2) });
    const forward = headGraph({ B, T, D, V }, random.pick([(x) => x, (x) => x.div(3).tanh().mul(3)]));
    const graph = random.oneIn(3) ? forward : simplify(headGradients(forward)), rows = random.int(1, 4);
    let tiled: Graph | undefined;
    assertSameOnMesh(graph, mesh, layouts, seed, (g) => tiled = tile(g, { rows }));
    // Neither slices of the logits nor the logits have all rows of the rank, if there are more than go into a chunk.
    const local = [B / data, T / degrees.cp], most = rows * degrees.tp;
    if (local[0] * local[1] <= most) return;
    const whole = tiled!.nodes.flatMap((n) => n.outputs).filter(({ shape }) =>
      shape.length === 3 && shape[0] === local[0] && shape[1] === local[1] && shape[2] !== D
    );
    assertEquals(D === V || D * degrees.tp === V ? [] : whole, [], print(tiled!));
  });
});

Deno.test("tile keeps the meaning of random graphs with a head in random layouts", () => {
  let tiled = 0, exchanged = 0;
  forSeeds(150, (seed) => {
    const random = new Random(seed), forward = randomGraph(seed, { head: true, steps: [3, 12], sizes: [2, 4, 6] });
    const states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
    const graph = seed % 2 ? simplify(autodiff(forward, { of: "loss", states })) : simplify(forward);
    const mesh = randomMesh(random), layouts = randomLayouts(graph, mesh, random), rows = random.int(1, 3);
    assertSameOnMesh(graph, mesh, layouts, seed, (g) => {
      const after = tile(g, { rows }), count = (graph: Graph) => graph.nodes.filter((n) => n.attrs.axes).length;
      if (after !== g) tiled++;
      if (count(after) > count(g)) exchanged++;
      return after;
    });
  });
  assert(tiled > 50 && exchanged > 10, `only ${tiled} of 150 graphs were tiled, ${exchanged} with collectives`);
});

Deno.test("a cut that moves between dims that are no rows does so in each chunk", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, w, k, mask] = [f64(2, 3, 2), f64(4, 2), f64(4, 6), f64(2, 3, 4, 6)].map((type, i) =>
      new Tensor(builder, builder.input(`x${i}`, type))
    );
    const each = x.contract("b t d, v d -> b t v", w).contract("b t v, v k -> b t v k", k);
    return { y: mask.mul(each).contract("b t v k, v k -> b t", k) };
  });
  const mesh = meshOf({ tp: 2 }), tp = (dim: number) => new Map([["tp", shard(dim)]]);
  const layouts = layoutsFor({ inputs: { x1: tp(0), x2: tp(1), x3: tp(3) } });
  let tiled: Graph | undefined;
  assertSameOnMesh(graph, mesh, layouts, 1, (g) => {
    const product = g.nodes.find((n) => n.op === "contract")!.outputs[0];
    return tiled = tile(g, { rows: 2, values: [product] });
  });
  // One for each of four chunks, and one for k, which all of them read.
  assertEquals(opsOf(tiled!).filter((op) => op === "all_to_all").length, 4 + 1, print(tiled!));
});

/** The microbatch of a small Llama on a mesh, behind `partition` and `tile`. */
function microbatch(options: MeshOptions, plan: PlanOptions, rows: number): Graph {
  const llama = tinyLlama({ numLayers: 1 }), mesh = meshOf(options);
  const graphs = stepGraphs(llama, { batch: 4, seqLen: 8, dtype: "f64" });
  return verify(tile(partition(graphs.microbatch, mesh, boundPlan(llama, mesh, graphs, plan)), { rows }));
}

/** Ops from the first product of the head to what is behind all chunks. */
function headOf(graph: Graph): string[] {
  const nodes = graph.nodes.filter((n) => /^(output|cross_entropy)/.test(n.scope));
  return opsOf({ ...graph, nodes: nodes.slice(nodes.findIndex((n) => n.op === "contract")) });
}

Deno.test("a chunk of a slice of the vocabulary makes one maximum and two sums in two exchanges, and its gradient", () => {
  const part = "cross_entropy_part all_reduce sub exp all_reduce log add cross_entropy_backward";
  const chunk = `contract slice ${part} contract contract`;
  // With a vocabulary in two slices, 8 rows are 16 of a slice.
  assertEquals(
    headOf(microbatch({ tp: 2 }, {}, 8)).join(" "),
    `${chunk} slice ${chunk} add concat concat concat sub mul reduce accumulate`,
  );
});

Deno.test("without loss parallelism a chunk gathers its logits", () => {
  const chunk = "contract all_gather slice cross_entropy cross_entropy_backward slice_by_rank contract contract";
  assertEquals(
    headOf(microbatch({ tp: 2 }, { lossParallel: false }, 16)).join(" "),
    `${chunk} slice ${chunk} add add add concat accumulate`,
  );
});

Deno.test("what the head reads is gathered once, in front of all chunks, and its gradient is scattered once behind them", () => {
  const { nodes } = microbatch({ dp_shard: 2, tp: 2 }, {}, 2);
  const chunks = nodes.filter((n) => n.op === "cross_entropy_part").length;
  const place = (n: typeof nodes[number]) => `${n.op} ${n.attrs.axes} ${scopeText(n)}`;
  const exchanges = nodes.filter((n) => /^(output|norm)/.test(n.scope) && n.attrs.axes).map(place);
  assertEquals(chunks, 4);
  assertEquals(exchanges, [
    "all_gather dp_shard norm",
    "all_gather tp output",
    "all_gather dp_shard output",
    "reduce_scatter dp_shard output'",
    "reduce_scatter tp norm'",
    "reduce_scatter dp_shard norm'",
    "all_reduce tp norm'",
  ]);
});

Deno.test("in the memory of a rank there are no more logits than those of a chunk", () => {
  const batch = 8, seqLen = 512, vocabSize = 256;
  for (
    const [options, plan] of [
      [{ dp_shard: 2 }],
      [{ cp: 2 }],
      [{ tp: 2 }],
      [{ tp: 2 }, { lossParallel: false, sequenceParallel: false }],
      [{ dp_shard: 2, tp: 2 }],
    ] as readonly [MeshOptions, PlanOptions?][]
  ) {
    const llama = tinyLlama({ numLayers: 1, vocabSize }), mesh = meshOf(options);
    const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f32" }), layouts = boundPlan(llama, mesh, graphs, plan);
    const { sections } = planGraphs([graphs.microbatch, graphs.evaluate], {
      threads: 1,
      ranks: { partition: (g) => partition(g, mesh, layouts), graphOfRank: (g) => graphOfRank(g, mesh, 0) },
    }).plan;
    const chunk = 4 * cpu.chunks.rows * vocabSize;
    const [rows, columns] = localShape([batch, seqLen], layouts.input(graphs.microbatch.inputs[0]), mesh.degrees);
    assert(4 * rows * columns * vocabSize / mesh.degrees.tp > chunk, "the logits would be larger than a chunk");
    for (const { graph, allocations } of sections) {
      const large = allocations.filter((b) => b.bytes > chunk).map((b) => `${graph.name}: ${b.label}`);
      assertEquals(large, [], JSON.stringify([options, plan]));
    }
  }
});

Deno.test("tile prints the head of a rank in chunks", () => {
  const graph = simplify(headGradients(headGraph({ B: 2, T: 4, D: 3, V: 6 }))), mesh = meshOf({ tp: 2 });
  const text = (lossParallel: boolean) => {
    const parts = partition(graph, mesh, headLayouts(mesh, { lossParallel, sequenceParallel: true }));
    return `before\n\n${print(parts)}\nafter\n\n${print(verify(tile(parts, { rows: 2 })))}`;
  };
  golden("parallel/tile", `loss parallel\n\n${text(true)}\nwhole logits\n\n${text(false)}`);
});
