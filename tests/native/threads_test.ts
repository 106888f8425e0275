/** Every kernel with work for several threads: beyond one tile, its result is right, and the same to the last bit in every run
 * and, but for what the BLAS library sums, on any number of threads.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { interpret } from "../../graph/interpret.ts";
import { type Attrs, type Graph, isReal } from "../../graph/ir.ts";
import { kernels } from "../../graph/kernels.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import type { Operand } from "../graph/op_case.ts";
import { cases } from "../graph/op_cases.ts";
import { arraysFor } from "../graph/op_graphs.ts";
import { Random } from "../graph/random_graphs.ts";
import { errorOf, NativeSession } from "./native.ts";

type RealType = "f32" | "f64";

/** What runs: operands (real ones in the type that is tested) and what is made of them; with `gradient`, the sum of the first
 * result is differentiated. */
interface Work {
  readonly operands: readonly Operand[];
  readonly body: (x: Tensor[], dtype: RealType) => Tensor[];
  readonly gradient?: boolean;
  /** Is the order of its sums that of the BLAS library, which may choose another for another number of threads? */
  readonly blas?: boolean;
}

const real = (...shape: number[]): Operand => ({ dtype: "f64", shape, low: -1, high: 1 });
const whole = (low: number, high: number, ...shape: number[]): Operand => ({ dtype: "i32", shape, low, high });
const op = (name: string, attrs: Attrs = {}) => ([x, ...rest]: Tensor[]): Tensor[] => x.apply(name, rest, attrs);

const works: Record<string, Work> = {
  "a product": {
    operands: [real(3, 65, 70), real(90, 70)],
    body: op("contract", { dims: "b t i, o i -> b t o" }),
    gradient: true,
    blas: true,
  },
  "a batch of products": {
    operands: [real(5, 33, 40), real(5, 40, 20)],
    body: op("contract", { dims: "b m k, b k n -> b m n" }),
    gradient: true,
    blas: true,
  },
  "element-wise work": {
    operands: [real(70, 301), real(301)],
    body: ([x, y]) => [x.silu().mul(y.broadcastTo([70, 301])).add(x.exp()).tanh()],
    gradient: true,
  },
  "element-wise work on a transposed operand": {
    operands: [real(301, 70), real(70, 301)],
    body: ([x, y]) => [x.transpose(0, 1).mul(y).sigmoid()],
  },
  "element-wise work on integers, from reals and back": {
    operands: [real(70, 301), whole(-9, 9, 70, 301)],
    body: ([x, k], dtype) => [x.mul(100).cast("i32").mul(k).add(k).cast(dtype)],
  },
  "sums of rows": { operands: [real(130, 257)], body: ([x]) => [x.sum(1), x.max(1)] },
  "sums of columns": { operands: [real(257, 130)], body: ([x]) => [x.sum(0), x.max(0)] },
  "a sum of all": { operands: [real(257, 130)], body: ([x]) => [x.sum()] },
  "a strided copy": {
    operands: [real(40, 50, 30)],
    body: ([x]) => [x.transpose("a b c -> c b a").apply("copy", [])[0]],
  },
  embedding: { operands: [whole(0, 20, 4, 90), real(21, 48)], body: op("embedding"), gradient: true },
  rmsnorm: { operands: [real(4, 75, 72), real(72)], body: op("rmsnorm", { eps: 1e-3 }), gradient: true },
  "rmsnorm of a residual sum": {
    operands: [real(4, 75, 72), real(4, 75, 72), real(72)],
    body: ([x, r, w]) => {
      const sum = x.add(r);
      return [sum.apply("rmsnorm", [w], { eps: 1e-3 })[0].add(sum.square())];
    },
    gradient: true,
  },
  rotation: {
    operands: [real(3, 70, 4, 32), whole(0, 500, 3, 70)],
    body: ([x, positions], dtype) => {
      const attrs = { theta: 1e4, factor: 8, low: 1, high: 4, original: 64, dtype, size: 32 };
      return x.apply("rope", positions.apply("rope_table", [], attrs), { inverse: false });
    },
    gradient: true,
  },
  "attention within documents, with rotation": {
    operands: [
      real(2, 140, 4, 24),
      real(2, 140, 2, 24),
      real(2, 140, 2, 24),
      whole(0, 200, 2, 140),
      whole(0, 1, 2, 140),
    ],
    body: ([q, k, v, positions, documents], dtype) => {
      const attrs = { theta: 1e4, factor: 1, low: 1, high: 4, original: 64, dtype, size: 24 };
      const table = positions.apply("rope_table", [], attrs),
        turn = (x: Tensor) => x.apply("rope", table, { inverse: false })[0];
      const others = [turn(k), v, positions, positions, documents, documents];
      return [turn(q).apply("attention", others, { scale: 0.2, documents: true })[0]];
    },
    gradient: true,
  },
  softmax: { operands: [real(130, 301)], body: ([x]) => [x.softmax(-1)], gradient: true },
  "cross-entropy": {
    operands: [real(3, 70, 301), whole(-1, 300, 3, 70)],
    body: op("cross_entropy", { ignore_index: -1 }),
    gradient: true,
  },
  "a norm of gradients": { operands: [real(130, 130), real(9001)], body: op("sum_squares") },
  AdamW: {
    operands: [real(130, 90), real(130, 90), { ...real(130, 90), low: 0 }, real(130, 90), real(), {
      ...real(),
      low: 3,
      high: 4,
    }, real()],
    body: op("adamw", { beta1: 0.9, beta2: 0.95, eps: 1e-3, weight_decay: 0.1 }),
  },
  "random numbers": {
    operands: [whole(0, 1e6, 2)],
    body: ([seed], dtype) => {
      const draw = (kind: string) => ({ kind, name: "w", dtype, shape: [90, 61], a: 0, b: 1, low: -2, high: 2 });
      return ["uniform", "normal", "truncated_normal"].flatMap((kind) => seed.apply("random", [], draw(kind)));
    },
  },
};

/** The graph of some work; its parameters are states, so that gradients go where training has them. */
function graphOf({ operands, body, gradient }: Work, dtype: RealType): Graph {
  const typed = operands.map((x) => isReal(x.dtype) ? { ...x, dtype } : x);
  const weights = typed.map((_, i) => i).filter((i) => gradient && isReal(typed[i].dtype));
  const states = weights.map((i) => ({ name: `w${i}`, kind: "parameter", ...typed[i] } as const));
  const forward = traceGraph("work", states, (builder) => {
    const inputs = typed.map((x, i) =>
      new Tensor(builder, weights.includes(i) ? builder.read(`w${i}`) : builder.input(`x${i}`, x))
    );
    const results = body(inputs, dtype);
    return gradient
      ? { loss: results[0].mul(results[0]).sum(), y0: results[0] }
      : Object.fromEntries(results.map((y, i) => [`y${i}`, y]));
  });
  return gradient ? autodiff(forward, { of: "loss", states: states.map((s) => s.name), keep: true }) : forward;
}

const seen = new Set<string>();

for (const [name, work] of Object.entries(works)) {
  for (const dtype of ["f64", "f32"] as const) {
    Deno.test(`native ${name} in ${dtype} is right, and the same in every run`, async () => {
      const graph = graphOf(work, dtype), arrays = arraysFor(work.operands, new Random(1));
      if (dtype === "f32") {
        Object.values(arrays).forEach(({ data }) => data.forEach((x, i) => data[i] = Math.fround(x)));
      }
      const memory = new Map(
        graph.states.filter((s) => s.kind === "parameter").map(({ name }) => [name, arrays[`x${name.slice(1)}`]]),
      );
      const runs = [];
      for (const threads of [1, 2, 2]) {
        using session = await NativeSession.open([graph], { threads, memory });
        session.compiled.program.sections[0].instructions.forEach((i) => seen.add(i.kernel));
        const outputs = await session.run(graph.name, arrays);
        runs.push(new Map([...Object.entries(outputs), ...await session.memory()]));
      }
      const [one, two, again] = runs;
      const after = new Map(memory), outputs = interpret(graph, { inputs: arrays, memory: after });
      for (const [what, expected] of [...Object.entries(outputs), ...after]) {
        const error = errorOf(one.get(what)!, expected);
        assert(error <= { f64: 1e-12, f32: 1e-5 }[dtype], `${what} is off by ${error} of its largest value`);
        assertEquals(again.get(what)!.data, two.get(what)!.data, what);
        if (!work.blas) assertEquals(two.get(what)!.data, one.get(what)!.data, what);
      }
    });
  }
}

Deno.test("every kernel runs above, or small in the row of its op", () => {
  const rows = new Set(cases.map((c) => c.op));
  // Collectives need other processes: comm_test.ts.
  const alone = Object.entries(kernels).filter(([, { collective }]) => !collective).map(([name]) => name);
  assertEquals(alone.filter((k) => !seen.has(k) && !rows.has(k)), []);
});
