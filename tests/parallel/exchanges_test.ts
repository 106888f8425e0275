import { assertEquals, assertStringIncludes } from "@std/assert";
import { group } from "../../graph/passes/group.ts";
import { exchangesOf, exchangesText } from "../../parallel/exchanges.ts";
import { partition } from "../../parallel/partition.ts";
import { tinyLlama } from "../model/tiny.ts";
import { boundPlan, meshGraph, meshOf, stepGraphs } from "./step_graphs.ts";

const model = tinyLlama({ numLayers: 1 }), graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });

Deno.test("collectives alike are counted together, with the bytes that each rank sends", () => {
  const mesh = meshOf({ dp_shard: 2, tp: 2 });
  // What a rank of tp uses of the parameters, in halves; 6 times 2 rows of 4 tokens; losses of 2 rows of 8 tokens, and norms.
  const parameters = 2 * 32 * 16 / 2 + 16 * (16 + 8 + 8 + 16 + 3 * 24) / 2 + 3 * 16,
    sharded = `${parameters / 2 * 4} bytes`;
  const sequence = `${6 * 2 * 4 * 16 * 4} bytes`, reduced = `${3 * 2 * 8 * 4 + 3 * 8 * 4} bytes`;
  assertEquals(
    exchangesText(partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs))),
    `12 all_gather over dp_shard (2 ranks), f32: ${sharded} sent by each\n` +
      `6 reduce_scatter over tp (2 ranks), f32: ${sequence} sent by each\n` +
      `6 all_gather over tp (2 ranks), f32: ${sequence} sent by each\n` +
      `5 all_reduce of 6 tensors over tp (2 ranks), f32: ${reduced} sent by each\n` +
      `12 reduce_scatter over dp_shard (2 ranks), f32: ${sharded} sent by each\n`,
  );
});

Deno.test("a collective of several tensors is one", () => {
  const mesh = meshOf({ dp_shard: 2 }), parts = partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs));
  const [whole, grouped] = [parts, group(parts)].map((g) => exchangesOf(g)[0]);
  assertEquals([whole.count, whole.tensors, grouped.count], [12, 12, 3]);
  assertEquals({ ...grouped, count: 12 }, whole);
  assertStringIncludes(exchangesText(group(parts)), "3 all_gather of 12 tensors over dp_shard (2 ranks), f32: ");
});

Deno.test("what runs often is counted often, and what only the last microbatch does once", () => {
  const { graph } = meshGraph("microbatch", { dp_replicate: 2, dp_shard: 2 }, "schedule");
  const counts = (runs: number) => exchangesOf(graph, { runs }).map((e) => [e.op, e.count, e.tensors]);
  assertEquals(
    [counts(1), counts(3), counts(0)],
    [[1, 1], [3, 1], [0, 0]].map(([each, last]) => [
      ["all_gather", 6 * each, 39 * each],
      ["reduce_scatter", 4 * each, 21 * each],
      ["all_reduce", 4 * last, 21 * last],
    ]),
  );
});

Deno.test("an update of one rank says nothing", () => {
  const mesh = meshOf({});
  assertEquals(exchangesOf(partition(graphs.update, mesh, boundPlan(model, mesh, graphs))), []);
});

Deno.test("collectives of different places, and in one place of as many tensors, are told apart where that is asked for", () => {
  const mesh = meshOf({ tp: 2 }), graph = partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs));
  const places = exchangesOf(graph, { placeOf: ({ scope }) => scope }).filter((e) =>
    e.where.startsWith("cross_entropy")
  );
  assertEquals(places.map(({ where, op, count, tensors }) => [where, op, count, tensors]), [
    ["cross_entropy", "all_reduce", 1, 1],
    ["cross_entropy", "all_reduce", 1, 2],
  ]);
});
