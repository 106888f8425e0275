import { assert, assertEquals } from "@std/assert";
import { touchedStates } from "../../../graph/edit.ts";
import { consumers, type Graph, type Node, sizeBytes } from "../../../graph/ir.ts";
import { encode } from "../../../graph/passes/encode.ts";
import { group } from "../../../graph/passes/group.ts";
import { reshard } from "../../../graph/passes/reshard.ts";
import { schedule } from "../../../graph/passes/schedule.ts";
import { print, scopeText } from "../../../graph/print.ts";
import { transfersOf } from "../../../graph/units.ts";
import type { MeshOptions } from "../../../parallel/mesh.ts";
import { graphOfRank } from "../../../parallel/rank_graph.ts";
import { golden } from "../../golden.ts";
import { assertSameOnRanks } from "../../parallel/lockstep.ts";
import { randomPartitioned } from "../../parallel/random_layouts.ts";
import { meshGraph } from "../../parallel/step_graphs.ts";
import { forSeeds } from "../random_graphs.ts";
import { decode } from "./decode.ts";
import { isRemade } from "../origins.ts";
import { memory } from "./on_cpu.ts";

Deno.test("ranks get the same bits from random graphs in another order", () => {
  let moved = 0;
  forSeeds(300, (seed) => {
    const { graph, mesh } = randomPartitioned(seed), grouped = group(reshard(graph));
    const after = schedule(grouped, { prefetch: 1 + seed % 3 });
    moved += Number(after.nodes.some((n, i) => n !== grouped.nodes[i]));
    assertSameOnRanks(grouped, after, mesh, seed);
  });
  assert(moved > 100, `only ${moved} graphs were ordered anew`);
});

/** Where a graph's gathers stand and where they are used first and last, in order of use. */
function gathersOf(graph: Graph): { at: number; first: number; last: number }[] {
  const uses = consumers(graph), position = new Map(graph.nodes.map((n, i) => [n, i]));
  return transfersOf(graph).filter((t) => t.kind === "gather").map(({ node }) => {
    const used = node.outputs.flatMap((v) => uses.get(v)!).map((n) => position.get(n)!);
    return { at: position.get(node)!, first: Math.min(...used), last: Math.max(...used) };
  }).sort((a, b) => a.first - b.first);
}

/** Does nothing stand between two positions that reads parameters alone? */
const onlyReads = ({ nodes }: Graph, from: number, to: number): boolean =>
  nodes.slice(from, to).every((n) => n.op === "read" || n.attrs.axes !== undefined);

for (const prefetch of [1, 2, 3]) {
  Deno.test(`a unit is gathered where the use of the one ${prefetch} before it begins, in forward and in backward`, () => {
    const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "schedule", { model: { numLayers: 4 }, prefetch });
    const gathers = gathersOf(graph);
    assertEquals(gathers.length, 6 + 4);
    gathers.forEach(({ at }, k) => {
      const begins = k < prefetch ? 0 : gathers[k - prefetch].first;
      assert(
        k < prefetch ? onlyReads(graph, 0, at) : at < begins && onlyReads(graph, at, begins),
        `gather ${k} at ${at}`,
      );
    });
    for (let i = 0; i < graph.nodes.length; i++) {
      const there = gathers.filter(({ at, last }) => at <= i && i <= last).length;
      assert(there <= prefetch + 1, `${there} units are gathered at node ${i}`);
    }
  });
}

Deno.test("gradients of a unit travel while the next unit's are made, and are then added", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "schedule", { model: { numLayers: 3 } });
  const position = new Map(graph.nodes.map((n, i) => [n, i])), uses = consumers(graph);
  const reductions = graph.nodes.filter((n) => n.op === "reduce_scatter");
  assertEquals(reductions.length, 5);
  reductions.forEach((node, k) => {
    const at = position.get(node)!, next = position.get(reductions[k + 1]) ?? graph.nodes.length;
    const sums = node.outputs.flatMap((v) => uses.get(v)!).map((n) => position.get(n)!).sort((a, b) => a - b);
    assertEquals(sums, sums.map((_, i) => next - sums.length + i));
    if (k < 4) assert(graph.nodes.slice(at, sums[0]).some((n) => n.op === "contract" || n.op === "embedding_backward"));
  });
});

Deno.test("sums of copies are reduced as soon as their last summand is there, and in their own memory", () => {
  const { graph, mesh } = meshGraph("microbatch", { dp_replicate: 2, dp_shard: 2 }, "schedule");
  const position = new Map(graph.nodes.map((n, i) => [n, i]));
  const added = (unit: RegExp) =>
    graph.nodes.filter((n) => n.op === "accumulate" && touchedStates(n).some((s) => unit.test(s))).map((n) =>
      position.get(n)!
    );
  for (
    const [scope, unit] of [["layers.1'", /^gradient\/layers\.1/], [
      "output, norm'",
      /^gradient\/(norm|output)/,
    ]] as const
  ) {
    const reduced = position.get(graph.nodes.find((n) => n.attrs.last && scopeText(n) === scope)!)!;
    assert(graph.nodes.slice(Math.max(...added(unit)) + 1, reduced).every((n) => n.op === "read"), scope);
  }
  const [section] = memory([graphOfRank(graph, mesh, 0)], { threads: 1 }).sections;
  assertEquals(section.allocations.filter((b) => b.label.startsWith("all_reduce")), []);
  assertEquals(section.inPlaceAssigns.size, 21);
});

Deno.test("without prefetch ranks compute and exchange in turns", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "group");
  assert(schedule(graph, { prefetch: 0 }) === graph);
  for (const { at, first } of gathersOf(graph)) {
    assert(onlyReads(graph, at + 1, first), `a gather at ${at} for ${first}`);
  }
});

/** A microbatch of FSDP as a program of rank 0: its memory, and its instructions. */
function program(axes: MeshOptions, options: Parameters<typeof meshGraph>[3] = {}) {
  const { graph, mesh } = meshGraph("microbatch", axes, "schedule", options);
  const plan = memory([graphOfRank(graph, mesh, 0)], { threads: 1 });
  return { plan, instructions: decode(encode(plan).bytes).sections[0].instructions };
}

for (
  const [param, axes] of [
    ["f32", { dp_shard: 2 }],
    ["bf16", { dp_shard: 2 }],
    ["f32", { dp_replicate: 2, dp_shard: 2 }],
    ["f32", { dp_replicate: 2 }],
  ] as const
) {
  const name = `${param} units over ${Object.keys(axes)}`;
  Deno.test(`kernels wait for the collectives of ${name} where they need what these make, and for no other reason`, () => {
    const precision = { param, reduce: "f32", stored: "f32" } as const;
    const { instructions } = program(axes, { model: { numLayers: 4 }, precision });
    // What comes behind is that of an earlier action.
    const awaited = instructions.flatMap((instruction, i) =>
      instruction.stream === 0
        ? instruction.waits.map((w) => w.instruction).filter((w) => w < i).map((wait) => ({ instruction, wait }))
        : []
    );
    for (const { instruction, wait } of awaited) {
      const { operands } = instructions[wait];
      const made = operands.slice(operands.length / 2).map((o) => o!.offset);
      assert(
        instruction.operands.some((o) => o && o.space === "arena" && made.includes(o.offset)),
        `${instruction.kernel} of ${instruction.scope} waits for memory`,
      );
    }
    const gathers = instructions.filter((i) => i.kernel === "all_gather").length;
    assert(awaited.length >= gathers, `${awaited.length} waits for ${gathers} gathers`);
  });
}

Deno.test("a rank holds its part of the parameters, and as many gathered units as are prefetched and one more", () => {
  const model = { numLayers: 4 }, unit = 4 * (16 * (16 + 8 + 8 + 16 + 3 * 24) + 2 * 16), edge = 4 * (32 * 16 + 16);
  const held = (options: Parameters<typeof meshGraph>[3]) => {
    const { plan } = program({ dp_shard: 2 }, { model, ...options }), [{ allocations }] = plan.sections;
    const gathered = allocations.filter((b) => b.label.startsWith("all_gather"));
    const most = allocations.map(({ first }) =>
      gathered.filter((b) => b.first <= first && first <= b.last).reduce((n, b) => n + b.bytes, 0)
    );
    const states = [...plan.states.values()].map((s) => s.state).filter((s) => s.kind === "parameter");
    return { parameters: states.reduce((n, s) => n + sizeBytes(s), 0), most: Math.max(...most) };
  };
  const whole = 4 * unit + edge + 4 * 32 * 16;
  assertEquals(held({}).parameters, whole / 2);
  assertEquals([0, 1, 2].map((prefetch) => held({ prefetch }).most), [unit, 2 * unit, 3 * unit]);
  // Kept since forward: all but the embedding, which backward does not read.
  assertEquals(held({ keepGathered: "microbatch" }).most, 4 * unit + edge);
});

/** `all_gather of 9 @layers.0`: collectives and what is beside them, other nodes as `...`. */
function outline(graph: Graph): string[] {
  const line = (n: Node): string => {
    const [state] = touchedStates(n);
    if (n.attrs.axes !== undefined) {
      return `${n.op} of ${n.inputs.length}  @${scopeText(n)}${isRemade(n) ? ", again" : ""}`;
    }
    if (n.op === "accumulate" && state.startsWith("gradient/")) {
      return `  add gradients of ${state.split(".").slice(0, 2).join(".").slice(9)}`;
    }
    return n.op === "read" ? "" : `  compute ${scopeText(n).split(".").slice(0, 2).join(".").replace(/(\w)$/, "$1")}`;
  };
  const lines = graph.nodes.map(line).filter((l) => l !== "").map((l) =>
    l.replace(/(compute \w+\.\d+)\b.*?('?)$/, "$1$2")
  );
  return lines.filter((l, i) => l !== lines[i - 1]);
}

Deno.test("a step of two blocks before and after", () => {
  const columns = ["group", "schedule"].map((upTo) => outline(meshGraph("microbatch", { dp_shard: 2 }, upTo).graph));
  const rows = Array.from(
    { length: Math.max(...columns.map((c) => c.length)) },
    (_, i) => columns.map((c) => c[i] ?? ""),
  );
  golden("graph/schedule", rows.map(([a, b]) => `${a.padEnd(48)}${b}`.trimEnd() + "\n").join(""));
});

Deno.test("schedule leaves its graph alone, and one without transfers as it is", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "group"), text = print(graph);
  schedule(graph);
  assertEquals(print(graph), text);
  const single = meshGraph("microbatch", {}, "materialize").graph;
  assert(schedule(single) === single);
});
