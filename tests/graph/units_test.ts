import { assertEquals } from "@std/assert";
import { gradientOf, type Graph, type State } from "../../graph/ir.ts";
import { type Builder, f32 } from "../../graph/builder.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { transfersOf } from "../../graph/units.ts";
import { partition } from "../../parallel/partition.ts";
import { tinyLlama } from "../model/tiny.ts";
import { boundPlan, meshGraph, meshOf, stepGraphs } from "../parallel/step_graphs.ts";

/** `gather layers.0: 9`: how many transfers each unit has, in order. */
function unitsOf(graph: Graph): string[] {
  const units = [...Map.groupBy(transfersOf(graph), (t) => `${t.unit} of ${t.node.attrs.axes}`)];
  return units.map(([unit, list]) => `${unit}: ${list.length}`);
}

Deno.test("every block is a unit, and so is what lies before, between or behind blocks", () => {
  assertEquals(unitsOf(meshGraph("microbatch", { dp_shard: 2 }, "reshard").graph), [
    "gather outside 0 of dp_shard: 1",
    "gather layers.0 of dp_shard: 9",
    "gather layers.1 of dp_shard: 9",
    "gather outside 2 of dp_shard: 2",
    "reduction outside 0 of dp_shard: 2",
    "gather again layers.1 of dp_shard: 9",
    "reduction layers.1 of dp_shard: 9",
    "gather again layers.0 of dp_shard: 9",
    "reduction layers.0 of dp_shard: 9",
    "reduction outside 2 of dp_shard: 1",
  ]);
});

Deno.test("what activations need is no transfer; the sums of a gradient over tensor-parallel ranks are", () => {
  const { graph } = meshGraph("microbatch", { dp_shard: 2, tp: 2 }, "partition");
  assertEquals(unitsOf(graph).filter((unit) => unit.includes("tp")), [
    "reduction outside 0 of tp: 1",
    "reduction layers.1 of tp: 2",
    "reduction layers.0 of tp: 2",
  ]);
  const norms = transfersOf(graph).filter((t) => t.unit === "reduction layers.0" && t.node.scope.includes("norm"));
  assertEquals(norms.map((t) => [t.node.op, t.depth]), [
    ["reduce_scatter", 0],
    ["all_reduce", 1],
    ["reduce_scatter", 0],
    ["all_reduce", 1],
  ]);
});

Deno.test("sums that are reduced in their own memory are units too", () => {
  assertEquals(unitsOf(meshGraph("microbatch", { dp_replicate: 2 }, "reduce_sums").graph), [
    "sum outside 0 of dp_replicate: 2",
    "sum layers.1 of dp_replicate: 9",
    "sum layers.0 of dp_replicate: 9",
    "sum outside 2 of dp_replicate: 1",
  ]);
  assertEquals(unitsOf(meshGraph("update", { dp_replicate: 2 }, "reduce_sums").graph), []);
});

Deno.test("reductions may come from sums, and an update's other reductions are no transfers", () => {
  const mesh = meshOf({ dp_replicate: 2 }), llama = tinyLlama();
  const graphs = stepGraphs(llama, { batch: 4, seqLen: 8, dtype: "f32" });
  assertEquals(unitsOf(partition(graphs.update, mesh, boundPlan(llama, mesh, graphs))), [
    "reduction outside 0 of dp_replicate: 1",
    "reduction layers.0 of dp_replicate: 9",
    "reduction layers.1 of dp_replicate: 9",
    "reduction outside 2 of dp_replicate: 2",
  ]);
});

const w: State = { name: "blocks.0.w", kind: "parameter", block: "blocks.0", ...f32(2, 4) };
const over = (axis: string, more = {}) => ({ axes: [axis], size: 2, ...more });

/** A graph over one parameter and its gradient sum. */
function withParameter(body: (builder: Builder, w: Tensor) => Record<string, Tensor> | void): Graph {
  return traceGraph(
    "g",
    [w, gradientOf(w)],
    (builder) => body(builder, new Tensor(builder, builder.read("blocks.0.w"))),
  );
}

Deno.test("casts, views and copies belong to the transfer that they lead to, or come from", () => {
  const chain = (change: (w: Tensor) => Tensor) =>
    transfersOf(withParameter((builder, w) => {
      const [rows] = change(w).cast("bf16").apply("all_gather", [], over("dp", { dim: 0 }));
      const [whole] = rows.apply("all_gather", [], over("cp", { dim: 0 }));
      const [sum] = whole.apply("reduce_scatter", [], over("cp", { dim: 0, by: "sum" }));
      const [part] = sum.transpose(0, 1).transpose(0, 1).apply(
        "reduce_scatter",
        [],
        over("dp", { dim: 0 }),
      );
      builder.accumulate("gradient/blocks.0.w", part.cast("f32").value);
    })).map((t) => [t.kind, t.depth, t.module, t.links.map((n) => n.op)]);
  const reductions = [
    ["reduction", 0, "blocks.0", ["transpose", "transpose"]],
    ["reduction", 1, "blocks.0", ["cast", "accumulate"]],
  ];
  assertEquals(chain((w) => w), [["gather", 0, "blocks.0", ["cast"]], ["gather", 1, "blocks.0", []], ...reductions]);
  const copied = (w: Tensor) => w.apply("copy")[0];
  assertEquals(chain(copied)[0], ["gather", 0, "blocks.0", ["copy", "cast"]]);
  // Arithmetic makes a value of its own: that is not gathered for the parameter's sake.
  assertEquals(chain((w) => w.exp()), reductions);
});

Deno.test("a reduction that something else reads, too, is none of a gradient alone", () => {
  const graph = withParameter((builder, w) => {
    const [sum] = w.exp().apply("all_reduce", [], over("dp", { by: "sum" }));
    builder.accumulate("gradient/blocks.0.w", sum.value);
    return { sum };
  });
  assertEquals(transfersOf(graph), []);
  assertEquals(transfersOf({ ...graph, outputs: [] }).map((t) => t.kind), ["reduction"]);
});
