import { assertAlmostEquals, assertEquals } from "@std/assert";
import { f64 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { trace } from "../../graph/trace.ts";
import { FeedForward, feedForwardHiddenDim } from "../../model/feed_forward.ts";
import { bind } from "../../model/module.ts";

Deno.test("the hidden width follows Llama's rule", () => {
  assertEquals(feedForwardHiddenDim(256, { multipleOf: 256 }), 768);
  assertEquals(feedForwardHiddenDim(4096, { multipleOf: 1024, multiplier: 1.3 }), 14336);
  assertEquals(feedForwardHiddenDim(8192, { multipleOf: 4096, multiplier: 1.3 }), 28672);
  assertEquals(feedForwardHiddenDim(16384, { multipleOf: 4096, multiplier: 1.2 }), 53248);
  assertEquals(feedForwardHiddenDim(5120, { multipleOf: 256 }), 13824);
  assertEquals(feedForwardHiddenDim(3, { multipleOf: 8 }), 8);
});

Deno.test("SwiGLU gates w3 by silu of w1", () => {
  const block = new FeedForward({ dim: 1, hiddenDim: 1 });
  const graph = trace((x: Tensor) => bind(block, x, () => block.forward(x)), f64(1, 1, 1));
  const weight = (name: string, x: number) => [`${name}.weight`, { shape: [1, 1], data: Float64Array.of(x) }] as const;
  const memory = new Map([weight("w1", 2), weight("w2", 3), weight("w3", 5)]);
  const { y0 } = interpret(graph, { inputs: { x0: [0.5] }, memory });
  assertAlmostEquals(y0.data[0], 3 * (1 / (1 + Math.exp(-1))) * 2.5, 1e-15);
});
