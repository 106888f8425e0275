/** Every op of the table on the native library: whatever strides its operands have, it means what its reference means.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { type Arr, arr, roundedTo } from "../../graph/array.ts";
import { opOf } from "../../graph/builder.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { type DType, type Graph, isReal, numel, type State } from "../../graph/ir.ts";
import { takesBf16 } from "../../graph/op.ts";
import { cpu } from "../../graph/target/cpu.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { OpCase, Operand } from "../graph/op_case.ts";
import { cases } from "../graph/op_cases.ts";
import { applied, arraysFor, graphOf, titleOf } from "../graph/op_graphs.ts";
import { Random } from "../graph/random_graphs.ts";
import { compilePlainly, errorOf, NativeSession } from "./native.ts";

/** Largest error that is allowed, relative to the largest magnitude in the result. */
const tolerance = { f64: 1e-12, f32: 1e-5, bf16: 2 ** -6 } as const;
type RealType = "f32" | "f64";

/** A row in another real type. */
function inType(c: OpCase, dtype: RealType): OpCase {
  const stated = c.attrs?.dtype as DType | undefined;
  const attrs = stated && isReal(stated) ? { ...c.attrs, dtype } : c.attrs;
  return { ...c, attrs, inputs: c.inputs.map((x) => isReal(x.dtype) ? { ...x, dtype } : x) };
}

/** A row in f32 with all stored as bf16 that may be; products round their operands. */
function storedAsBf16(row: OpCase): OpCase {
  const c = inType(row, "f32"), op = opOf(c.op), isProduct = /^(contract|attention)/.test(c.op);
  const takes = (side: "input" | "output", i: number) => takesBf16(op, side, i, c.inputs.length);
  const bf16 = [...c.gives.keys()].filter((i) => takes("output", i));
  return {
    ...c,
    attrs: { ...c.attrs, ...(isProduct ? { round: "bf16" } : {}), ...(bf16.length > 0 ? { bf16 } : {}) },
    inputs: c.inputs.map((x, i) => x.dtype === "f32" && takes("input", i) ? { ...x, dtype: "bf16" } : x),
  };
}

/** Random operands as the element type holds them. */
function operandsOf(operands: readonly Operand[], seed: number): Record<string, Arr> {
  const arrays = Object.entries(arraysFor(operands, new Random(seed)));
  const round = (a: Arr, dtype: DType) =>
    dtype === "f32" ? arr(a.shape, a.data.map(Math.fround)) : dtype === "bf16" ? roundedTo(dtype, a) : a;
  return Object.fromEntries(arrays.map(([name, a], i) => [name, round(a, operands[i].dtype)]));
}

const letters = (shape: readonly unknown[]): string[] => shape.map((_, d) => "abcdef"[d]);

/** Ways to store an operand, and the view that gives it back. */
const layouts: Record<string, (x: Operand) => { stored: Operand; view: (t: Tensor) => Tensor }> = {
  packed: (x) => ({ stored: x, view: (t) => t }),
  "cut out of a larger one": (x) => ({
    stored: { ...x, shape: x.shape.map((n) => n + 2) },
    view: (t) => x.shape.length === 0 ? t : t.slice(x.shape.map(() => 1), x.shape),
  }),
  "stored the other way round": (x) => {
    const names = letters(x.shape), turned = names.toReversed().join(" ");
    if (x.shape.length !== 1) {
      const view = (t: Tensor) => x.shape.length === 0 ? t : t.transpose(`${turned} -> ${names.join(" ")}`);
      return { stored: { ...x, shape: x.shape.toReversed() }, view };
    }
    // A column of a matrix.
    const view = (t: Tensor) => t.slice([0, 1], [x.shape[0], 1]).reshape("a 1 -> a");
    return { stored: { ...x, shape: [x.shape[0], 3] }, view };
  },
};

/** The error of a graph on the native library, in a first microbatch and in a later one: outputs and states. */
async function errorOn(graph: Graph, inputs: Record<string, Arr>, start: Memory): Promise<number> {
  using session = await NativeSession.open([graph], { memory: start, compile: compilePlainly });
  const memory = new Map(start), errors: number[] = [];
  for (const first of [true, false]) {
    const expected = interpret(graph, { inputs, memory, first });
    const actual = await session.run(graph.name, inputs, first);
    errors.push(...Object.keys(expected).map((name) => errorOf(actual[name], expected[name])));
    for (const [name, value] of memory) errors.push(errorOf(await session.read(name), value));
  }
  return Math.max(...errors.map((e) => Number.isNaN(e) ? Infinity : e));
}

const takesAny = (c: OpCase): boolean => opOf(c.op).bf16 !== undefined && c.inputs.some((x) => isReal(x.dtype));

for (const dtype of ["f64", "f32", "bf16"] as const) {
  for (const row of dtype === "bf16" ? cases.filter(takesAny) : cases) {
    const c = dtype === "bf16" ? storedAsBf16(row) : inType(row, dtype);
    Deno.test(`native ${titleOf(c)} in ${dtype} means what its reference means, whatever the strides`, async () => {
      for (const [layout, store] of Object.entries(layouts)) {
        const operands = c.inputs.map(store);
        const graph = graphOf(operands.map((o) => o.stored), (builder, inputs) => {
          const results = applied(c)(builder, inputs.map((t, i) => operands[i].view(t)));
          // Made inside of a larger value, a result has strides as well.
          const within = results.filter((y) => y.shape.length > 0).map((y) => y.concat([y], -1));
          return layout === "packed" ? results : within.length > 0 ? within : results;
        });
        const inputs = operandsOf(operands.map((o) => o.stored), 3);
        const error = await errorOn(graph, inputs, new Map());
        assert(error <= tolerance[dtype], `${layout}: off by ${error} of the largest value`);
      }
    });
  }

  if (dtype === "bf16") continue;
  for (const row of cases.filter(({ op }) => cpu.lowerings[op]?.accumulates)) {
    const c = inType(row, dtype), index = opOf(c.op).into!;
    Deno.test(`native ${titleOf(c)} in ${dtype} adds into state, or overwrites it in the first microbatch`, async () => {
      for (const begin of [true, false]) {
        const { shape } = graphOf(c.inputs, applied(c)).nodes[0].outputs[index];
        const state: State = { name: "gradient/w", kind: "gradient", of: "w", dtype, shape };
        const graph = verify(traceGraph("case", [state], (builder) => {
          const inputs = c.inputs.map((x, i) => new Tensor(builder, builder.input(`x${i}`, x)));
          const results = applied({ ...c, attrs: { ...c.attrs, into: [state.name], begin } })(builder, inputs);
          return Object.fromEntries(results.filter((_, i) => i !== index).map((y, i) => [`y${i}`, y]));
        }));
        const memory: Memory = new Map([[
          state.name,
          arr(shape, Array.from({ length: numel(shape) }, (_, i) => i + 1)),
        ]]);
        const error = await errorOn(graph, operandsOf(c.inputs, 5), memory);
        assert(error <= tolerance[dtype], `begin ${begin}: off by ${error} of the largest value`);
      }
    });
  }
}

Deno.test("native: a product goes into states that lie one after another, and they are read as one", async () => {
  const names = ["gradient/w1", "gradient/w3"], dtype = "f64";
  const states = names.map((name): State => ({ name, kind: "gradient", of: "w", dtype, shape: [3, 4] }));
  const graph = verify(traceGraph("case", states, (builder) => {
    const [x, dy] = [[5, 4], [5, 6]].map((shape, i) => builder.input(`x${i}`, { dtype, shape }));
    const before = new Tensor(builder, builder.read(...names)).mul(1);
    builder.emit("contract", [dy, x], { dims: "t o, t i -> o i", into: names, begin: true });
    return { before, after: new Tensor(builder, builder.read(...names)) };
  }));
  const inputs = operandsOf(graph.inputs.map(({ value }) => ({ ...value, low: -1, high: 1 })), 1);
  const memory: Memory = new Map(
    names.map((name, k) => [name, arr([3, 4], Array.from({ length: 12 }, (_, i) => i + k))]),
  );
  assertEquals(await errorOn(graph, inputs, memory) <= 1e-12, true);
});
