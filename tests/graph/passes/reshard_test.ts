import { assert, assertEquals } from "@std/assert";
import { consumers, type Graph, inBackward, producers, type Value } from "../../../graph/ir.ts";
import { recomputedFlops, type RematPolicy } from "../../../graph/passes/remat.ts";
import { reshard } from "../../../graph/passes/reshard.ts";
import { print } from "../../../graph/print.ts";
import { transfersOf } from "../../../graph/units.ts";
import { assertSameOnRanks } from "../../parallel/lockstep.ts";
import { randomPartitioned } from "../../parallel/random_layouts.ts";
import { meshGraph } from "../../parallel/step_graphs.ts";
import { forSeeds } from "../random_graphs.ts";
import { isRemade } from "../origins.ts";

const policies: readonly RematPolicy[] = [
  { mode: "none" },
  { mode: "full" },
  { mode: "selective", option: 2 },
  { mode: "selective", option: "op" },
];

Deno.test("ranks get the same bits when random graphs gather again in backward", () => {
  let copied = 0;
  forSeeds(300, (seed) => {
    const { graph, mesh } = randomPartitioned(seed), after = reshard(graph);
    copied += after.nodes.filter(isRemade).length;
    assertSameOnRanks(graph, after, mesh, seed);
  });
  assert(copied > 15, `only ${copied} nodes are done again`);
});

/** Gathers of a graph by module of the parameter: in forward, and again in backward. */
function gathers(graph: Graph): { forward: string[]; again: string[] } {
  const nodes = transfersOf(graph).filter((t) => t.kind === "gather").map((t) => t.node);
  const modules = (copies: boolean) => nodes.filter((n) => isRemade(n) === copies).map((n) => n.scope).sort();
  return { forward: modules(false), again: modules(true) };
}

Deno.test("what blocks need is gathered again, the embedding and the last unit are not", () => {
  const { forward, again } = gathers(meshGraph("microbatch", { dp_shard: 2 }, "reshard").graph);
  const last = ["norm", "output", "tok_embeddings"];
  assertEquals([forward.length, again], [21, forward.filter((module) => !last.includes(module))]);
  assertEquals(
    gathers(meshGraph("microbatch", { dp_shard: 2 }, "fuse", { keepGathered: "microbatch" }).graph).again,
    [],
  );
});

for (const policy of policies) {
  const { mode } = policy, name = mode === "selective" ? `selective ${policy.option}` : mode;
  Deno.test(`activation checkpointing ${name}: gathers are made again, or kept, whatever it does`, () => {
    const remat = { remat: policy };
    const after = meshGraph("microbatch", { dp_shard: 2 }, "reshard", remat).graph;
    const kept = meshGraph("microbatch", { dp_shard: 2 }, "remat", remat).graph;
    assertEquals([gathers(after).again.length, gathers(kept).again.length], [18, 0]);
    // The same is made again beside them.
    assertEquals(recomputedFlops(after).recomputed, recomputedFlops(kept).recomputed);
    // No block's gathered parameter lives on into backward.
    const uses = consumers(after), made = producers(after);
    const root = (v: Value) => made.get(v)!;
    for (const { node } of transfersOf(after).filter((t) => t.kind === "gather" && !isRemade(t.node))) {
      const isLate = node.outputs.flatMap((v) => uses.get(v)!).some(inBackward);
      assert(!isLate || node.block === undefined, print(after));
      assert(root(node.inputs[0]).op === "read");
    }
  });
}

Deno.test("activation checkpointing keeps a rank's activations, not what it was sent", () => {
  const full = meshGraph("microbatch", { dp_shard: 2, tp: 2 }, "reshard", { remat: { mode: "full" } }).graph;
  const axes = full.nodes.filter((n) => isRemade(n) && n.attrs.axes !== undefined).map((n) =>
    `${n.op} ${n.attrs.axes}`
  );
  // Of each block: 9 parameters, and what its two halves gather of the sequence.
  assertEquals(axes.filter((a) => a === "all_gather dp_shard").length, 18);
  assertEquals(axes.filter((a) => a === "all_gather tp").length, 4);
});

Deno.test("what is rounded to bf16 before it travels is rounded again, and not kept", () => {
  const precision = { param: "bf16", reduce: "f32", stored: "f32" } as const;
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "reshard", { precision });
  const again = transfersOf(graph).filter((t) => t.kind === "gather" && isRemade(t.node));
  assertEquals(again.filter((t) => t.links.every(isRemade) && t.links.length === 1).length, 14);
  assertEquals(again.filter((t) => t.links.length === 0).length, 4); // norms
});

Deno.test("a graph without backward, or without gathers, stays as it is", () => {
  const forward = meshGraph("evaluate", { dp_shard: 2 }, "remat").graph;
  assertEquals(print(reshard(forward)), print(forward));
  const single = meshGraph("microbatch", {}, "remat").graph;
  assert(reshard(single) === single);
});
