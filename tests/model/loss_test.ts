import { assertAlmostEquals, assertEquals } from "@std/assert";
import { f64, i32 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { CrossEntropy } from "../../model/loss.ts";

Deno.test("cross-entropy is a sum over the targets that are not ignored, and their number", () => {
  const graph = traceGraph("loss", [], (builder) => {
    const logits = new Tensor(builder, builder.input("logits", f64(1, 3, 2)));
    const targets = new Tensor(builder, builder.input("targets", i32(1, 3)));
    return { ...new CrossEntropy().forward(logits, targets) };
  });
  const { lossSum, count } = interpret(graph, {
    inputs: { logits: [0, Math.log(3), 9, 9, Math.log(7), 0], targets: [1, -100, 0] },
  });
  assertAlmostEquals(lossSum.data[0], Math.log(4 / 3) + Math.log(8 / 7), 1e-15);
  assertEquals(count.data[0], 2);
});
