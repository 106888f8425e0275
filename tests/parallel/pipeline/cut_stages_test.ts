import { assertEquals } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { i32 } from "../../../graph/builder.ts";
import { touchedStates } from "../../../graph/edit.ts";
import { stateUse } from "../../../graph/facts.ts";
import { type Graph, numel } from "../../../graph/ir.ts";
import { print } from "../../../graph/print.ts";
import { interpret, type Memory } from "../../../graph/interpret.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { verify } from "../../../graph/verify.ts";
import { assignStages } from "../../../parallel/pipeline/assign_stages.ts";
import { cutStages, separateSums } from "../../../parallel/pipeline/cut_stages.ts";
import { stagesOf } from "../../../parallel/pipeline/stages.ts";
import { golden } from "../../golden.ts";
import { bind, Module, parameter, parameterStates } from "../../../model/module.ts";
import { type Batch, CrossEntropy } from "../../../model/loss.ts";
import { Embedding, Linear } from "../../../model/layers.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { inStages } from "./stage_runs.ts";

/** A block that reads what the first block has made, too. */
class Block extends Module {
  readonly product = new Linear(8, 8);
  forward(x: Tensor, first: Tensor): Tensor {
    return this.product.forward(x).add(first);
  }
}

/** Three blocks in a row, of which the last reads the first one's result again. */
class Skipping extends Module {
  readonly embed = new Embedding(16, 8);
  readonly blocks = [new Block(), new Block(), new Block()];
  readonly scale = parameter([8], { kind: "constant", value: 1 });
  readonly head = new Linear(8, 16);
  readonly entropy = new CrossEntropy();
  loss({ tokens, targets }: Batch) {
    const x = this.embed.forward(tokens), [a, b, c] = this.blocks;
    const first = a.forward(x, x), second = b.forward(first, first);
    return this.entropy.forward(this.head.forward(c.forward(second, first).mul(this.scale())), targets);
  }
}

Deno.test("what a stage reads of the one before it has in a state of its slot, and puts what the next one reads into another", () => {
  const { cut: { graphs, up, down } } = inStages(tinyLlama({ numLayers: 2 }), { count: 2 });
  assertEquals([up.length, up[0].sent.map((s) => s.name), up[0].received.map((s) => s.name)], [
    1,
    ["microbatch.0/activation_out"],
    ["microbatch.1/activation_in"],
  ]);
  assertEquals([down[0], down[1]!.sent.map((s) => s.name)], [undefined, ["microbatch.1/gradient_out"]]);
  assertEquals(up[0].sent[0].roles, ["batch", "sequence", "features"]);
  assertEquals(graphs.map(({ name, slot }) => [name, slot]), [["microbatch.0", "microbatch.0"], [
    "microbatch.1",
    "microbatch.1",
  ]]);
  golden("parallel/stages", graphs.map((g) => print(g)).join("\n"));
});

Deno.test("all stages have the same inputs, and each only the states that it touches", () => {
  const { cut: { graphs } } = inStages(tinyLlama({ numLayers: 4 }), { count: 4, documents: true });
  for (const graph of graphs) {
    assertEquals(graph.inputs.map((i) => i.name), ["tokens", "targets", "positions", "documents"]);
    const touched = new Set(graph.nodes.flatMap((n) => touchedStates(n)));
    const others = graph.states.filter((s) => !touched.has(s.name)).map((s) => s.name);
    assertEquals(others, []);
  }
  const blocks = graphs.map((g) => [...new Set(g.nodes.flatMap((n) => n.block ?? []))]);
  assertEquals(blocks, [["layers.0"], ["layers.1", "layers.2"], ["layers.3"], []]);
});

Deno.test("a value for a stage further on goes through those between, and so does its gradient", () => {
  const { cut: { graphs, up, down } } = inStages(new Skipping(), { count: 3, firstLess: 0, lastLess: 0 });
  assertEquals(up.map(({ sent }) => sent.length), [1, 2]);
  assertEquals(down.map((b) => b?.sent.length), [undefined, 1, 2]);
  const passing = graphs[1].nodes.filter((n) => stateUse(n) === "replaces" && n.phase === "forward");
  assertEquals(passing.length, 2);
});

Deno.test("what a graph gives the host is in states of the last stage, whichever stage makes it", () => {
  const model = new Skipping(), parameters = parameterStates(model, "f64");
  const stages = stagesOf(parameters, { count: 3, firstLess: 0, lastLess: 0 });
  const whole = verify(traceGraph("next", [], (builder) => {
    const tokens = new Tensor(builder, builder.input("tokens", i32(2, 4))), [a, b] = model.blocks;
    return bind(model, { builder, dtype: "f64" }, () => {
      const x = model.embed.forward(tokens), early = a.forward(x, x);
      return { early, late: b.forward(early, early), tokens };
    });
  }));
  const inputs = { tokens: [3, 1, 4, 1, 5, 9, 2, 6] };
  const memory: Memory = new Map(parameters.map(({ name, shape }, p) => {
    return [name, arr(shape, Array.from({ length: numel(shape) }, (_, i) => Math.sin(7 * i + p)))];
  }));
  const { graphs, up, results } = cutStages(assignStages(whole, stages), 3);
  for (const [stage, graph] of graphs.entries()) {
    assertEquals(interpret(verify(graph), { inputs, memory }), {});
    up[stage]?.sent.forEach(({ name }, i) => memory.set(up[stage].received[i].name, memory.get(name)!));
  }
  assertEquals(results.map(({ state }) => [state.of, memory.get(state.name)]), [
    ...Object.values(interpret(whole, { inputs, memory })).map((value) => ["next.2", value]),
  ]);
  assertEquals(results.map((r) => r.name), ["early", "late", "tokens"]);
  assertEquals(graphs[0].states.some((s) => s.name === "embed.weight"), true);
});

Deno.test("of a rank's stages, each has a sum of its own for a gradient that several have a part of", () => {
  const { cut: { graphs } } = inStages(tinyLlama({ numLayers: 2, tiedEmbeddings: true }), { count: 2 });
  const sums = (list: readonly Graph[]) =>
    list.map((g) =>
      g.nodes.filter((n) => stateUse(n) === "adds" && touchedStates(n)[0].startsWith("gradient/tok_embeddings"))
        .map((n) => [touchedStates(n)[0], n.attrs.begin])
    );
  assertEquals(sums(separateSums(graphs)), [
    [["gradient/tok_embeddings.weight of microbatch.0", true]],
    [["gradient/tok_embeddings.weight", true]],
  ]);
  assertEquals(sums(separateSums([graphs[0]])), [[["gradient/tok_embeddings.weight", true]]]);
});
