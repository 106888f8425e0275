import { assert, assertEquals } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { i32 } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import { Cache } from "../../model/cache.ts";
import { bind } from "../../model/module.ts";
import { initialized, logitsOf, tinyLlama } from "./tiny.ts";

/** The graph that reads `count` new tokens of each sequence. */
function reading(model: ReturnType<typeof tinyLlama>, batch: number, count: number, length: number) {
  return verify(traceGraph("next", [], (builder) => {
    const input = (name: string, n: number) => new Tensor(builder, builder.input(name, i32(batch, n)));
    const [tokens, positions, last] = [input("tokens", count), input("positions", count), input("last", 1)];
    const next = () => model.next({ tokens, positions, last, cache: new Cache(positions, length, "f64") });
    return { logits: bind(model, { builder, dtype: "f64" }, next) };
  }));
}

Deno.test("tokens that follow others see those by what the cache keeps, and sequences do not see each other", () => {
  const model = tinyLlama(), memory = initialized(model), rows = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], length = 6;
  const [three, one] = [3, 1].map((count) => reading(model, 2, count, length));
  const expected = (n: number) =>
    rows.flatMap((row) => {
      const tokens = row.slice(0, n), positions = tokens.map((_, i) => i);
      return [...logitsOf(model, memory, { tokens, positions }).slice(-32)];
    });
  const read = (graph: typeof one, from: number, count: number) => {
    const at = rows.flatMap(() => Array.from({ length: count }, (_, i) => from + i));
    const inputs = {
      tokens: arr([2, count], rows.flatMap((row) => row.slice(from, from + count))),
      positions: arr([2, count], at),
      last: arr([2, 1], [count - 1, count - 1]),
    };
    return [...interpret(graph, { inputs, memory }).logits.data];
  };
  const off = (a: number[], b: number[]) => Math.max(...a.map((x, i) => Math.abs(x - b[i])));
  assert(off(read(three, 0, 3), expected(3)) < 1e-12);
  assert(off(read(one, 3, 1), expected(4)) < 1e-12);
  assert(off(read(one, 4, 1), expected(5)) < 1e-12);
  assert(off(expected(4), expected(5)) > 1e-3, "a token more changes nothing");
  // Read again at a position that was read: what is behind it is not seen.
  assert(off(read(one, 3, 1), expected(4)) < 1e-12);
});

Deno.test("a position of -1 is no token: nothing is kept of it, and the others do not see it", () => {
  const model = tinyLlama(), memory = initialized(model), graph = reading(model, 1, 3, 4);
  const read = (
    tokens: number[],
    positions: number[],
    last: number,
  ) => [...interpret(graph, { inputs: { tokens, positions, last: [last] }, memory }).logits.data];
  const expected = [...logitsOf(model, memory, { tokens: [7, 8], positions: [0, 1] }).slice(-32)];
  const logits = read([7, 8, 30], [0, 1, -1], 1);
  assert(logits.every((x, i) => Math.abs(x - expected[i]) < 1e-12));
  const states = graph.states.filter((s) => s.kind === "cache").map((s) => s.name);
  assertEquals(states, [0, 1].flatMap((n) => ["keys", "values"].map((kind) => `cache/layers.${n}.attention.${kind}`)));
  for (const name of states) {
    const rows = memory.get(name)!.data, width = rows.length / 4;
    assert(rows.subarray(0, 2 * width).some((x) => x !== 0));
    assert(rows.subarray(2 * width).every((x) => x === 0), `${name} keeps a row of no token`);
  }
});
