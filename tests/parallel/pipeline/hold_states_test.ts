import { assert, assertEquals } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { interpret, interpretRanks, type Memory } from "../../../graph/interpret.ts";
import type { Graph, State } from "../../../graph/ir.ts";
import { replicated } from "../../../graph/layout.ts";
import { verify } from "../../../graph/verify.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { partition } from "../../../parallel/partition.ts";
import { holdStates } from "../../../parallel/pipeline/hold_states.ts";
import { graphOfRank } from "../../../parallel/rank_graph.ts";
import { traceInitialize, traceUpdate } from "../../../train/optimizer.ts";
import { initialized, tinyLlama } from "../../model/tiny.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const model = tinyLlama({ tiedEmbeddings: true }), mesh = new Mesh({ pp: 3, dp_shard: 1 }, 3);
const whole = {
  state: () => replicated,
  used: () => replicated,
  input: () => replicated,
  activation: () => replicated,
  residual: () => replicated,
};

/** Blocks on the first two ranks, the norm on the last, and the table of the embedding, which is the head's too, on the first and last. */
const holders = ({ kind, name, of = name }: State): readonly number[] => {
  if (kind === "sum") return [2];
  if (of === "tok_embeddings.weight") return [0, 2];
  return [of.startsWith("layers.0") ? 0 : of.startsWith("layers.1") ? 1 : 2];
};

/** @param parts sums of gradients that the first rank has beside its own. */
const onRanks = (graph: Graph, parts: readonly State[] = []): Graph[] => {
  const ranks = partition(verify(graph), mesh, whole);
  return [0, 1, 2].map((at) => {
    const held = holdStates(ranks, { holders, at, size: 3, parts: at === 0 ? parts : [] });
    return verify(graphOfRank(verify(held), mesh, at));
  });
};

Deno.test("an update by stages is that of one rank: one norm, one loss, and one gradient of what two ranks have", () => {
  const graph = traceUpdate(model, { ...optimizer, dtype: "f64", globalTokens: 32 }), alone = initialized(model);
  alone.set("loss_sum", arr([], [70])).set("token_count", arr([], [30]));
  for (const { name, shape, kind } of graph.states) {
    const value = arr(shape);
    if (kind === "gradient") alone.set(name, arr(shape, value.data.map((_, i) => Math.sin(i + name.length))));
  }
  const memories = [0, 1, 2].map((at): Memory =>
    new Map(
      graph.states.filter((s) => holders(s).includes(at)).map((s) => {
        const value = alone.get(s.name) ?? arr(s.shape), parts = s.kind === "gradient" ? holders(s).length : 1;
        return [s.name, arr(s.shape, value.data.map((x) => x / parts))];
      }),
    )
  );
  // Two stages of the first rank have a part of the table's gradient, a quarter and three.
  const table = graph.states.find((s) => s.kind === "gradient" && s.of === "tok_embeddings.weight")!;
  const part: State = { ...table, name: `${table.name} of microbatch.1` }, { data: own } = memories[0].get(table.name)!;
  memories[0].set(table.name, arr(table.shape, own.map((x) => x / 4)));
  memories[0].set(part.name, arr(table.shape, own.map((x) => 3 * x / 4)));
  const inputs = { lr: [0.1], step: [1] }, expected = interpret(graph, { inputs, memory: alone });
  const found = interpretRanks(onRanks(graph, [part]), memories.map((memory) => ({ inputs, memory })));
  for (const outputs of found) {
    for (const [name, { data }] of Object.entries(expected)) {
      assert(
        Math.abs(outputs[name].data[0] - data[0]) < 1e-12,
        `${name}: ${outputs[name].data[0]}, expected ${data[0]}`,
      );
    }
  }
  for (const memory of memories) {
    for (const [name, { data }] of memory) {
      if (name.startsWith("gradient/")) continue;
      const { data: whole } = alone.get(name)!;
      assert(data.every((x, i) => Math.abs(x - whole[i]) < 1e-12), name);
    }
  }
});

Deno.test("a rank gives first values to what it has, and to nothing else", () => {
  const graph = traceInitialize(model, "f64"), alone: Memory = new Map();
  interpret(graph, { inputs: { seed: [1, 2] }, memory: alone });
  const all = onRanks(graph).map((own, at) => {
    const memory: Memory = new Map();
    interpret(own, { inputs: { seed: [1, 2] }, memory });
    assertEquals(
      [...memory.keys()].sort(),
      graph.states.filter((s) => holders(s).includes(at)).map((s) => s.name).sort(),
    );
    return memory;
  });
  for (const memory of all) for (const [name, value] of memory) assertEquals(value, alone.get(name), name);
});
