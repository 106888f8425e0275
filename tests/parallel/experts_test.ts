/** A mixture of experts that the ranks of a mesh share out: no rule of `partition` knows of experts, so what comes of them is held here.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr } from "../../graph/array.ts";
import { print } from "../../graph/print.ts";
import { verify } from "../../graph/verify.ts";
import { layoutTextOn, type MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { compileGraphs, passes, type Ranks } from "../../train/compile.ts";
import { golden } from "../golden.ts";
import { SmallExperts } from "../model/experts.ts";
import { someRows } from "../model/tiny.ts";
import { type Behind, type Memories, rankGraphs, runBoth } from "./lockstep.ts";
import { boundPlan, collectivesOf, meshOf, stepGraphs } from "./step_graphs.ts";

const batch = 8, seqLen = 4;

/** The graphs of a step, and where everything lies on a mesh. */
function stepOn(options: MeshOptions, dtype: "f32" | "f64" = "f64") {
  const model = new SmallExperts(), mesh = meshOf(options), graphs = stepGraphs(model, { batch, seqLen, dtype });
  return { mesh, graphs, layouts: boundPlan(model, mesh, graphs) };
}

/** Two steps, of which every output and every state is compared. */
function checkSteps(options: MeshOptions, behind?: Behind): void {
  const { mesh, graphs, layouts } = stepOn(options);
  const memories: Memories = { whole: new Map(), ranks: Array.from({ length: mesh.size }, () => new Map()) };
  const run = (name: keyof typeof graphs, inputs: Record<string, Arr>) =>
    runBoth(graphs[name], mesh, layouts, {
      ...{ inputs, memories, tolerance: 1e-11 },
      graphs: rankGraphs(graphs[name], mesh, layouts, behind),
    });
  const rows = Object.entries(someRows(batch, seqLen, 64)).map(([name, data]) => [name, arr([batch, seqLen], data)]);
  run("initialize", { seed: arr([2], [1, 2]) });
  const losses = [1, 2].map((step) => {
    run("microbatch", Object.fromEntries(rows));
    return run("update", { lr: arr([], [0.01]), step: arr([], [step]) }).loss.data[0];
  });
  assert(losses[1] < losses[0], `${losses}`);
}

const meshes: readonly MeshOptions[] = [
  { dp_shard: 2, ep: 2 },
  { dp_shard: 4, ep: 2 },
  { dp_shard: 8, ep: 2 },
  { dp_shard: 2, cp: 2, ep: 4 },
  { cp: 4, ep: 2 },
  { dp_replicate: 2, dp_shard: 2, ep: 2 },
  { dp_shard: 2, tp: 2, ep: 2 },
];
for (const options of meshes) {
  Deno.test(`experts train as on one rank: ${JSON.stringify(options)}`, () => checkSteps(options));
}

Deno.test("passes behind partition keep what the graphs of a step mean", () => {
  const names = ["simplify", "tile", "remat", "reshard", "fuse", "group", "schedule"];
  const behind = passes().filter(({ name }) => names.includes(name));
  checkSteps({ dp_shard: 4, ep: 2 }, (graph) => behind.reduce((g, pass) => verify(pass.run(g)), graph));
});

Deno.test("every rank's part of a step has its kernels", () => {
  for (const [dtype, precision] of [["f64"], ["f32", { param: "bf16", reduce: "bf16", stored: "f32" }]] as const) {
    const { mesh, graphs, layouts } = stepOn({ dp_shard: 8, ep: 2 }, dtype);
    for (const rank of [0, 7]) {
      const ranks: Ranks = {
        partition: (graph) => partition(graph, mesh, layouts),
        graphOfRank: (graph) => graphOfRank(graph, mesh, rank),
      };
      const { program } = compileGraphs(Object.values(graphs), { threads: 1, ranks, precision });
      assertEquals(program.sections.map((s) => s.name), Object.keys(graphs));
    }
  }
});

/** Exchanges between the ranks of an axis in the microbatch's experts. */
function exchanges(options: MeshOptions, axis: string): Record<string, number> {
  const { mesh, graphs, layouts } = stepOn(options);
  return collectivesOf(partition(graphs.microbatch, mesh, layouts), axis, /^experts$/);
}

Deno.test("tokens go to their experts by one all_to_all and come back by another, and so do gradients", () => {
  const there = { all_to_all: 2, "all_to_all'": 2 };
  assertEquals(exchanges({ dp_shard: 2, ep: 2 }, "dp_shard"), there);
  assertEquals(exchanges({ dp_shard: 4, ep: 2 }, "dp_shard_in_ep"), there);
  assertEquals(exchanges({ dp_shard: 2, tp: 2, ep: 2 }, "dp_shard"), there);
  // Without ep, all experts come to where the tokens are.
  assertEquals(exchanges({ dp_shard: 2 }, "dp_shard"), { all_gather: 2, "reduce_scatter'": 2 });
});

Deno.test("gradients of experts are summed over the ranks that have the same experts alone", () => {
  assertEquals(exchanges({ dp_shard: 4, ep: 2 }, "dp_shard_mod_ep"), { all_gather: 2, "reduce_scatter'": 2 });
  const { graphs, layouts, mesh } = stepOn({ dp_replicate: 2, dp_shard: 2, ep: 2 });
  const text = (name: string) => layouts.state(graphs.microbatch.states.find((s) => s.name === name)!);
  assertEquals(layoutTextOn(mesh, text("gradient/experts.up")), "dp_shard: Shard(0), dp_replicate: Partial(sum)");
});

Deno.test("partition prints a microbatch of experts that ranks share out", () => {
  const { mesh, graphs, layouts } = stepOn({ dp_shard: 4, ep: 2 }, "f32");
  golden("parallel/experts", `${layouts}\n${print(verify(partition(graphs.microbatch, mesh, layouts)))}`);
});
