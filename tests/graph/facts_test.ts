import { assert, assertEquals } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { f32 } from "../../graph/builder.ts";
import { fillOf, isGather, isLink, isReduction, isViewOp, onlyPlaces, rowsOf, stateUse } from "../../graph/facts.ts";
import type { Graph, Node } from "../../graph/ir.ts";
import { defineOp, type Op } from "../../graph/op.ts";
import { ops } from "../../graph/ops/mod.ts";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { precision } from "./passes/on_cpu.ts";

const all = [...ops.values()], named = (test: (op: Op) => unknown) => all.filter(test).map((op) => op.name).sort();
const node = (op: string, attrs: Node["attrs"] = {}): Node => ({
  op,
  attrs,
  inputs: [],
  outputs: [],
  phase: "forward",
  scope: "",
});

/** Runs a test with one op more. */
function withOp(op: Op, fn: () => void): void {
  (ops as Map<string, Op>).set(op.name, op);
  try {
    fn();
  } finally {
    (ops as Map<string, Op>).delete(op.name);
  }
}

const isStored = (graph: Graph): unknown =>
  precision(graph, { ...fullPrecision, param: "bf16" }).nodes.find((n) => n.op === "contract")!.attrs.bf16;
const productReadBy = (op: string) =>
  traceGraph("g", [], (builder) => {
    const [x, w] = [0, 1].map((i) => new Tensor(builder, builder.input(`x${i}`, f32(2, 2))));
    return { y: x.contract("a b, b c -> a c", w).apply(op)[0] };
  });

Deno.test("a product keeps its f32 sums for an op whose record says nothing, and is rounded for one that takes that", () => {
  const op = defineOp({ name: "norm_of_tomorrow", dims: "... d -> ... d", integers: [] });
  withOp(op, () => assertEquals(isStored(productReadBy(op.name)), undefined));
  withOp({ ...op, takesRounded: true }, () => assertEquals(isStored(productReadBy(op.name)), [0]));
});

Deno.test("an op whose record says nothing is no view, no link, no step of a map, and needs all rows", () => {
  withOp({ name: "new" }, () => {
    const it = node("new");
    assertEquals([isViewOp("new"), onlyPlaces("new"), isLink(it), isGather(it), isReduction(it)], Array(5).fill(false));
    assertEquals([rowsOf("new"), stateUse(it), fillOf(it)], [undefined, undefined, undefined]);
  });
});

Deno.test("an op has the attribute round if its record says how it multiplies in bf16, and only then", () => {
  assertEquals(named((op) => op.rounding), named((op) => op.attrs?.round));
});

Deno.test("what is element-wise works row by row along any dim", () => {
  assertEquals(named((op) => op.elementwise && rowsOf(op.name) !== "dims"), []);
});

Deno.test("operands that may change places do so to the last bit, and what adds is a sum", () => {
  const [a, b] = [arr([3], [1, 0.1, -7]), arr([3], [3, 0.2, 1e-3])], type = [f32(3)];
  const result = (op: Op, ...operands: typeof a[]) => [...op.reference!(operands, {}, type)[0].data];
  for (const op of all) if (op.commutes) assertEquals(result(op, a, b), result(op, b, a), op.name);
  for (const op of all) if (op.adds) assertEquals(result(op, a, b), [4, 0.1 + 0.2, -7 + 1e-3], op.name);
  assert(all.some((op) => op.commutes) && all.some((op) => op.adds));
});

Deno.test("what writes a value in another way needs nothing of other ranks, and what ranks exchange does", () => {
  assertEquals(named((op) => isLink(node(op.name)) && op.together), []);
  assertEquals(named((op) => op.exchange && !op.together), []);
});

Deno.test("a reshape shows its operand's memory, and tells how to make the operand where the result shall lie", () => {
  const operand = { id: 0, ...f32(6) }, attrs = { dims: "(a b) -> a b", sizes: { a: 2, b: 3 } };
  const reshape: Node = { ...node("reshape", attrs), inputs: [operand], outputs: [{ id: 1, ...f32(2, 3) }] };
  const { view, madeAs } = ops.get("reshape")!, dense = { offset: 4, shape: [6], strides: [1] };
  const shown = view!(reshape, dense);
  assertEquals(shown, { offset: 4, shape: [2, 3], strides: [3, 1] });
  assertEquals(madeAs!(reshape, shown!), dense);
  // Rows that lie apart cannot be made as one.
  assertEquals(madeAs!(reshape, { offset: 0, shape: [2, 3], strides: [8, 1] }), undefined);
});

Deno.test("what makes any box alone is told which one, and a fill is what the reference fills with", () => {
  assertEquals(named((op) => op.boxed && !["whole", "starts", "ends"].every((k) => k in op.attrs!)), []);
  const attrs = { value: 3, dtype: "f32", shape: [2] };
  for (const op of all) {
    if (op.fill) {
      assertEquals(
        [...op.reference!([], attrs, [f32(2)])[0].data],
        [3, 3].map(() => op.fill!(attrs)),
      );
    }
  }
  assertEquals(fillOf(node("constant", attrs)), 3);
});

Deno.test("an op that changes states has an effect, and one that only reads them has none", () => {
  assertEquals(named((op) => op.states && op.states !== "reads"), named((op) => op.effect));
});
