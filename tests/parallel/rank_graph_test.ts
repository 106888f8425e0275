import { assert, assertEquals } from "@std/assert";
import { Builder, f64, i32 } from "../../graph/builder.ts";
import type { Attrs, Graph } from "../../graph/ir.ts";
import { encode } from "../../graph/passes/encode.ts";
import { verify } from "../../graph/verify.ts";
import { graphOfRank, rankNumber } from "../../parallel/rank_graph.ts";
import { orderOf, unordered } from "../graph/order.ts";
import { forSeeds } from "../graph/random_graphs.ts";
import { randomPartitioned } from "./random_layouts.ts";
import { meshOf } from "./step_graphs.ts";
import { materialize, memory } from "../graph/passes/on_cpu.ts";

const mesh = meshOf({ dp_shard: 2, tp: 2 });

/** A graph of all ranks with one node. */
function graphOf(op: string, attrs: Attrs, type = f64(4, 6)): Graph {
  const builder = new Builder("g");
  builder.output("y", builder.emit(op, [builder.input("x", type)], attrs)[0]);
  return builder.finish();
}

/** Op and attributes on each of the four ranks. */
const ranks = (graph: Graph) =>
  [0, 1, 2, 3].map((rank) => {
    const { nodes } = verify(graphOfRank(graph, mesh, rank));
    return nodes.map(({ op, attrs }) => [op, attrs]);
  });

Deno.test("collectives are told their group, in the order of their axes", () => {
  const graph = graphOf("all_reduce", { axes: ["tp", "dp_shard"], size: 4, by: "sum" });
  assertEquals(ranks(graph).map(([[, attrs]]) => (attrs as Attrs).group), Array(4).fill([0, 2, 1, 3]));
  const pairs = graphOf("all_gather", { axes: ["tp"], size: 2, dim: 0 });
  assertEquals(ranks(pairs).map(([[, attrs]]) => (attrs as Attrs).group), [[0, 1], [0, 1], [2, 3], [2, 3]]);
});

Deno.test("a slice by rank is a slice", () => {
  const graph = graphOf("slice_by_rank", { axes: ["tp", "dp_shard"], size: 4, dim: 0 });
  const slice = (start: number) => [["slice", { starts: [start, 0], shape: [1, 6] }]];
  assertEquals(ranks(graph), [slice(0), slice(2), slice(1), slice(3)]);
});

Deno.test("a slice by rank may be that of a rank before it in the ring", () => {
  const graph = graphOf("slice_by_rank", { axes: ["tp", "dp_shard"], size: 4, dim: 0, back: 3 });
  assertEquals(ranks(graph).map(([[, attrs]]) => (attrs as Attrs).starts), [[1, 0], [3, 0], [2, 0], [0, 0]]);
});

Deno.test("pieces in the order of the ring are put into that of the group", () => {
  const builder = new Builder("g"), pieces = ["a", "b", "c", "d"].map((name) => builder.input(name, f64(1, 2)));
  builder.output("y", builder.emit("concat_by_rank", pieces, { axes: ["tp", "dp_shard"], size: 4, dim: 0 })[0]);
  const graph = builder.finish();
  // Ranks 0 to 3 are at 0, 2, 1 and 3 of the group: "a" is their own piece, "b" that of the one before.
  const order = [0, 1, 2, 3].map((rank) => {
    const { nodes: [node], inputs } = verify(graphOfRank(graph, mesh, rank));
    assertEquals([node.op, node.attrs], ["concat", { dim: 0 }]);
    return node.inputs.map((v) => inputs.find((i) => i.value === v)!.name).join("");
  });
  assertEquals(order, ["adcb", "cbad", "badc", "dcba"]);
});

Deno.test("what the first rank keeps is the value itself there, and zeros elsewhere", () => {
  const zeros = [["constant", { value: 0, dtype: "f64", shape: [4, 6] }]];
  assertEquals(ranks(graphOf("keep_on_first", { axes: ["tp"], size: 2 })), [[], zeros, [], zeros]);
  assertEquals(ranks(graphOf("keep_on_first", { axes: ["dp_shard", "tp"], size: 4 })), [[], zeros, zeros, zeros]);
});

Deno.test("numbers that depend on the rank become plain, and others stay", () => {
  const starts = [rankNumber(1, [{ axes: ["tp"], step: 10 }, { axes: ["dp_shard"], step: 100 }]), rankNumber(7, [])];
  const attrs = {
    kind: "uniform",
    name: "w",
    dtype: "f64",
    shape: [2, 2],
    whole: [300, 9],
    ends: [300, 9],
    a: 0,
    b: 1,
  };
  const graph = graphOf("random", { ...attrs, starts }, i32(2));
  assertEquals(ranks(graph).map(([[, a]]) => a), [1, 11, 101, 111].map((n) => ({ ...attrs, starts: [n, 7] })));
});

Deno.test("streams of random graphs on random meshes never meet in memory, from one action to the next", () => {
  let waits = 0;
  forSeeds(60, (seed) => {
    const { graph, mesh } = randomPartitioned(seed);
    for (const rank of new Set([0, mesh.size - 1])) {
      const own = materialize(graphOfRank(graph, mesh, rank));
      const sections = orderOf(encode(memory([own], { threads: 1 })).bytes);
      waits += sections.flat().reduce((n, i) => n + i.waits.length, 0);
      assertEquals(unordered(sections, [0, 0, 0]), []);
    }
  });
  assert(waits > 100, `only ${waits} waits`);
});
