import { assertEquals, assertThrows } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { f32, f64, i32, opOf } from "../../../graph/builder.ts";
import { sentBytes } from "../../../graph/facts.ts";
import { interpretRanks } from "../../../graph/interpret.ts";
import { type Attrs, type Graph, type Type, typeText } from "../../../graph/ir.ts";
import { kernels } from "../../../graph/kernels.ts";
import { ops } from "../../../graph/ops/mod.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { callOf } from "../../../graph/target/target.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";

/** One collective over the ranks of `group`, as each of them sees it. */
function collective(op: string, type: Type, attrs: Attrs, group: readonly number[] = [0, 1]): Graph {
  return traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", type));
    const all = Object.entries({ axes: ["tp"], size: group.length, group, ...attrs });
    return { y: x.apply(op, [], Object.fromEntries(all.filter(([name]) => name in opOf(op).attrs!)))[0] };
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

Deno.test("all_to_all cuts a value along one dim that was cut along another", () => {
  // [2,4] by rows, then by columns: rank 0 has 1 2 3 4.
  assertEquals(results("all_to_all", [1, 4], { split: 1, join: 0 }, [[1, 2, 3, 4], [5, 6, 7, 8]]), [
    [1, 2, 5, 6],
    [3, 4, 7, 8],
  ]);
  assertEquals(results("all_to_all", [2, 2], { split: 0, join: 1 }, [[1, 2, 5, 6], [3, 4, 7, 8]]), [
    [1, 2, 3, 4],
    [5, 6, 7, 8],
  ]);
});

Deno.test("the gradient of an all_to_all goes back to where its operand was cut", () => {
  const graph = traceGraph("g", [], (builder) => {
    const [x, dy] = [f64(1, 4), f64(2, 2)].map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    const attrs = { axes: ["tp"], size: 2, group: [0, 1], split: 1, join: 0 },
      outputs = x.apply("all_to_all", [], attrs);
    const [dx] = opOf("all_to_all").vjp!({ inputs: [x], outputs, cotangents: [dy], attrs });
    return { dx: dx! };
  });
  const given = [[1, 2, 5, 6], [3, 4, 7, 8]].map((x1) => ({ inputs: { x0: [0, 0, 0, 0], x1 } }));
  assertEquals(interpretRanks([graph, graph], given).map(({ dx }) => [...dx.data]), [[1, 2, 3, 4], [5, 6, 7, 8]]);
});

/** What a member of ranks 2, 0 and 1 does in an exchange: 2 sends to 0 and 1, and 0 to 2, at first. */
function member(own: number, swap = false): Graph {
  const group = [2, 0, 1], ends = { from: [0, 0, 1], to: [1, 2, 0] };
  const types = [f64(2), f64(1), f32(1, 2)].map(({ dtype, shape }) => ({ dtype, shape }));
  return traceGraph(`rank ${group[own]}`, [], (builder) => {
    const sent = types.filter((_, i) => ends.from[i] === own).map((type, i) => builder.input(`x${i}`, type));
    const list = swap ? { from: [1, 0, 0], to: [0, 1, 2], types: [types[2], types[0], types[1]] } : { ...ends, types };
    const made = builder.emit("exchange", sent, { size: 3, group, member: own, ...list });
    return Object.fromEntries(made.map((value, i) => [`y${i}`, new Tensor(builder, value)]));
  });
}
const given = [{ x0: [7, 8] }, {}, { x0: [1, 2], x1: [3] }].map((inputs) => ({ inputs }));

Deno.test("an exchange brings each tensor to the member that it is for, of whatever type", () => {
  for (const swap of [false, true]) {
    const graphs = [1, 2, 0].map((own) => member(own, swap));
    const out = interpretRanks(graphs, given as { inputs: Record<string, number[]> }[]);
    assertEquals(out.map((y) => Object.values(y).map(({ data }) => [...data])), [[[1, 2]], [[3]], [[7, 8]]]);
    assertEquals(graphs.map(({ nodes: [node] }) => node.outputs.map(typeText)), [["f64[2]"], ["f64[1]"], ["f32[1,2]"]]);
    assertEquals(graphs.map(({ nodes: [node] }) => sentBytes(node)), [8, 0, 24]);
  }
});

Deno.test("members of an exchange that have different lists do not meet", () => {
  const graphs = [member(1, true), member(2), member(0)];
  assertThrows(
    () => interpretRanks(graphs, given as { inputs: Record<string, number[]> }[]),
    Error,
    "Cannot go on: rank 0 is at exchange of ",
  );
});

Deno.test("an exchange with a list that is no list, or other tensors than it says, is refused", () => {
  const refusal = (attrs: Attrs) =>
    assertThrows(() =>
      traceGraph("g", [], (builder) => {
        const own = { size: 2, group: [0, 1], member: 0, from: [0], to: [1], types: [{ dtype: "f32", shape: [2] }] };
        builder.emit("exchange", [builder.input("x", f32(2))], { ...own, ...attrs });
        return {};
      }), TypeError).message;
  assertEquals(refusal({ to: [0] }), 'Cannot apply "exchange": tensor 0 goes from member 0 to itself');
  assertEquals(refusal({ to: [2] }), 'Cannot apply "exchange": member 2 is none of 2');
  assertEquals(refusal({ member: 2 }), 'Cannot apply "exchange": member 2 is none of 2');
  const ends = 'Cannot apply "exchange": 1 tensors go from 2 members to 1; expected one of each for every tensor';
  assertEquals(refusal({ from: [0, 0] }), ends);
  const none = 'Cannot apply "exchange": member 1 is given f32[2]; expected what it sends: nothing';
  assertEquals(refusal({ member: 1 }), none);
  const other = 'Cannot apply "exchange": member 0 is given f32[2]; expected what it sends: f32[3]';
  assertEquals(refusal({ types: [{ dtype: "f32", shape: [3] }] }), other);
});

Deno.test("ranks wait for those of their group alone: other groups may be further, or at something else", () => {
  // Ranks 0 1 and 2 3 first meet in pairs, of which one pair has more to do; then all of them.
  const graph = (rank: number) =>
    traceGraph("g", [], (builder) => {
      const x = new Tensor(builder, builder.input("x", f64(2))), first = rank < 2, pair = first ? [0, 1] : [2, 3];
      const apply = (t: Tensor, op: string, group: number[], attrs: Attrs) =>
        t.apply(op, [], { axes: ["tp"], size: group.length, group, ...attrs })[0];
      const gathered = first ? apply(apply(x, "all_reduce", pair, {}), "ring_shift", pair, {}) : x;
      const inPair = apply(gathered, first ? "all_gather" : "reduce_scatter", pair, { dim: 0 });
      const [y] = first ? [inPair.slice([0], [1])] : [inPair];
      return { y: apply(y, "all_reduce", [0, 1, 2, 3], {}) };
    });
  const out = interpretRanks(
    [0, 1, 2, 3].map(graph),
    [[1, 0], [2, 0], [30, 40], [50, 60]].map((x) => ({ inputs: { x } })),
  );
  // 3 and 3 of the first pair, 80 and 100 of the second.
  assertEquals(out.map(({ y }) => [...y.data]), Array(4).fill([3 + 3 + 80 + 100]));
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
  assertEquals(typeOf("all_to_all", f32(2, 4), { split: 1, join: 0 }), "f32[4,2]");
  const once = assertThrows(() => typeOf("all_to_all", f32(2, 4), { split: 1, join: 1 }), TypeError);
  assertEquals(once.message, 'Cannot apply "all_to_all": dim 1 is cut and joined; expected two dims');
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
  const kernelOf = (graph: Graph) => callOf(cpu, graph.nodes[0]);
  const scatter = collective("reduce_scatter", f32(8, 4), { dim: 1, by: "max" }, [3, 1]);
  assertEquals(kernelOf(scatter), {
    kernel: "reduce_scatter",
    attrs: { n: 1, group: [3, 1], dims: [1], splits: [], joins: [], by: 1, first: 0, last: 0 },
  });
  const reduce = collective("all_reduce", f32(8), { by: "sum" });
  const none = { dims: [], splits: [], joins: [] };
  assertEquals(kernelOf(reduce), {
    kernel: "all_reduce",
    attrs: { n: 1, group: [0, 1], ...none, by: 0, first: 0, last: 0 },
  });
  const all = traceGraph("g", [], (builder) => {
    const x = new Tensor(builder, builder.input("x", f32(2)));
    return { y: x.apply("all_reduce", [], { axes: ["tp"], size: 2, by: "sum" })[0] };
  });
  assertThrows(() => kernelOf(all), TypeError, "it has no group of ranks");
});

Deno.test("every collective says what a rank sends, so that none is missing in a plan", () => {
  const collectives = [...ops.values()].filter((op) => op.together);
  assertEquals(collectives.filter((op) => !op.sends).map((op) => op.name), []);
  assertEquals(
    collectives.map((op) => op.name).sort(),
    Object.entries(kernels).filter(([, { collective }]) => collective).map(([name]) => name).sort(),
  );
});

Deno.test("a rank sends as many bytes as rings need", () => {
  const bytes = (op: string, group: number[], attrs: Attrs) =>
    sentBytes(collective(op, f32(8, 4), attrs, group).nodes[0]);
  assertEquals(bytes("all_gather", [0, 1, 2, 3], { dim: 0 }), 3 * 128);
  assertEquals(bytes("reduce_scatter", [0, 1, 2, 3], { dim: 0, by: "sum" }), 3 * 32);
  assertEquals(bytes("all_reduce", [0, 1, 2, 3], { by: "sum" }), 2 * 3 * 32);
  assertEquals(bytes("ring_shift", [0, 1, 2, 3], {}), 128);
  assertEquals(bytes("all_to_all", [0, 1, 2, 3], { split: 0, join: 1 }), 3 * 32);
  assertEquals(bytes("slice_by_rank", [0, 1], { dim: 0 }), 0);
});
