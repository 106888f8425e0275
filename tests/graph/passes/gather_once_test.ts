import { assert, assertEquals } from "@std/assert";
import type { Graph, Node } from "../../../graph/ir.ts";
import { gatherOnce } from "../../../graph/passes/gather_once.ts";
import { memory } from "../../../graph/passes/memory.ts";
import { scopeText } from "../../../graph/print.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { transfersOf } from "../../../graph/units.ts";
import { exchangesOf } from "../../../parallel/exchanges.ts";
import { assertSameOnRanks } from "../../parallel/lockstep.ts";
import { randomPartitioned } from "../../parallel/random_layouts.ts";
import { meshGraph } from "../../parallel/step_graphs.ts";
import { forSeeds } from "../random_graphs.ts";

const marked = ({ nodes }: Graph): Node[] => nodes.filter((n) => n.attrs.first);
/** The microbatch of a small Llama whose parameters are in two shards. */
const kept = (keepGathered: "microbatch" | "step", upTo: string) =>
  meshGraph("microbatch", { dp_shard: 2 }, upTo, { keepGathered }).graph;

Deno.test("ranks get the same bits from random graphs whose gathers are those of the first microbatch", () => {
  let changed = 0;
  forSeeds(300, (seed) => {
    const { graph, mesh } = randomPartitioned(seed), after = gatherOnce(graph);
    changed += marked(after).length;
    assertSameOnRanks(graph, after, mesh, seed);
  });
  assert(changed > 50, `${changed} gathers are done once`);
});

Deno.test("all gathers of parameters are marked, unit by unit, and nothing else is", () => {
  assertEquals(marked(kept("step", "group")).map((n) => `${n.op} of ${n.inputs.length} @${scopeText(n)}`), [
    "all_gather of 1 @tok_embeddings",
    "all_gather of 9 @layers.0",
    "all_gather of 9 @layers.1",
    "all_gather of 2 @norm, output",
  ]);
  const exchanges = (keep: "microbatch" | "step") =>
    exchangesOf(kept(keep, "group"), { runs: 5 }).map(({ op, count }) => `${count} ${op}`);
  assertEquals([exchanges("microbatch")[0], exchanges("step")[0]], ["20 all_gather", "4 all_gather"]);
});

Deno.test("an evaluation, whose parameters are others than those of the step before, gathers for itself", () => {
  const { graph } = meshGraph("evaluate", { dp_shard: 2 }, "fuse");
  assert(transfersOf(graph).some((t) => t.kind === "gather"));
  assertEquals(marked(gatherOnce(graph)), []);
});

Deno.test("what is gathered once lies where no section writes anything else", () => {
  const names = ["microbatch", "evaluate", "update"] as const;
  const graphs = names.map((name) =>
    meshGraph(name, { dp_shard: 2 }, "materialize", { keepGathered: "step", model: { numLayers: 3 } }).graph
  );
  const plan = memory(graphs, { target: cpu, threads: 1 }), [{ gathered }] = plan.sections;
  const end = Math.max(...plan.sections.flatMap((s) => s.allocations).map((b) => b.offset + b.bytes));
  const byPlace = gathered.toSorted((a, b) => a.offset - b.offset);
  byPlace.forEach((b, i) => assert(b.offset >= (i === 0 ? end : byPlace[i - 1].offset + byPlace[i - 1].bytes)));
  const bytes = gathered.reduce((n, b) => n + b.bytes, 0), parameters = 2 * plan.categories.parameter;
  assert(bytes > 0.9 * parameters && bytes <= 1.1 * parameters, `${bytes} of ${parameters}`);
  assert(plan.categories.gathered >= bytes && plan.arenaBytes >= byPlace.at(-1)!.offset + byPlace.at(-1)!.bytes);
});
