import { assertEquals, assertThrows } from "@std/assert";
import { Embedding, Linear } from "../../model/layers.ts";
import { type Batch, CrossEntropy } from "../../model/loss.ts";
import { Module } from "../../model/module.ts";
import { layoutText } from "../../graph/layout.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { generationGraphs } from "../../train/generate/graphs.ts";
import { bindRanks, dataRankOf } from "../../train/ranks.ts";
import { stepGraphs } from "../../train/step_plan.ts";
import { SmallExperts } from "../model/experts.ts";
import { tinyLlama } from "../model/tiny.ts";
import { meshOf } from "../parallel/step_graphs.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const sizes = { optimizer, dtype: "f32", batch: 2, seqLen: 8, accumulation: 3 } as const;

/** A model that nobody knows. */
class Own extends Module {
  readonly first = new Embedding(32, 8);
  readonly second = new Linear(8, 16);
  readonly #loss = new CrossEntropy();
  loss({ tokens, targets }: Batch) {
    return this.#loss.forward(this.second.forward(this.first.forward(tokens)), targets);
  }
}

Deno.test("data ranks are numbered over dp_replicate and dp_shard, whatever the other axes", () => {
  const mesh = meshOf({ dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 });
  const all = Array.from({ length: 16 }, (_, rank) => dataRankOf(mesh, rank));
  assertEquals(all.map((r) => r.dataRank), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
  assertEquals(new Set(all.map((r) => r.dataRanks)), new Set([4]));
});

Deno.test("the graphs of a step are over the batches of all data ranks", () => {
  const mesh = meshOf({ dp_replicate: 3, dp_shard: 2, cp: 2 });
  const graphs = stepGraphs({ model: tinyLlama(), ...sizes, ranks: { mesh, rank: 7 } });
  assertEquals(graphs.find((g) => g.name === "microbatch")!.inputs[0].value.shape, [12, 8]);
});

Deno.test("a model without a plan is shared out by the data axes, and refused by tp with what to give", () => {
  const model = new Own(), mesh = meshOf({ dp_shard: 2 });
  const graphs = stepGraphs({ model, ...sizes, ranks: { mesh, rank: 0 } });
  const { layouts } = bindRanks(model, graphs, { mesh, rank: 0 });
  assertEquals(
    `${layouts}`.split("\n")[0],
    "first.weight [32,8]: stored dp_shard: Shard(0); used Replicate; gradient dp_shard: Shard(0)",
  );
  assertThrows(
    () => bindRanks(model, graphs, { mesh: meshOf({ tp: 2 }), rank: 0 }),
    RangeError,
    "Cannot cut Own over tp, 2 ranks: expected a plan that names the parameters to cut; give the model a property plan",
  );
  const plan = {
    parameters: [{ pattern: "first.weight", role: "table", parts: 32 }],
    logits: "second",
    residual: ["batch", "sequence", "features"],
  } as const;
  const own = bindRanks(model, graphs, { mesh: meshOf({ tp: 2 }), rank: 0, plan }).layouts;
  assertEquals(
    `${own}`.split("\n")[0],
    "first.weight [32,8]: stored tp: Shard(0); used tp: Shard(0); gradient tp: Shard(0)",
  );
});

Deno.test("ranks for experts are refused where the plan names none, with what to do", () => {
  const model = tinyLlama(), mesh = meshOf({ dp_shard: 2, ep: 2 });
  const graphs = stepGraphs({ model, ...sizes, ranks: { mesh, rank: 0 } });
  assertThrows(
    () => bindRanks(model, graphs, { mesh, rank: 0 }),
    RangeError,
    "Cannot share out the experts of Llama over ep, 2 ranks: expected a plan that names parameters of the role expert; " +
      "name them in the model's property plan, or leave parallelism.expert_parallel_degree at 1",
  );
});

Deno.test("what goes by the order of tokens is refused on ranks that are given them in another, and not in theirs", () => {
  const model = new SmallExperts(), mesh = meshOf({ cp: 2 });
  const graphs = stepGraphs({ model, ...sizes, ranks: { mesh, rank: 0 } });
  assertThrows(
    () => bindRanks(model, graphs, { mesh, rank: 0 }),
    RangeError,
    'Cannot share out sequences over cp, 2 ranks, in an order that balances attention, since "cumsum" of experts goes by the ' +
      "order of tokens: expected work that goes by positions; set context_parallel_load_balancer to None (balancer: null), " +
      "or leave parallelism.context_parallel_degree at 1",
  );
  bindRanks(model, graphs, { mesh, rank: 0, balancer: null });
  bindRanks(model, graphs, { mesh: meshOf({ dp_shard: 2 }), rank: 0 });
});

Deno.test("hidden exchanges of tp without sequence parallelism are refused", () => {
  const model = tinyLlama(), mesh = meshOf({ tp: 2 }), layout = { mesh, rank: 0, asyncTensorParallel: true };
  const graphs = stepGraphs({ model, ...sizes, ranks: { mesh, rank: 0 } });
  assertEquals(bindRanks(model, graphs, layout).asyncAxis, "tp");
  const refused = () => bindRanks(model, graphs, { ...layout, sequenceParallel: false });
  assertThrows(refused, RangeError, "leave sequenceParallel at true");
});

/** A Llama's graphs of generation, bound to a mesh. */
function generation(options: MeshOptions, model = tinyLlama()) {
  const graphs = generationGraphs(model, { sequences: 3, maxLength: 40, dtype: "f64" });
  return { graphs, ranks: bindRanks(model, graphs, { mesh: meshOf(options), rank: 0 }) };
}

Deno.test("tp cuts caches by heads, and no other axis cuts them, nor what is read", () => {
  const { graphs: [decode], ranks } = generation({ dp_shard: 2, cp: 2, tp: 2 });
  const caches = decode.states.filter((s) => s.kind === "cache");
  assertEquals(caches.map((s) => layoutText(ranks.layouts.state(s))), Array(4).fill("tp: Shard(2)"));
  const local = ranks.partition(decode);
  assertEquals(local.inputs.map((i) => i.value.shape), decode.inputs.map((i) => i.value.shape));
  assertEquals(local.outputs.map((o) => o.value.shape), [[3, 32]]);
});

Deno.test("a token takes two sums over tp in each block, one for the embedding, and one gather of logits", () => {
  const { graphs: [decode], ranks } = generation({ tp: 2 }), { nodes } = ranks.partition(decode);
  const count = (op: string) => nodes.filter((n) => n.op === op).length;
  assertEquals([count("all_reduce"), count("all_gather")], [2 * 2 + 1, 1]);
});

Deno.test("heads that tp cannot share out are refused", () => {
  const model = tinyLlama({ numHeads: 4, numKvHeads: 1 });
  assertThrows(() => generation({ tp: 2 }, model), RangeError, "is 1 parts that belong together");
});
