import { assertEquals } from "@std/assert";
import { type Arr, arr } from "../../graph/array.ts";
import { f64 } from "../../graph/builder.ts";
import { interpret, interpretRanks, type Memory } from "../../graph/interpret.ts";
import type { State } from "../../graph/ir.ts";
import { partial, replicated } from "../../graph/layout.ts";
import { print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { graphOfRank } from "../../parallel/rank_graph.ts";
import { reduceSums, sumsGradients } from "../../parallel/reduce_sums.ts";
import { Random } from "../graph/random_graphs.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";
import { assertParts, scatter } from "./lockstep.ts";
import { boundPlan, meshGraph, meshOf, stepGraphs } from "./step_graphs.ts";

/** Two steps of three microbatches each, by all passes: parameters and the norm are those of one rank. */
function checkSteps(axes: MeshOptions): void {
  const batch = 4, seqLen = 8, llama = tinyLlama({ numLayers: 1 }), random = new Random(1);
  const graphs = stepGraphs(llama, { batch, seqLen, dtype: "f64" }), mesh = meshOf(axes);
  const layouts = boundPlan(llama, mesh, graphs), ranks = Array.from({ length: mesh.size }, (_, r) => r);
  const whole: Memory = new Map(), parts = ranks.map((): Memory => new Map());
  const run = (name: keyof typeof graphs, inputs: Record<string, Arr>, first = true, last = true) => {
    const { graph } = meshGraph(name, axes, "schedule", { model: { numLayers: 1 }, dtype: "f64" });
    const given = graphs[name].inputs.map((i) =>
      [i.name, scatter(inputs[i.name], layouts.input(i), mesh, random)] as const
    );
    const outputs = interpretRanks(
      ranks.map((r) => verify(graphOfRank(graph, mesh, r))),
      ranks.map((r) => ({
        inputs: Object.fromEntries(given.map(([name, list]) => [name, list[r]])),
        ...{ memory: parts[r], first, last },
      })),
    );
    return { outputs, expected: interpret(graphs[name], { inputs, memory: whole, first }) };
  };
  const rows = (shift: number) =>
    Object.fromEntries(
      Object.entries(someRows(batch, seqLen, 32)).map(([name, data]) => [
        name,
        arr([batch, seqLen], name === "tokens" ? data.map((t) => (t + shift) % 32) : data),
      ]),
    );
  run("initialize", { seed: arr([2], [1, 2]) });
  for (const step of [1, 2]) {
    for (const k of [0, 1, 2]) run("microbatch", rows(k), k === 0, k === 2);
    const { outputs, expected } = run("update", { lr: arr([], [0.01]), step: arr([], [step]) });
    for (const { grad_norm } of outputs) {
      assertParts([grad_norm], expected.grad_norm, replicated, meshOf({}), 1e-11, "norm");
    }
  }
  for (const state of layouts.states.values()) {
    if (state.kind !== "parameter" && state.kind !== "gradient") continue;
    const layout = state.kind === "gradient" ? layouts.reduced.state(state) : layouts.state(state);
    assertParts(parts.map((m) => m.get(state.name)!), whole.get(state.name)!, layout, mesh, 1e-11, state.name);
  }
}

Deno.test("copies that reduce their sums in the last microbatch train as one rank does", () =>
  checkSteps({ dp_replicate: 2 }));
Deno.test("copies of shards do", () => checkSteps({ dp_replicate: 2, dp_shard: 2 }));
Deno.test("copies of slices of tensors do", () => checkSteps({ dp_replicate: 2, tp: 2 }));

Deno.test("a microbatch that is not the last one exchanges no sums", () => {
  const { graph } = meshGraph("microbatch", { dp_replicate: 2 }, "reduce_sums"), mesh = meshOf({ dp_replicate: 2 });
  const graphs = [0, 1].map((rank) => graphOfRank(graph, mesh, rank)), rows = someRows(2, 8, 32);
  const sums = (last: boolean) => {
    const memories = graphs.map((): Memory => new Map());
    // Ranks with other tokens have other gradients.
    const inputs = [0, 1].map((rank) => ({ ...rows, tokens: rows.tokens.map((t) => (t + rank) % 32) }));
    interpretRanks(graphs, memories.map((memory, rank) => ({ memory, last, inputs: inputs[rank] })));
    return memories.map((m) => m.get("gradient/output.weight")!.data);
  };
  const [[a, b], [c, d]] = [sums(false), sums(true)];
  assertEquals([c, d], Array(2).fill(a.map((x, i) => x + b[i])));
});

Deno.test("a sum that two nodes add to is reduced behind the second", () => {
  const state: State = { name: "gradient/w", kind: "gradient", of: "w", ...f64(4) }, mesh = meshOf({ dp_replicate: 2 });
  const graph = traceGraph("microbatch", [state], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(4)));
    for (const y of [x, x.exp()]) builder.accumulate(state.name, y.value);
  });
  const reduced = reduceSums(graph, mesh, () => new Map([["dp_replicate", partial()]]));
  assertEquals(reduced.nodes.map((n) => n.op), ["exp", "accumulate", "accumulate", "read", "all_reduce", "assign"]);
});

Deno.test("graphs that add up no gradients, and sums that no rank has for itself, stay as they are", () => {
  const llama = tinyLlama(), mesh = meshOf({ dp_shard: 2 });
  const graphs = stepGraphs(llama, { batch: 4, seqLen: 8, dtype: "f32" }), layouts = boundPlan(llama, mesh, graphs);
  assertEquals(Object.values(graphs).filter(sumsGradients).map((g) => g.name), ["microbatch"]);
  const { graph } = meshGraph("microbatch", { dp_shard: 2 }, "fuse");
  assertEquals(print(reduceSums(graph, mesh, (state) => layouts.state(layouts.states.get(state.name)!))), print(graph));
});
