import { assert, assertEquals } from "@std/assert";
import { f64 } from "../../../graph/builder.ts";
import type { Graph, Node, State } from "../../../graph/ir.ts";
import { group } from "../../../graph/passes/group.ts";
import { print, scopeText } from "../../../graph/print.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { partition } from "../../../parallel/partition.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { assertSameOnRanks } from "../../parallel/lockstep.ts";
import { randomPartitioned } from "../../parallel/random_layouts.ts";
import { boundPlan, meshGraph, meshOf, stepGraphs } from "../../parallel/step_graphs.ts";
import { forSeeds } from "../random_graphs.ts";

const collectives = ({ nodes }: Graph): Node[] => nodes.filter((n) => n.attrs.axes !== undefined);
/** `all_gather of 9 f32 @layers.0`. */
const textOf = (n: Node): string => `${n.op} of ${n.inputs.length} ${n.inputs[0].dtype} @${scopeText(n)}`;

Deno.test("ranks get the same bits from random graphs whose collectives are grouped", () => {
  let joined = 0;
  forSeeds(300, (seed) => {
    const { graph, mesh } = randomPartitioned(seed), after = group(graph);
    joined += collectives(graph).length - collectives(after).length;
    assertSameOnRanks(graph, after, mesh, seed);
  });
  assert(joined > 50, `${joined} collectives went into others`);
});

Deno.test("FSDP gathers a unit by one collective in forward and one in backward, and scatters its gradients by one", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "group");
  assertEquals(collectives(graph).map(textOf), [
    "all_gather of 1 f32 @tok_embeddings",
    "all_gather of 9 f32 @layers.0",
    "all_gather of 9 f32 @layers.1",
    "all_gather of 2 f32 @norm, output",
    "reduce_scatter of 2 f32 @output, norm'",
    "all_gather of 9 f32 @layers.1'",
    "reduce_scatter of 9 f32 @layers.1'",
    "all_gather of 9 f32 @layers.0'",
    "reduce_scatter of 9 f32 @layers.0'",
    "reduce_scatter of 1 f32 @tok_embeddings'",
  ]);
});

Deno.test("what travels as bf16 is a group of its own, and gradients are one in the type that they are reduced in", () => {
  const groups = (reduce: "f32" | "bf16") => {
    const precision = { param: "bf16", reduce, stored: "f32" } as const;
    return collectives(meshGraph("microbatch", { dp_shard: 2 }, "group", { precision }).graph).map(textOf)
      .filter((text) => text.includes("@layers.1"));
  };
  const gathers = (scope: string) => [`all_gather of 2 f32 @${scope}`, `all_gather of 7 bf16 @${scope}`];
  const expected = (reduce: string) => [
    ...gathers("layers.1"),
    ...gathers("layers.1'").toReversed(),
    `reduce_scatter of 9 ${reduce} @layers.1'`,
  ];
  assertEquals([groups("f32"), groups("bf16")], [expected("f32"), expected("bf16")]);
});

Deno.test("copies (DDP) reduce the sums of a unit by one collective, in the last microbatch", () => {
  const { graph } = meshGraph("microbatch", { dp_replicate: 2 }, "group");
  assertEquals(collectives(graph).map((n) => [textOf(n), n.attrs.last]), [
    ["all_reduce of 2 f32 @output, norm'", true],
    ["all_reduce of 9 f32 @layers.1'", true],
    ["all_reduce of 9 f32 @layers.0'", true],
    ["all_reduce of 1 f32 @tok_embeddings'", true],
  ]);
  // Of the loss and the number of tokens.
  assertEquals(collectives(meshGraph("update", { dp_replicate: 2 }, "group").graph).map((n) => n.inputs[0].shape), [
    [],
    [],
  ]);
});

Deno.test("sums that an update reads as summands are reduced there, a unit at a time", () => {
  const mesh = meshOf({ dp_replicate: 2 }), llama = tinyLlama();
  const graphs = stepGraphs(llama, { batch: 4, seqLen: 8, dtype: "f32" });
  const after = group(partition(graphs.update, mesh, boundPlan(llama, mesh, graphs)));
  assertEquals(collectives(after).map(textOf), [
    "all_reduce of 1 f32 @", // the number of tokens
    "all_reduce of 1 f32 @",
    "all_reduce of 9 f32 @layers.0",
    "all_reduce of 9 f32 @layers.1",
    "all_reduce of 2 f32 @norm, output",
    "all_reduce of 1 f32 @", // the loss
  ]);
});

Deno.test("collectives of activations stay where they are", () => {
  const own = (upTo: string) =>
    collectives(meshGraph("microbatch", { dp_shard: 2, tp: 2 }, upTo).graph)
      .filter((n) => String(n.attrs.axes) === "tp" && n.op !== "all_reduce").map(print1);
  assertEquals(own("group"), own("materialize"));
});
const print1 = (n: Node): string => `${n.op} ${n.inputs[0].shape} ${scopeText(n)}`;

Deno.test("with tensor parallelism the norms' gradients are scattered with the others, and then reduced together", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2, tp: 2 }, "group");
  const reductions = collectives(graph).filter((n) => scopeText(n) === "layers.1'" && n.op !== "all_gather");
  assertEquals(reductions.map((n) => `${textOf(n)} over ${n.attrs.axes}`), [
    "reduce_scatter of 9 f32 @layers.1' over dp_shard",
    "all_reduce of 2 f32 @layers.1' over tp",
  ]);
});

Deno.test("what depends on one another stays apart", () => {
  const states = ["a", "b"].flatMap((name): State[] => [
    { name, kind: "parameter", ...f64(4) },
    { name: `gradient/${name}`, kind: "gradient", of: `${name}`, ...f64(4) },
  ]);
  const graph = traceGraph("g", states, (builder) => {
    const read = (name: string) => new Tensor(builder, builder.read(name));
    const sum = (x: Tensor, axis: string) => x.apply("all_reduce", [], { axes: [axis], size: 2, by: "sum" })[0];
    // Two gradients that are reduced over the same axes in turns.
    builder.accumulate("gradient/a", sum(sum(read("a").exp(), "dp_shard"), "tp").value);
    builder.accumulate("gradient/b", sum(sum(read("b").exp(), "tp"), "dp_shard").value);
  }, "ranks");
  const after = group(graph);
  assertEquals(collectives(after).map((n) => [n.attrs.axes, n.inputs.length]), [
    [["dp_shard"], 1],
    [["tp"], 1],
    [["tp"], 1],
    [["dp_shard"], 1],
  ]);
  assertSameOnRanks(graph, after, meshOf({ dp_shard: 2, tp: 2 }), 1);
});

Deno.test("group leaves its graph alone, and one without collectives as it is", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "materialize"), text = print(graph);
  group(graph);
  assertEquals(print(graph), text);
  const single = meshGraph("microbatch", {}, "materialize").graph;
  assert(group(single) === single);
});
