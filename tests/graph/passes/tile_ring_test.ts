/** Ring attention means what attention to gathered keys means: on graphs made at random, on whole microbatches of a small Llama; how
 * many slices are there at a time, by the memory plan.
 * @module */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { type Arr, arr } from "../../../graph/array.ts";
import { f64, i32 } from "../../../graph/builder.ts";
import { interpret, type Memory } from "../../../graph/interpret.ts";
import { type Graph, type Node, producers, type Value } from "../../../graph/ir.ts";
import { type Layout, shard } from "../../../graph/layout.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import type { Allocation } from "../../../graph/passes/memory.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { tileRing } from "../../../graph/passes/tile_ring.ts";
import { print, scopeText } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import type { LlamaOptions } from "../../../model/llama.ts";
import { sequenceOrder } from "../../../parallel/balance.ts";
import type { Mesh, MeshOptions } from "../../../parallel/mesh.ts";
import { partition } from "../../../parallel/partition.ts";
import { graphOfRank } from "../../../parallel/rank_graph.ts";
import { golden } from "../../golden.ts";
import { initialized, someRows, tinyLlama } from "../../model/tiny.ts";
import { layout, layoutsFor, type Memories, runBoth, scatter } from "../../parallel/lockstep.ts";
import { boundPlan, meshOf, stepGraphs } from "../../parallel/step_graphs.ts";
import { forSeeds, Random, randomInputs } from "../random_graphs.ts";
import { at } from "../origins.ts";
import { materialize, memory, precision } from "./on_cpu.ts";

interface Sizes {
  readonly B: number;
  readonly T: number;
  readonly H: number;
  readonly G: number;
  readonly K: number;
}

/** Attention of queries to as many keys, the sum of what it gives times something, and (where asked) the gradients of q, k and v. */
function attentionGraph({ B, T, H, G, K }: Sizes, options: { documents: boolean; backward: boolean }): Graph {
  const graph = traceGraph("g", [], (builder) => {
    builder.origin = at("attention");
    const [q, k, v, w] = Object.entries({ q: H, k: G, v: G, w: H }).map(([name, heads]) =>
      new Tensor(builder, builder.input(name, f64(B, T, heads, K)))
    );
    const names = ["positions", ...(options.documents ? ["documents"] : [])].flatMap((s) => [`q_${s}`, `k_${s}`]);
    const ints = names.map((name) => new Tensor(builder, builder.input(name, i32(B, T))));
    const [o] = q.apply("attention", [k, v, ...ints], { scale: 0.7, documents: options.documents });
    return { loss: o.mul(w).sum() };
  });
  return simplify(options.backward ? autodiff(graph, { of: "loss", inputs: ["q", "k", "v"], seed: 1 }) : graph);
}

const bothWays = { documents: false, backward: true };

/** The sequence over cp, heads over tp. */
const layouts = (mesh: Mesh) => {
  const rows = layout({ cp: shard(1) }), heads = mesh.degrees.tp > 1 ? layout({ cp: shard(1), tp: shard(2) }) : rows;
  const ints = ["q_positions", "k_positions", "q_documents", "k_documents"].map((name) => [name, rows]);
  return layoutsFor({ inputs: { q: heads, k: heads, v: heads, w: heads, ...Object.fromEntries(ints) } });
};

const ranksOf = (graph: Graph, mesh: Mesh): Graph[] =>
  Array.from({ length: mesh.size }, (_, rank) => verify(graphOfRank(graph, mesh, rank)));

const count = (graph: Graph, op: string): number => graph.nodes.filter((n) => n.op === op).length;

Deno.test("random attention to keys that go around means the same, wherever positions and documents lie", () => {
  const seen = { blind: 0, documents: 0, grouped: 0 };
  forSeeds(60, (seed) => {
    const random = new Random(seed), mesh = meshOf(random.pick([{ cp: 2 }, { cp: 3 }, { cp: 4 }, { cp: 2, tp: 2 }]));
    const G = mesh.degrees.tp * random.int(1, 2), documents = random.oneIn(2);
    const sizes = { B: random.int(1, 2), T: mesh.degrees.cp * random.int(1, 3), H: G * random.int(1, 2), G, K: 2 };
    const graph = attentionGraph(sizes, { documents, backward: !random.oneIn(4) });
    const parts = verify(partition(graph, mesh, layouts(mesh))), ring = verify(tileRing(parts));
    assertEquals(count(ring, "attention"), mesh.degrees.cp);
    const { inputs } = randomInputs(graph, seed), { B, T } = sizes;
    const ints = (most: number) => arr([B, T], Array.from({ length: B * T }, () => random.int(0, most)));
    for (const side of ["q", "k"]) {
      inputs[`${side}_positions`] = ints(T - 1);
      if (documents) inputs[`${side}_documents`] = ints(1);
    }
    if (random.oneIn(2)) {
      inputs.q_positions.data[0] = -1;
      seen.blind++;
    }
    seen.documents += Number(documents);
    seen.grouped += Number(sizes.H > G);
    const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
    runBoth(graph, mesh, layouts(mesh), { inputs, memories, graphs: ranksOf(ring, mesh) });
  });
  assert(Math.min(...Object.values(seen)) >= 10, JSON.stringify(seen));
});

interface Checked {
  readonly model?: LlamaOptions;
  readonly documents?: boolean;
  /** Do products take bf16? */
  readonly rounds?: boolean;
}

/** Microbatches of a small Llama on a mesh and on one rank, the sequence in a balanced order. */
function checkMicrobatch(options: MeshOptions, { model, documents = false, rounds = false }: Checked = {}): void {
  const llama = tinyLlama(model), mesh = meshOf(options), batch = 2, seqLen = 16, random = new Random(1);
  const rounded = (g: Graph) => rounds ? simplify(precision(g, { param: "bf16", reduce: "f32", stored: "f32" })) : g;
  const traced = stepGraphs(llama, { batch, seqLen, dtype: rounds ? "f32" : "f64", documents });
  const graphs = { ...traced, microbatch: rounded(traced.microbatch), evaluate: rounded(traced.evaluate) };
  const plan = boundPlan(llama, mesh, graphs);
  const rows = someRows(batch, seqLen, 32), ids = rows.tokens.map((_, i) => Number(i % seqLen > 6));
  const order = sequenceOrder(seqLen, mesh.degrees.cp, "headtail");
  const inputsOf = (order: Int32Array): Record<string, Arr> =>
    Object.fromEntries(
      Object.entries({ ...rows, ...(documents ? { documents: ids } : {}) }).map(([name, data]) => {
        const ordered = data.map((_, i) => data[i - i % seqLen + order[i % seqLen]]);
        return [name, arr([batch, seqLen], ordered)];
      }),
    );
  const start = initialized(llama), whole: Memory = new Map(start), plain: Memory = new Map(start);
  const ranks = Array.from({ length: mesh.size }, (): Memory => new Map());
  for (const state of graphs.microbatch.states) {
    const value = start.get(state.name) ?? arr(state.shape);
    scatter(value, plan.state(state), mesh, random).forEach((part, rank) => ranks[rank].set(state.name, part));
  }
  for (const name of ["microbatch", "evaluate"] as const) {
    const ring = verify(tileRing(partition(graphs[name], mesh, plan)));
    assert(count(ring, "ring_shift") > 0 && !ring.nodes.some((n) => n.op === "all_gather" && isKey(n)), print(ring));
    const inputs = inputsOf(order), memories = { whole, ranks };
    runBoth(graphs[name], mesh, plan, { inputs, memories, tolerance: 1e-12, graphs: ranksOf(ring, mesh) });
    interpret(graphs[name], { inputs: inputsOf(sequenceOrder(seqLen, 1, null)), memory: plain });
  }
  // The order is nothing but an order.
  for (const [name, { data }] of plain) {
    const worst = data.reduce((most, x, i) => Math.max(most, Math.abs(x - whole.get(name)!.data[i])), 0);
    assert(worst <= 1e-12, `${name} is off by ${worst}`);
  }
}

const isKey = ({ outputs: [{ shape, dtype }] }: Node): boolean => shape.length === 4 && dtype !== "i32";

Deno.test("a microbatch whose keys go around two ranks, or four, is that of one rank", () => {
  checkMicrobatch({ cp: 2 });
  checkMicrobatch({ cp: 4 }, { model: { numLayers: 1 } });
});
Deno.test("a microbatch whose keys go around within documents is that of one rank", () => {
  checkMicrobatch({ cp: 4 }, { model: { numLayers: 1 }, documents: true });
});
Deno.test("a microbatch whose keys go around next to all other axes is that of one rank", () => {
  checkMicrobatch({ cp: 2, tp: 2 }, { model: { numLayers: 1 }, documents: true });
  checkMicrobatch({ cp: 2, dp_shard: 2 }, { model: { numLayers: 1 } });
});

Deno.test("keys in bf16 go around as bf16, and their gradients as f32", () => {
  checkMicrobatch({ cp: 4 }, { model: { numLayers: 1 }, rounds: true });
});

/** Most bytes of keys and values that a rank has at a time. */
function peakOfKeys(graph: Graph, mesh: Mesh): number {
  const local = graphOfRank(graph, mesh, 0), [section] = memory([local], { threads: 1 }).sections;
  const made = producers(local), bytes = local.nodes.map(() => 0), allocations = new Set<Allocation>();
  const visit = (v: Value): void => {
    const node = made.get(v)!, { base } = section.places.of.get(v)!, at = local.nodes.indexOf(node);
    const isThere = (b: Allocation) => b.offset === section.spotOf(base).offset && b.first <= at && b.last >= at;
    allocations.add(section.allocations.find((b) => isThere(b) && b.use !== "scratch")!);
    if (node.op === "all_gather" || node.op === "ring_shift") visit(node.inputs[node.outputs.indexOf(v)]);
  };
  for (const node of local.nodes) if (node.op.startsWith("attention")) node.inputs.slice(1, 3).forEach(visit);
  for (const one of allocations) {
    for (let at = one.first; at <= Math.min(one.last, bytes.length - 1); at++) bytes[at] += one.bytes;
  }
  return Math.max(...bytes);
}

Deno.test("at four ranks, a rank has at most half of the keys and values that it has when they are gathered", () => {
  const batch = 1, seqLen = 32, mesh = meshOf({ cp: 4 }), llama = tinyLlama({ numLayers: 2 });
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f64" }), plan = boundPlan(llama, mesh, graphs);
  // Keys and values of a rank's tokens: 2 heads of 4.
  const slice = 2 * 8 * batch * (seqLen / 4) * 2 * 4;
  const slices = (name: keyof typeof graphs, pass: (graph: Graph) => Graph) =>
    peakOfKeys(pass(partition(graphs[name], mesh, plan)), mesh) / slice;
  const gathered = (graph: Graph) => graph;
  // One slice at work and one on its way, and all others.
  assertEquals([slices("evaluate", gathered), slices("evaluate", tileRing)], [4.5, 2]);
  // The own slices of both layers are kept for backward.
  assertEquals([slices("microbatch", gathered), slices("microbatch", tileRing)], [8.5, 4]);
});

Deno.test("what attention gives for one slice takes the place of what it gave for those before", () => {
  const mesh = meshOf({ cp: 4 }), graph = attentionGraph({ B: 1, T: 8, H: 2, G: 1, K: 2 }, bothWays);
  const local = graphOfRank(tileRing(partition(graph, mesh, layouts(mesh))), mesh, 1);
  const [{ places, spotOf }] = memory([materialize(local)], { threads: 1 }).sections;
  const results = [...places.of.keys()].filter((v) => producers(local).get(v)?.op === "attention");
  assertEquals(results.length, 8);
  assertEquals(new Set(results.map((v) => spotOf(places.of.get(v)!.base).offset)).size, 2);
});

Deno.test("the slice after the one at work is on its way, forward and backward", () => {
  const mesh = meshOf({ cp: 4 }), graph = attentionGraph({ B: 1, T: 8, H: 2, G: 1, K: 2 }, bothWays);
  const { nodes } = tileRing(partition(graph, mesh, layouts(mesh)));
  const made = new Map(nodes.flatMap((n) => n.outputs.map((v) => [v, n.op])));
  const text = nodes.filter((n) => /^attention|^ring_shift/.test(n.op)).map((n) => {
    if (n.op !== "ring_shift") return n.op;
    return ["attention_backward", "add"].includes(made.get(n.inputs[0]) ?? "") ? "gradients" : "keys";
  });
  const forward = "keys attention keys attention keys attention attention", step = "attention_backward gradients";
  assertEquals(text.join(" "), `${forward} keys keys ${step} keys ${step} ${step} attention_backward`);
});

Deno.test("keys are on their way while the gradient of what attention gave is made", () => {
  const llama = tinyLlama({ numLayers: 1 }), mesh = meshOf({ cp: 2 });
  const graphs = stepGraphs(llama, { batch: 1, seqLen: 8, dtype: "f64" }), plan = boundPlan(llama, mesh, graphs);
  const { nodes } = tileRing(partition(graphs.microbatch, mesh, plan));
  const at = (op: string, scope: RegExp) => nodes.findIndex((n) => n.op === op && scope.test(scopeText(n)));
  assert(at("ring_shift", /attention'$/) < at("contract", /attention\.wo'$/));
});

Deno.test("attention to keys that are not gathered stays as it is", () => {
  const graph = attentionGraph({ B: 1, T: 4, H: 2, G: 2, K: 2 }, bothWays), mesh = meshOf({ tp: 2 });
  const parts = partition(graph, mesh, layoutsFor({ inputs: { q: layout({ tp: shard(2) }) } }));
  assertEquals(print(tileRing(parts)), print(parts));
});

Deno.test("keys that go around without their values, or without their gradients, are refused", () => {
  const graph = attentionGraph({ B: 1, T: 4, H: 1, G: 1, K: 2 }, bothWays), mesh = meshOf({ cp: 2 });
  const refusal = (inputs: Record<string, Layout>) =>
    assertThrows(() => tileRing(partition(graph, mesh, layoutsFor({ inputs }))), TypeError).message;
  const rows = layout({ cp: shard(1) });
  assertMatch(
    refusal({ q: rows, k: rows }),
    /^Cannot let keys and values go around: values are not gathered like keys in/,
  );
  assertMatch(
    refusal({ k: rows, v: rows }),
    /: %\d+ is not scattered to where its keys came from in .*attention_backward/,
  );
});

Deno.test("golden: attention and its gradient, with gathered keys and with keys that go around", () => {
  const mesh = meshOf({ cp: 3 }), graph = attentionGraph({ B: 1, T: 6, H: 2, G: 1, K: 2 }, bothWays);
  const parts = partition(graph, mesh, layouts(mesh));
  golden("graph/tile_ring", `gathered\n\n${print(parts)}\naround\n\n${print(verify(tileRing(parts)))}`);
});
