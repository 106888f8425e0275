import { assertEquals, assertThrows } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { f32, f64, i32, opOf } from "../../../graph/builder.ts";
import { interpretRanks } from "../../../graph/interpret.ts";
import { type Attrs, type Graph, type Type, typeText } from "../../../graph/ir.ts";
import { sentBytes } from "../../../graph/ops/collective.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";

/** One collective over the ranks of `group`, as each of them sees it. */
function collective(op: string, type: Type, attrs: Attrs, group: readonly number[] = [0, 1]): Graph {
  return traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", type));
    return { y: x.apply(op, [], { axes: ["tp"], size: group.length, group, ...attrs })[0] };
  });
}

/** What each of two ranks has afterwards. */
function results(op: string, shape: number[], attrs: Attrs, inputs: number[][]): number[][] {
  const graph = collective(op, f64(...shape), attrs);
  return interpretRanks([graph, graph], inputs.map((x) => ({ inputs: { x } }))).map((out) => [...out.y.data]);
}

Deno.test("all_gather puts the pieces one after another along its dim", () => {
  assertEquals(results("all_gather", [2, 1], { dim: 1 }, [[1, 2], [3, 4]]), [[1, 3, 2, 4], [1, 3, 2, 4]]);
  assertEquals(results("all_gather", [1, 2], { dim: 0 }, [[1, 2], [3, 4]]), [[1, 2, 3, 4], [1, 2, 3, 4]]);
});

Deno.test("reduce_scatter gives each rank its piece of the sum or the maximum", () => {
  assertEquals(results("reduce_scatter", [2, 2], { dim: 1, by: "sum" }, [[1, 2, 3, 4], [10, 20, 30, 40]]), [
    [11, 33],
    [22, 44],
  ]);
  assertEquals(results("reduce_scatter", [2], { dim: 0, by: "max" }, [[1, 5], [2, 4]]), [[2], [5]]);
});

Deno.test("all_reduce gives every rank the sum or the maximum", () => {
  assertEquals(results("all_reduce", [2], { by: "sum" }, [[1, 5], [2, 4]]), [[3, 9], [3, 9]]);
  assertEquals(results("all_reduce", [2], { by: "max" }, [[1, 5], [2, 4]]), [[2, 5], [2, 5]]);
});

Deno.test("ring_shift hands all tensors to the next rank of the group, the last one's to the first", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, y] = ["x", "y"].map((name) => new Tensor(builder, builder.input(name, f64(1))));
    const [nextX, nextY] = x.apply("ring_shift", [y], { axes: ["cp"], size: 3, group: [2, 0, 1] });
    return { x: nextX, y: nextY };
  });
  const out = interpretRanks([graph, graph, graph], [1, 2, 3].map((n) => ({ inputs: { x: [n], y: [10 * n] } })));
  assertEquals(out.map(({ x, y }) => [...x.data, ...y.data]), [[3, 30], [1, 10], [2, 20]]);
});

Deno.test("pieces are in the order of the group, not of the ranks", () => {
  const graph = collective("all_gather", f64(1), { dim: 0 }, [2, 0, 1]);
  const out = interpretRanks([graph, graph, graph], [[1], [2], [3]].map((x) => ({ inputs: { x } })));
  assertEquals(out.map(({ y }) => y), Array(3).fill(arr([3], [3, 1, 2])));
});

Deno.test("collectives and slices infer the shapes of what a rank holds", () => {
  const typeOf = (op: string, type: Type, attrs: Attrs) => typeText(collective(op, type, attrs).outputs[0].value);
  assertEquals(typeOf("all_gather", f32(2, 3), { dim: 1 }), "f32[2,6]");
  assertEquals(typeOf("all_gather", i32(2, 3), { dim: 0 }), "i32[4,3]");
  assertEquals(typeOf("reduce_scatter", f32(2, 4), { dim: 1, by: "sum" }), "f32[2,2]");
  assertEquals(typeOf("all_reduce", f32(2, 4), { by: "sum" }), "f32[2,4]");
  assertEquals(typeOf("ring_shift", f32(2, 4), {}), "f32[2,4]");
  assertEquals(typeOf("slice_by_rank", f32(2, 4), { dim: 0 }), "f32[1,4]");
  assertEquals(typeOf("keep_on_first", f32(2, 4), {}), "f32[2,4]");
  assertEquals(typeOf("slice_by_rank", f32(49), { dim: 0, size: 49 }), "f32[1]");
  const none = assertThrows(() => typeOf("all_gather", f32(3), { dim: 1 }), TypeError);
  assertEquals(none.message, `Cannot apply "all_gather": [3] has no dim 1`);
  for (const op of ["reduce_scatter", "slice_by_rank"]) {
    const error = assertThrows(() => typeOf(op, f32(3, 4), { dim: 0, by: "sum" }), TypeError);
    assertEquals(error.message, `Cannot apply "${op}": dim 0 of [3,4] is not a multiple of 2`);
  }
});

Deno.test("pieces that differ, or are not one for each rank, are refused", () => {
  const refusal = (...pieces: Type[]) =>
    assertThrows(() =>
      traceGraph("g", [], (builder) => {
        const [x, ...others] = pieces.map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
        return { y: x.apply("concat_by_rank", others, { axes: ["tp"], size: 2, dim: 0 })[0] };
      }), TypeError).message;
  assertEquals(refusal(f32(2), f32(3)), 'Cannot apply "concat_by_rank": pieces are f32[2] and f32[3]');
  assertEquals(refusal(f32(2), f32(2), f32(2)), 'Cannot apply "concat_by_rank": 3 pieces for 2 ranks');
});

Deno.test("a collective's kernel is given the ranks of its group, and runs only where there are some", () => {
  const kernelOf = (graph: Graph) => opOf(graph.nodes[0].op).kernel!(graph.nodes[0]);
  const scatter = collective("reduce_scatter", f32(8, 4), { dim: 1, by: "max" }, [3, 1]);
  assertEquals(kernelOf(scatter), {
    kernel: "reduce_scatter",
    attrs: { n: 1, group: [3, 1], dims: [1], by: 1, last: 0 },
  });
  const reduce = collective("all_reduce", f32(8), { by: "sum" });
  assertEquals(kernelOf(reduce), { kernel: "all_reduce", attrs: { n: 1, group: [0, 1], dims: [], by: 0, last: 0 } });
  const all = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f32(2)));
    return { y: x.apply("all_reduce", [], { axes: ["tp"], size: 2, by: "sum" })[0] };
  });
  assertThrows(() => kernelOf(all), TypeError, "it has no kernel");
});

Deno.test("a rank sends as many bytes as rings need", () => {
  const bytes = (op: string, group: number[], attrs: Attrs) =>
    sentBytes(collective(op, f32(8, 4), attrs, group).nodes[0]);
  assertEquals(bytes("all_gather", [0, 1, 2, 3], { dim: 0 }), 3 * 128);
  assertEquals(bytes("reduce_scatter", [0, 1, 2, 3], { dim: 0, by: "sum" }), 3 * 32);
  assertEquals(bytes("all_reduce", [0, 1, 2, 3], { by: "sum" }), 2 * 3 * 32);
  assertEquals(bytes("ring_shift", [0, 1, 2, 3], {}), 128);
  assertEquals(bytes("slice_by_rank", [0, 1], { dim: 0 }), 0);
});
