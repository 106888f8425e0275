import { assertEquals } from "@std/assert";
import { f64, i32 } from "../../../../graph/builder.ts";
import { autodiff } from "../../../../graph/passes/autodiff.ts";
import { simplify } from "../../../../graph/passes/simplify.ts";
import { orderedAttention } from "../../../../graph/target/cuda/ordered_attention.ts";
import { Tensor } from "../../../../graph/tensor.ts";
import { traceGraph } from "../../../../graph/trace.ts";
import { verify } from "../../../../graph/verify.ts";
import { assertSameMeaning } from "../../random_graphs.ts";

Deno.test("attention is in order where queries and keys have the positions that one input counts, and no documents", () => {
  const isOrdered = (kind: "counted" | "given" | "of keys" | "documents") => {
    const forward = traceGraph("g", [], (builder) => {
      const [q, k, v] = ["q", "k", "v"].map((name) => new Tensor(builder, builder.input(name, f64(2, 3, 2, 2))));
      const integers = (name: string, counts?: true) =>
        new Tensor(builder, builder.input(name, i32(2, 3), undefined, counts));
      const positions = integers("positions", kind === "given" ? undefined : true);
      const ofKeys = kind === "of keys" ? integers("key positions", true) : positions;
      const documents = kind === "documents", ids = documents ? Array(2).fill(integers("documents")) : [];
      const [o] = q.apply("attention", [k, v, positions, ofKeys, ...ids], { scale: 0.7, documents });
      return { loss: o.square().sum() };
    });
    const before = simplify(autodiff(forward, { of: "loss", inputs: ["q"] })), after = verify(orderedAttention(before));
    assertSameMeaning(before, after, 1);
    return ["attention", "attention_backward"].map((op) =>
      after.nodes.find((n) => n.op === op)!.attrs.ordered ?? false
    );
  };
  assertEquals(isOrdered("counted"), [true, true]);
  for (const kind of ["given", "of keys", "documents"] as const) assertEquals(isOrdered(kind), [false, false], kind);
});
