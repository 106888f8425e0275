import { assertEquals, assertThrows } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { Builder, f64, i32 } from "../../graph/builder.ts";
import { interpret, interpretRanks, type Memory } from "../../graph/interpret.ts";
import type { Graph, State } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { trace, traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";

const state = (name: string, ...shape: number[]): State => ({ name, kind: "sum", ...f64(...shape) });
const contents = (memory: Memory): Record<string, number[]> =>
  Object.fromEntries([...memory].map(([name, a]) => [name, [...a.data]]));

Deno.test("outputs are computed from inputs given as arrays or lists", () => {
  const graph = trace((x, y) => ({ sum: x.add(y), x }), f64(2), f64(2));
  const out = interpret(graph, { inputs: { x0: arr([2], [1, 2]), x1: [10, 20] } });
  assertEquals(Object.entries(out).map(([k, a]) => [k, ...a.data]), [["sum", 11, 22], ["x", 1, 2]]);
});

Deno.test("a missing input, or one of the wrong size, is an error", () => {
  const graph = trace((x) => x.exp(), f64(2));
  assertThrows(() => interpret(graph), TypeError, `input "x0" is missing`);
  assertThrows(() => interpret(graph, { inputs: { x0: [1] } }), TypeError, `input "x0" has 1 elements, expected [2]`);
});

Deno.test("a read sees the state as it is at that point, and states begin as zeros", () => {
  const graph = traceGraph("g", [state("s", 2)], (builder) => {
    const read = () => new Tensor(builder, builder.read("s"));
    const before = read();
    builder.accumulate("s", builder.input("x", f64(2)), false);
    return { before, after: read() };
  });
  const memory: Memory = new Map(), out = interpret(verify(graph), { inputs: { x: [1, 2] }, memory });
  assertEquals([[...out.before.data], [...out.after.data]], [[0, 0], [1, 2]]);
  interpret(graph, { inputs: { x: [1, 2] }, memory });
  assertEquals(contents(memory), { s: [2, 4] });
});

/** One graph that assigns, accumulates from the beginning, and accumulates always. */
const effects: Graph = traceGraph("g", [state("set"), state("begun"), state("added")], (builder) => {
  const x = builder.input("x", f64());
  builder.assign("set", x);
  builder.accumulate("begun", x);
  builder.accumulate("added", x, false);
});

Deno.test("assign replaces; accumulate adds, but overwrites in the first microbatch where it begins", () => {
  const memory: Memory = new Map(["set", "begun", "added"].map((name) => [name, arr([], [100])]));
  interpret(effects, { inputs: { x: [1] }, memory, first: true });
  assertEquals(contents(memory), { set: [1], begun: [1], added: [101] });
  interpret(effects, { inputs: { x: [2] }, memory, first: false });
  assertEquals(contents(memory), { set: [2], begun: [3], added: [103] });
});

Deno.test("integers are not accumulated, as no microbatch begins their sum; they are read, added and assigned", () => {
  const state: State = { name: "n", kind: "buffer", dtype: "i32", shape: [] };
  const add = (builder: Builder, put: (x: Tensor) => void) => put(new Tensor(builder, builder.read("n")).add(1));
  assertThrows(
    () => traceGraph("g", [state], (b) => add(b, (x) => b.accumulate("n", x.value))),
    TypeError,
    `Cannot apply "accumulate": expected a real value, got i32; read, add and assign`,
  );
  const memory: Memory = new Map(), graph = traceGraph("g", [state], (b) => add(b, (x) => b.assign("n", x.value)));
  for (let i = 0; i < 3; i++) interpret(graph, { memory });
  assertEquals([...memory.get("n")!.data], [3]);
});

Deno.test("memory that was given before is not written into: arrays are replaced", () => {
  const old = arr([], [5]), memory: Memory = new Map([["set", old], ["begun", old], ["added", old]]);
  interpret(effects, { inputs: { x: [1] }, memory });
  assertEquals([...old.data], [5]);
});

/** A product that is added into two states that lie one after another, as `fuse` makes it. */
function productInto(begin: boolean): Graph {
  const builder = new Builder("g", [state("a", 1, 2), state("b", 2, 2)]);
  const [x, y] = [builder.input("x", f64(3, 1)), builder.input("y", f64(1, 2))];
  builder.emit("contract", [x, y], { dims: "a k, k b -> a b", into: ["a", "b"], begin });
  return verify(builder.finish());
}

Deno.test("an op with the attribute into adds its output to the states that it covers", () => {
  const memory: Memory = new Map([["a", arr([1, 2], [100, 100])], ["b", arr([2, 2], [100, 100, 100, 100])]]);
  const inputs = { x: [1, 2, 3], y: [1, 10] };
  interpret(productInto(false), { inputs, memory });
  assertEquals(contents(memory), { a: [101, 110], b: [102, 120, 103, 130] });
  interpret(productInto(true), { inputs, memory, first: true });
  assertEquals(contents(memory), { a: [1, 10], b: [2, 20, 3, 30] });
  interpret(productInto(true), { inputs, memory, first: false });
  assertEquals(contents(memory), { a: [2, 20], b: [4, 40, 6, 60] });
});

Deno.test("assign spreads a value over the states that it covers", () => {
  const builder = new Builder("g", [state("a", 1), state("b", 2)]);
  builder.emit("assign", [builder.input("x", f64(3))], { states: ["a", "b"] });
  const memory: Memory = new Map();
  interpret(verify(builder.finish()), { inputs: { x: [1, 2, 3] }, memory });
  assertEquals(contents(memory), { a: [1], b: [2, 3] });
});

Deno.test("every node and what it made can be looked at", () => {
  const seen: string[] = [];
  const graph = trace((x, ids) => ids.apply("embedding", [x.exp()])[0], f64(2, 1), i32(1));
  interpret(graph, { inputs: { x0: [0, 0], x1: [1] }, trace: (node, [y]) => seen.push(`${node.op} ${[...y.data]}`) });
  assertEquals(seen, ["exp 1,1", "embedding 1"]);
});

/** The sum of `x` over two ranks, after one of them has done more work. */
const summing = (more: boolean, op = "all_reduce") =>
  traceGraph("g", [state("s", 2)], (builder) => {
    const x = new Tensor(builder, builder.input("x", f64(2)));
    const dim = op === "reduce_scatter" ? { dim: 0 } : undefined;
    const attrs = { axes: ["tp"], size: 2, group: [0, 1], by: "sum", ...dim };
    const y = (more ? x.exp().log() : x).apply(op, [], attrs)[0];
    builder.accumulate("s", y.value);
    return { y };
  });

Deno.test("ranks wait for each other at a collective, each with inputs and memory of its own", () => {
  const memories: Memory[] = [new Map([["s", arr([2], [1, 1])]]), new Map()];
  const out = interpretRanks([summing(false), summing(true)], [
    { inputs: { x: [1, 2] }, memory: memories[0], first: false },
    { inputs: { x: [10, 20] }, memory: memories[1], first: false },
  ]);
  assertEquals(out.map((o) => [...o.y.data].map(Math.round)), [[11, 22], [11, 22]]);
  assertEquals(memories.map((m) => [...m.get("s")!.data].map(Math.round)), [[12, 23], [11, 22]]);
});

Deno.test("a graph with collectives cannot run alone", () => {
  assertThrows(
    () => interpret(summing(false), { inputs: { x: [1, 2] } }),
    TypeError,
    `Cannot run graph "g" alone: %1: f64[2] = all_reduce(%0)`,
  );
});

Deno.test("ranks that meet at different collectives are an error that says where each is", () => {
  const inputs = [{ inputs: { x: [1, 2] } }, { inputs: { x: [1, 2] } }];
  assertThrows(
    () => interpretRanks([summing(false), summing(false, "reduce_scatter")], inputs),
    Error,
    "rank 0 is at all_reduce of f64[2] over 0,1, rank 1 at reduce_scatter of f64[2] over 0,1",
  );
  const alone = trace((x) => x.exp(), f64(2));
  const given = [inputs[0], { inputs: { x0: [1, 2] } }];
  assertThrows(() => interpretRanks([summing(false), alone], given), Error, "rank 1 at the end");
});
