import { assertEquals } from "@std/assert";
import { f64, i32 } from "../../graph/builder.ts";
import type { DimRole, Graph } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { tinyLlama } from "../model/tiny.ts";
import { SmallExperts } from "../model/experts.ts";
import { dimRoles, inOrderOf } from "../../parallel/dim_roles.ts";
import { traceMicrobatch } from "../../train/step.ts";

/** A graph over rows of tokens `[2, 4, 6]` and a table `[6, 8]` that is nobody's. */
function graphOf(body: (x: Tensor, table: Tensor) => Tensor): Graph {
  return traceGraph("g", [], (builder) => {
    const roles: readonly DimRole[] = ["batch", "sequence", "features"];
    const x = new Tensor(builder, builder.input("x", f64(2, 4, 6), roles));
    return { y: body(x, new Tensor(builder, builder.input("table", f64(6, 8)))) };
  });
}

/** What the dims of the result count, `b t .` where they are a batch, a sequence and something else. */
function rolesOf(body: (x: Tensor, table: Tensor) => Tensor): string {
  const graph = graphOf(body), letters = { batch: "b", sequence: "t", features: "." };
  return dimRoles(graph).get(graph.outputs[0].value)!.map((role) => letters[role]).join(" ");
}

Deno.test("a dim counts what the dims of its label do, wherever it stands", () => {
  assertEquals(rolesOf((x) => x), "b t .");
  assertEquals(rolesOf((x, table) => x.contract("b t i, i o -> o t b", table)), ". t b");
  assertEquals(rolesOf((x) => x.transpose(0, 1).exp()), "t b .");
  assertEquals(rolesOf((x) => x.sum(1)), "b .");
  assertEquals(rolesOf((_, table) => table.mul(table)), ". .");
  assertEquals(rolesOf((x, table) => table.contract("i o, b t i -> b t o", x)), "b t .");
});

Deno.test("a dim of several counts what the outermost of them does", () => {
  assertEquals(rolesOf((x) => x.reshape("b t d -> b (t d)")), "b t");
  assertEquals(rolesOf((x) => x.transpose(1, 2).reshape("b d t -> b (d t)")), "b .");
  assertEquals(rolesOf((x) => x.reshape("b t d -> b (t d)").reshape("b (t d) -> b t d", { d: 6 })), "b t .");
  const one = traceGraph("g", [], (builder) => {
    const ids = new Tensor(builder, builder.input("ids", i32(1, 4), ["batch", "sequence"]));
    return { y: ids.transpose(0, 1) };
  });
  assertEquals(dimRoles(one).get(one.outputs[0].value), ["sequence", "batch"]);
});

Deno.test("sums along a sequence, parts of it and sequences that are joined go by the order of tokens", () => {
  const ordered = (body: (x: Tensor, table: Tensor) => Tensor) =>
    inOrderOf("sequence", graphOf(body)).map((node) => node.op);
  assertEquals(ordered((x) => x.cumsum(1)), ["cumsum"]);
  assertEquals(ordered((x) => x.transpose(0, 1).cumsum(0)), ["cumsum"]);
  assertEquals(ordered((x) => x.slice([0, 1, 0], [2, 3, 6])), ["slice"]);
  assertEquals(ordered((x) => x.concat([x], 1)), ["concat"]);
  assertEquals(
    ordered((x) => x.cumsum(0).cumsum(2).slice([1, 0, 1], [1, 4, 2]).concat([x.slice([0, 0, 0], [1, 4, 2])], 0)),
    [],
  );
  assertEquals(ordered((x, table) => table.cumsum(0).contract("i o, b t i -> b t o", x).softmax()), []);
});

Deno.test("a Llama goes by positions alone, experts that take tokens as they come do not", () => {
  const shape = { batch: 2, seqLen: 4, dtype: "f32", globalTokens: 8, documents: true } as const;
  assertEquals(inOrderOf("sequence", traceMicrobatch(tinyLlama(), shape)), []);
  const nodes = inOrderOf("sequence", traceMicrobatch(new SmallExperts(), shape));
  assertEquals(new Set(nodes.map((n) => `${n.op} of ${n.scope}`)), new Set(["cumsum of experts"]));
});
