/** Every op by the same questions, from the table in `op_cases.ts`: do its inferred types hold, does it mean what simpler ops
 * mean, is its vjp its derivative, and does it refuse operands that do not fit?
 * @module */
import { assertEquals, assertThrows } from "@std/assert";
import { type Arr, arr } from "../../graph/array.ts";
import { opOf } from "../../graph/builder.ts";
import { interpret } from "../../graph/interpret.ts";
import { type Attrs, isReal, numel, type Type, typeText } from "../../graph/ir.ts";
import { flopsOf } from "../../graph/op.ts";
import { ops } from "../../graph/ops/mod.ts";
import { nameKey, normalCdf, normalQuantile, philox } from "../../graph/ops/random.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { OpCase, Operand } from "./op_case.ts";
import { cases } from "./op_cases.ts";
import { applied, arraysFor, graphOf, titleOf } from "./op_graphs.ts";
import { assertClose, Random } from "./random_graphs.ts";

/** Ops whose meaning is the interpreter's: `interpret_test.ts`. */
const STATE_OPS = ["read", "assign", "accumulate"];
/** Ops that mean something among ranks alone: `ops/collective_test.ts`, `parallel/rank_graph_test.ts`. */
const RANK_OPS = [
  "all_gather",
  "reduce_scatter",
  "all_reduce",
  "ring_shift",
  "all_to_all",
  "exchange",
  "slice_by_rank",
  "concat_by_rank",
  "keep_on_first",
];

for (const c of cases) {
  Deno.test(`${titleOf(c)} infers the types that its reference gives`, () => {
    const graph = graphOf(c.inputs, applied(c)), node = graph.nodes[0];
    assertEquals(node.outputs.map(typeText), [...c.gives]);
    const results = interpret(graph, { inputs: arraysFor(c.inputs, new Random(1)) });
    assertEquals(Object.values(results).map((a) => a.data.length), node.outputs.map((v) => numel(v.shape)));
    assertEquals(Object.values(results).map((a) => a.shape), node.outputs.map((v) => v.shape));
    if (c.flops !== undefined) assertEquals(flopsOf(opOf(c.op), node), c.flops);
  });

  if (c.like) {
    Deno.test(`${titleOf(c)} means the same as simpler ops`, () => {
      const own = graphOf(c.inputs, applied(c)), other = graphOf(c.inputs, (_, inputs) => c.like!(...inputs));
      for (let seed = 1; seed <= 3; seed++) {
        const inputs = arraysFor(c.inputs, new Random(seed));
        const actual = interpret(own, { inputs }), expected = interpret(other, { inputs });
        for (const name in expected) assertClose(actual[name], expected[name], 1e-12, `${name}, seed ${seed}`);
      }
    });
  }

  if (c.gradient === false) {
    Deno.test(`${titleOf(c)} says that it has no gradient`, () => {
      const graph = graphOf(c.inputs, (builder, inputs) => [applied(c)(builder, inputs)[0].sum()]);
      const names = graph.inputs.filter((i) => isReal(i.value.dtype)).map((i) => i.name);
      assertThrows(() => autodiff(graph, { of: "y0", inputs: names }), TypeError, `op "${c.op}" has no vjp`);
    });
  } else if (c.inputs.some((t) => isReal(t.dtype)) && c.gives.some((t) => !t.startsWith("i32"))) {
    Deno.test(`${titleOf(c)} has its derivative as vjp`, () => checkGradient(c));
  }

  for (const { inputs, attrs, says } of c.refuses ?? []) {
    Deno.test(`${titleOf(c)} refuses ${inputs.map(typeText).join(", ") || "no operands"} ${JSON.stringify(attrs ?? {})}`, () => {
      const error = assertThrows(
        () => graphOf(inputs, applied({ ...c, attrs })),
        TypeError,
        `Cannot apply "${c.op}": `,
      );
      assertEquals(error.message.includes(says), true, `"${error.message}" should say "${says}"`);
    });
  }
}

/** The vjp against central finite differences of a random linear functional of all outputs that have a gradient. */
function checkGradient(c: OpCase): void {
  const H = 1e-5, random = new Random(7);
  const weights: Operand[] = [];
  const graph = traceGraph("case", [], (builder) => {
    const inputs = c.inputs.map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    const outputs = applied(c)(builder, inputs);
    const chosen = c.outputs ?? outputs.map((_, i) => i).filter((i) => isReal(outputs[i].dtype));
    const terms = chosen.map((i) => {
      const type: Operand = { dtype: "f64", shape: outputs[i].shape, low: -1, high: 1 };
      weights.push(type);
      const r = builder.input(`x${c.inputs.length + weights.length - 1}`, type);
      return outputs[i].mul(new Tensor(builder, r)).sum();
    });
    return { loss: terms.reduce((a, b) => a.add(b)) };
  });
  const wrt = c.wrt ?? c.inputs.map((_, i) => i).filter((i) => isReal(c.inputs[i].dtype));
  const inputs = arraysFor([...c.inputs, ...weights], random);
  const backward = verify(autodiff(graph, { of: "loss", inputs: wrt.map((i) => `x${i}`) }));
  const gradients = interpret(backward, { inputs });
  const lossAt = (name: string, k: number, step: number): number => {
    const moved = { ...inputs, [name]: arr(inputs[name].shape, inputs[name].data.slice()) };
    moved[name].data[k] += step;
    return interpret(graph, { inputs: moved }).loss.data[0];
  };
  for (const i of wrt) {
    const name = `x${i}`, { shape, data } = inputs[name];
    const difference = Array.from(data, (_, k) => (lossAt(name, k, H) - lossAt(name, k, -H)) / (2 * H));
    assertClose(gradients[`gradient/${name}`], arr(shape, difference), 1e-8, `gradient of operand ${i}`);
  }
}

Deno.test("every op has a row in the table or is tested with the interpreter", () => {
  const tested = new Set([...cases.map((c) => c.op), ...STATE_OPS, ...RANK_OPS]);
  assertEquals([...ops.keys()].filter((name) => !tested.has(name)), []);
  assertEquals([...tested].filter((name) => !ops.has(name)), []);
});

Deno.test("every op with operands refuses some", () => {
  const refusing = new Set(cases.filter((c) => c.refuses).map((c) => c.op));
  assertEquals([...new Set(cases.map((c) => c.op))].filter((op) => !refusing.has(op)), []);
});

Deno.test("the second outputs of attention, rmsnorm and cross_entropy refuse a gradient", () => {
  for (const [op, at] of [["attention", 1], ["rmsnorm", 1], ["cross_entropy", 2]] as const) {
    const c = cases.find((row) => row.op === op)!;
    const graph = graphOf(c.inputs, (builder, inputs) => [applied(c)(builder, inputs)[at].sum()]);
    assertThrows(() => autodiff(graph, { of: "y0", inputs: ["x0"] }), TypeError, "Cannot differentiate through");
  }
});

Deno.test("maximum, minimum and max-reduction share out the gradient of a tie as they say", () => {
  const at = (op: string, inputs: Record<string, number[]>, attrs = {}) => {
    const operands = Object.values(inputs).map((x): Operand => ({ dtype: "f64", shape: [x.length], low: 0, high: 0 }));
    const graph = graphOf(operands, (builder, t) => [
      new Tensor(builder, builder.emit(op, t.map((x) => x.value), attrs)[0]).sum(),
    ]);
    const gradient = autodiff(graph, { of: "y0", inputs: Object.keys(inputs), keep: false });
    return Object.values(interpret(gradient, { inputs })).map((a) => [...a.data]);
  };
  assertEquals(at("maximum", { x0: [2], x1: [2] }), [[1], [0]]);
  assertEquals(at("minimum", { x0: [2], x1: [2] }), [[1], [0]]);
  assertEquals(at("reduce", { x0: [3, 1, 3] }, { dims: "a -> ", kind: "max" }), [[0.5, 0, 0.5]]);
});

Deno.test("comparisons decide ties as their names say", () => {
  const of = (op: string) => opOf(op).reference!([arr([3], [1, 2, 3]), arr([3], [2, 2, 2])], {}, [])[0].data;
  assertEquals([...of("less")], [1, 0, 0]);
  assertEquals([...of("less_equal")], [1, 1, 0]);
  assertEquals([...of("equal")], [0, 1, 0]);
});

Deno.test("adamw leaves parameters and moments alone when the scale is not finite", () => {
  const c = cases.find((row) => row.op === "adamw")!, graph = graphOf(c.inputs, applied(c));
  const inputs = arraysFor(c.inputs, new Random(1));
  const out = interpret(graph, { inputs: { ...inputs, x6: [NaN] } });
  assertEquals([out.y0.data, out.y1.data, out.y2.data], [inputs.x0.data, inputs.x1.data, inputs.x2.data]);
});

Deno.test("philox gives the words of the published test vectors", () => {
  const hex = (words: number[]) => words.map((x) => x.toString(16).padStart(8, "0")).join(" ");
  const ones = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff];
  assertEquals(hex(philox([0, 0, 0, 0], [0, 0])), "6627e8d5 e169c58d bc57ac4c 9b00dbd8");
  assertEquals(hex(philox(ones, ones.slice(2))), "408f276d 41c83b0e a20bc7c6 6d5451fd");
  const pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  assertEquals(hex(philox(pi, [0xa4093822, 0x299f31d0])), "d16cfe09 94fdcceb 5001e420 24126ea1");
});

Deno.test("names are hashed by 64-bit FNV-1a", () => {
  assertEquals(nameKey(""), 0xcbf29ce484222325n);
  assertEquals(nameKey("foobar"), 0x85944171f73967e8n);
});

Deno.test("the normal quantile inverts the normal distribution function", () => {
  for (const x of [-7, -3.2, -1, -0.3, 0, 0.6, 2, 2.6]) {
    const back = normalQuantile(normalCdf(x));
    assertEquals(
      Math.abs(back - x) < 1e-13 * Math.max(1, Math.abs(x)) * (x > 0 ? 100 : 1),
      true,
      `${x} came back as ${back}`,
    );
  }
  assertEquals(Math.abs(normalCdf(1.959963984540054) - 0.975) < 1e-15, true);
});

Deno.test("random numbers have the mean, spread and bounds of their distribution", () => {
  const draw = (attrs: Record<string, number | string>) => {
    const [seed, n] = [{ dtype: "i32", shape: [2], low: 0, high: 0 } as const, 4000];
    const graph = graphOf([seed], (builder, [t]) => [
      new Tensor(builder, builder.emit("random", [t.value], { name: "w", dtype: "f64", shape: [n], ...attrs })[0]),
    ]);
    const x = [...interpret(graph, { inputs: { x0: [1, 2] } }).y0.data], mean = x.reduce((s, v) => s + v) / n;
    const deviation = Math.sqrt(x.reduce((s, v) => s + (v - mean) ** 2, 0) / n);
    return { mean, deviation, min: Math.min(...x), max: Math.max(...x) };
  };
  const near = (a: number, b: number) => assertEquals(Math.abs(a - b) < 0.04, true, `${a} is far from ${b}`);
  const uniform = draw({ kind: "uniform", a: -1, b: 3 });
  near(uniform.mean, 1);
  near(uniform.deviation, 4 / Math.sqrt(12));
  assertEquals(uniform.min > -1 && uniform.max < 3, true);
  const normal = draw({ kind: "normal", a: 0.5, b: 0.7 });
  near(normal.mean, 0.5);
  near(normal.deviation, 0.7);
  const cut = draw({ kind: "truncated_normal", a: 0, b: 1, low: -1, high: 1 });
  near(cut.mean, 0);
  near(cut.deviation, 0.5397);
  assertEquals(cut.min >= -1 && cut.max <= 1, true);
});

Deno.test("a box of random elements is cut out of the whole, and zeros behind its end", () => {
  const draw = (attrs: Attrs) => {
    const all = { kind: "normal", name: "w", dtype: "f64", a: 0, b: 1, ...attrs };
    const graph = graphOf([{ dtype: "i32", shape: [2], low: 0, high: 0 }], (builder, [t]) => [
      new Tensor(builder, builder.emit("random", [t.value], all)[0]),
    ]);
    return [...interpret(graph, { inputs: { x0: [1, 2] } }).y0.data];
  };
  const whole = draw({ shape: [3, 4] });
  const box = draw({ shape: [2, 3], whole: [3, 4], starts: [1, 2], ends: [3, 4] });
  assertEquals(box, [whole[6], whole[7], 0, whole[10], whole[11], 0]);
});

Deno.test("the slices of embedding, its gradient and that of cross_entropy make the whole", () => {
  const ids = [3, 0, 2, 1], table = Array.from({ length: 8 }, (_, i) => i + 1), dy = table.map((x) => x / 2);
  const sliceOf = (x: number[], start: number, rows: number) => arr([rows, 2], x.slice(2 * start, 2 * (start + rows)));
  const run = (
    op: string,
    inputs: Arr[],
    attrs: Attrs,
    shape: number[],
  ) => [...opOf(op).reference!(inputs, attrs, [{ dtype: "f64", shape }])[0].data];
  const add = (a: number[], b: number[]) => a.map((x, i) => x + b[i]);
  const lookup = (start: number, rows: number) =>
    run("embedding", [arr([4], ids), sliceOf(table, start, rows)], { start, whole: 4 }, [4, 2]);
  assertEquals(add(lookup(0, 1), lookup(1, 3)), lookup(0, 4));
  const back = (start: number, rows: number) =>
    run("embedding_backward", [arr([4], ids), arr([4, 2], dy)], { start }, [rows, 2]);
  assertEquals([...back(0, 1), ...back(1, 3)], back(0, 4));
  const gradient = (logits: number[], start: number) =>
    run("cross_entropy_backward", [arr([1, logits.length], logits), arr([1], [2]), arr([1], [2]), arr([], [1])], {
      ignore_index: -1,
      start,
    }, [1, logits.length]);
  assertEquals([...gradient([0.5], 0), ...gradient([1, 1.5], 1)], gradient([0.5, 1, 1.5], 0));
});

Deno.test("ids of other slices give 0, ids of none give NaN", () => {
  const ids = arr([5], [-1, 1, 2, 3, 4]), type: Type = { dtype: "f64", shape: [5] };
  const [rows] = opOf("embedding").reference!([ids, arr([2, 1], [7, 8])], { start: 1, whole: 4 }, [{
    ...type,
    shape: [5, 1],
  }]);
  assertEquals([...rows.data], [NaN, 7, 8, 0, NaN]);
  const logits = arr([5, 2], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), attrs = { ignore_index: -1, start: 1, whole: 4 };
  const [, logit] = opOf("cross_entropy_part").reference!([logits, ids], attrs, [type, type]);
  assertEquals([...logit.data], [0, 1, 4, 0, NaN]);
});

Deno.test("a random element depends on seed, name and index alone, not on the shape", () => {
  const draw = (name: string, shape: number[], seed: number[]) => {
    const graph = graphOf([{ dtype: "i32", shape: [2], low: 0, high: 0 }], (builder, [t]) => [
      new Tensor(
        builder,
        builder.emit("random", [t.value], { kind: "normal", name, dtype: "f64", shape, a: 0, b: 1 })[0],
      ),
    ]);
    return [...interpret(graph, { inputs: { x0: seed } }).y0.data];
  };
  assertEquals(draw("w", [2, 3], [1, 2]), draw("w", [12], [1, 2]).slice(0, 6));
  assertEquals(draw("w", [4], [1, 2]).some((x, i) => x === draw("v", [4], [1, 2])[i]), false);
  assertEquals(draw("w", [4], [1, 2]).some((x, i) => x === draw("w", [4], [1, 3])[i]), false);
});
