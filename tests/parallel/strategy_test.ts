import { assertEquals } from "@std/assert";
import { Builder, f64, i32 } from "../../graph/builder.ts";
import type { Attrs, Node, Type } from "../../graph/ir.ts";
import { partial, type Placement, placementText } from "../../graph/layout.ts";
import { cutAlong, labelsOf, onSummands, whole } from "../../parallel/strategy.ts";

/** One node on inputs of the given types. */
function nodeOf(op: string, types: readonly Type[], attrs: Attrs = {}): Node {
  const builder = new Builder("g");
  builder.emit(op, types.map((type, i) => builder.input(`x${i}`, type)), attrs);
  return builder.nodes[0];
}

/** Each label that a node can be cut along, with where operands and results then are: `o: Replicate, Shard(0) -> Shard(1)`. */
function cuts(node: Node): string[] {
  const labels = labelsOf(node);
  if (!labels) return [];
  const all = new Set([...labels.inputs, ...labels.outputs].flat().filter((l) => l !== undefined));
  const text = (placements: readonly Placement[]) => placements.map(placementText).join(", ");
  return [...all].map((label) => {
    const { inputs, outputs } = cutAlong(node, labels, label, false);
    return `${label}: ${text(inputs)} -> ${text(outputs)}`;
  });
}

Deno.test("a product can be cut along each label, and gives summands where the result lacks it", () => {
  assertEquals(cuts(nodeOf("contract", [f64(2, 3), f64(4, 3)], { dims: "t i, o i -> t o" })), [
    "t: Shard(0), Replicate -> Shard(0)",
    "i: Shard(1), Shard(1) -> Partial(sum)",
    "o: Replicate, Shard(0) -> Shard(1)",
  ]);
});

Deno.test("a maximum that is taken over a cut dim is a maximum of maxima", () => {
  assertEquals(cuts(nodeOf("reduce", [f64(2, 3)], { dims: "a b -> a", kind: "max" })), [
    "a: Shard(0) -> Shard(0)",
    "b: Shard(1) -> Partial(max)",
  ]);
});

Deno.test("labels that an op must see whole, and dims that are cut out or joined, cannot be cut", () => {
  assertEquals(cuts(nodeOf("softmax", [f64(2, 3)])), ["...0: Shard(0) -> Shard(0)"]);
  assertEquals(cuts(nodeOf("slice", [f64(4, 3)], { starts: [1, 0], shape: [2, 3] })), ["dim1: Shard(1) -> Shard(1)"]);
  assertEquals(cuts(nodeOf("concat", [f64(4, 3), f64(4, 2)], { dim: 1 })), ["dim0: Shard(0), Shard(0) -> Shard(0)"]);
});

Deno.test("a dim of several labels is cut along the outermost that has a size", () => {
  const reshape = (sizes: Record<string, number>) =>
    cuts(nodeOf("reshape", [f64(2, 6)], { dims: "t (h k) -> t h k", sizes }));
  assertEquals(reshape({ h: 3 }), ["t: Shard(0) -> Shard(0)", "h: Shard(1) -> Shard(1)"]);
  assertEquals(reshape({ h: 1 }), ["t: Shard(0) -> Shard(0)", "k: Shard(1) -> Shard(2)"]);
});

Deno.test("attention is cut along batch, queries and heads; keys and values are whole for slices of queries", () => {
  const types = [f64(2, 4, 4, 2), f64(2, 4, 2, 2), f64(2, 4, 2, 2), i32(2, 4), i32(2, 4)];
  assertEquals(cuts(nodeOf("attention", types, { scale: 1 })), [
    "b: Shard(0), Shard(0), Shard(0), Shard(0), Shard(0) -> Shard(0), Shard(0)",
    "t: Shard(1), Replicate, Replicate, Shard(1), Replicate -> Shard(1), Shard(2)",
    "g: Shard(2), Shard(2), Shard(2), Replicate, Replicate -> Shard(2), Shard(1)",
  ]);
});

Deno.test("with one head of keys and values, the heads of queries are cut alone", () => {
  const types = [f64(2, 4, 4, 2), f64(2, 4, 1, 2), f64(2, 4, 1, 2), i32(2, 4), i32(2, 4)];
  assertEquals(
    cuts(nodeOf("attention", types, { scale: 1 })).at(-1),
    "r: Shard(2), Replicate, Replicate, Replicate, Replicate -> Shard(2), Shard(1)",
  );
});

Deno.test("rows of a table that each rank looks up in its slice are summands", () => {
  assertEquals(cuts(nodeOf("embedding", [i32(2, 3), f64(8, 4)])).slice(-2), [
    "v: Replicate, Shard(0) -> Partial(sum)",
    "d: Replicate, Shard(1) -> Shard(2)",
  ]);
});

Deno.test("what parts settle among themselves is whole on every rank", () => {
  const node = nodeOf("cross_entropy", [f64(3, 8), i32(3)], { ignore_index: -1 });
  assertEquals(cuts(node), [
    "...0: Shard(0), Shard(0) -> Partial(sum), Partial(sum), Shard(0)",
    "v: Shard(1), Replicate -> Replicate, Replicate, Replicate",
  ]);
});

Deno.test("a parameter is cut as its moments and its gradient are; several in one adamw are not cut", () => {
  const attrs = { beta1: 0, beta2: 0, eps: 0, weight_decay: 0 };
  const adamw = (...parameters: Type[]) =>
    cuts(nodeOf("adamw", [...Array<Type[]>(4).fill(parameters).flat(), f64(), f64(), f64()], attrs));
  const all = (placement: string, count: number) => Array(count).fill(placement).join(", ");
  assertEquals(
    adamw(f64(4, 2))[0],
    `dim0: ${all("Shard(0)", 4)}, ${all("Replicate", 3)} -> ${all("Shard(0)", 3)}`,
  );
  assertEquals(adamw(f64(4, 2), f64(4, 2)), []);
});

Deno.test("an op works on summands where it is linear in all that are", () => {
  const inputs = (op: string, isPartial: boolean[], attrs: Attrs = {}) =>
    onSummands(nodeOf(op, isPartial.map(() => f64(2)), attrs), isPartial)?.inputs.map(placementText);
  assertEquals(inputs("add", [true, false]), ["Partial(sum)", "Partial(sum)"]);
  assertEquals(inputs("mul", [false, true]), ["Replicate", "Partial(sum)"]);
  assertEquals(inputs("mul", [true, true]), undefined);
  assertEquals(inputs("div", [false, true]), undefined);
  assertEquals(inputs("exp", [true]), undefined);
  assertEquals(inputs("concat", [true, false], { dim: 0 }), ["Partial(sum)", "Partial(sum)"]);
  assertEquals(inputs("reduce", [true], { dims: "a -> ", kind: "sum" }), ["Partial(sum)"]);
  assertEquals(inputs("reduce", [true], { dims: "a -> ", kind: "max" }), undefined);
  assertEquals(onSummands(nodeOf("neg", [f64(2)]), [true])!.outputs, [partial()]);
});

Deno.test("an op that says nothing of slices is done whole", () => {
  const node = nodeOf("map", [f64(2)], {
    program: { constants: [], steps: [["neg", 0]], results: [1] },
    dtype: "f64",
    shape: [2],
  });
  assertEquals(labelsOf(node), undefined);
  assertEquals(whole(node).inputs.map(placementText), ["Replicate"]);
});
