import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { interpret, type Memory } from "../../graph/interpret.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { verify } from "../../graph/verify.ts";
import { Linear } from "../../model/layers.ts";
import type { Batch, LossSum } from "../../model/loss.ts";
import { Llama } from "../../model/llama.ts";
import { traceEvaluate, traceEvaluateResult, traceMicrobatch } from "../../train/step.ts";
import { initialized, type Rows, someRows, tinyLlama } from "../model/tiny.ts";

const seqLen = 5, batch = 8, globalTokens = seqLen * batch, model = tinyLlama();
const rows = someRows(batch, seqLen, 32);

/** Rows `from` to `from + count`. */
function part({ tokens, targets, positions }: Rows, from: number, count: number): Rows {
  const cut = (x: number[]): number[] => x.slice(from * seqLen, (from + count) * seqLen);
  return { tokens: cut(tokens), targets: cut(targets), positions: cut(positions) };
}

/** State after the microbatches of one step. */
function accumulate(memory: Memory, size: number): Memory {
  const graph = verify(traceMicrobatch(model, { batch: size, seqLen, dtype: "f64", globalTokens }));
  for (let row = 0; row < batch; row += size) {
    interpret(graph, { inputs: part(rows, row, size), memory, first: row === 0 });
  }
  return memory;
}

Deno.test("four microbatches of two rows add up to one of eight", () => {
  const whole = accumulate(initialized(model), 8), parts = accumulate(initialized(model), 2);
  const sums = [...whole.keys()].filter((name) =>
    name.startsWith("gradient/") || name === "loss_sum" || name === "token_count"
  );
  assertEquals(sums.length, 23);
  for (const name of sums) {
    const expected = whole.get(name)!.data, size = Math.max(...expected.map(Math.abs));
    assert(size > 0, `${name} is not zero`);
    parts.get(name)!.data.forEach((x, i) => assertAlmostEquals(x, expected[i], 1e-12 * size, name));
  }
});

Deno.test("the first microbatch of a step forgets the step before", () => {
  const memory = accumulate(initialized(model), 2), again = accumulate(new Map(memory), 2);
  for (const [name, { data }] of memory) assertEquals(again.get(name)!.data, data, name);
});

Deno.test("ignored targets are not counted", () => {
  const memory = accumulate(initialized(model), 8);
  assertEquals(memory.get("token_count")!.data[0], rows.targets.filter((t) => t !== -100).length);
  assert(rows.targets.includes(-100), "some are ignored");
});

Deno.test("an evaluation gives the mean loss of training's own forward and leaves its sums alone", () => {
  const memory = accumulate(initialized(model), 8);
  const graph = verify(traceEvaluate(model, { batch: 4, seqLen, dtype: "f64" }));
  const untouched = new Map(memory);
  for (const row of [0, 4]) interpret(graph, { inputs: part(rows, row, 4), memory, first: row === 0 });
  const result = interpret(verify(traceEvaluateResult("f64")), { memory });
  const [lossSum, count] = ["loss_sum", "token_count"].map((name) => memory.get(name)!.data[0]);
  assertAlmostEquals(result.loss.data[0], lossSum / count, 1e-12);
  assertEquals(result.token_count.data[0], count);
  for (const [name, { data }] of untouched) assertEquals(memory.get(name)!.data, data, name);
});

Deno.test("an evaluation has no gradient and answers through its sums alone", () => {
  const graph = traceEvaluate(model, { batch: 4, seqLen, dtype: "f64" });
  assertEquals(graph.states.filter((s) => s.kind === "gradient"), []);
  assertEquals(graph.nodes.filter((n) => n.scope.endsWith("'")), []);
  assertEquals(graph.outputs, []);
});

Deno.test("the inputs are i32 rows, with documents where they are asked for", () => {
  const inputs = (documents: boolean): string[] => {
    const graph = traceMicrobatch(model, { batch: 2, seqLen, dtype: "f32", documents, globalTokens });
    return graph.inputs.map(({ name, value }) => `${name} ${value.dtype}[${value.shape}]`);
  };
  assertEquals(inputs(false), ["tokens i32[2,5]", "targets i32[2,5]", "positions i32[2,5]"]);
  assertEquals(inputs(true), ["tokens i32[2,5]", "targets i32[2,5]", "positions i32[2,5]", "documents i32[2,5]"]);
});

Deno.test("a parameter that the loss does not depend on is an error that names it", () => {
  class Idle extends Llama {
    readonly sideHead: Linear = new Linear(4, 4);
  }
  const idle = new Idle(tinyLlama().config);
  const run = () => traceMicrobatch(idle, { batch: 1, seqLen, dtype: "f32", globalTokens });
  assertThrows(
    run,
    TypeError,
    `Cannot train "side_head.weight": no gradient, since the loss of Idle does not depend on it`,
  );
});

Deno.test("a model of one's own needs nothing but a loss", () => {
  class Bigram extends Llama {
    override loss({ tokens, targets }: Batch): LossSum {
      const x_BTD: Tensor = this.tokEmbeddings.forward(tokens);
      let y = this.norm.forward(x_BTD);
      for (const layer of this.layers) y = layer.feedForward.forward(layer.ffnNorm.forward(y));
      return this.crossEntropy.forward(this.output.forward(y), targets);
    }
  }
  const graph = verify(traceEvaluate(new Bigram(tinyLlama().config), { batch: 1, seqLen, dtype: "f64" }));
  assertEquals(graph.nodes.filter((n) => n.op === "attention"), []);
  assertEquals(graph.nodes.filter((n) => n.scope === "layers.1.feed_forward.w2").map((n) => n.op), [
    "read",
    "contract",
  ]);
});
