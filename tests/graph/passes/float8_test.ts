import { assert, assertEquals } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { type Builder, f32 } from "../../../graph/builder.ts";
import { interpret } from "../../../graph/interpret.ts";
import type { Graph } from "../../../graph/ir.ts";
import { autodiff } from "../../../graph/passes/autodiff.ts";
import type { Float8Recipe } from "../../../graph/passes/float8.ts";
import { fullPrecision, type Precision } from "../../../graph/passes/precision.ts";
import { remat } from "../../../graph/passes/remat.ts";
import { simplify } from "../../../graph/passes/simplify.ts";
import { print } from "../../../graph/print.ts";
import { verify } from "../../../graph/verify.ts";
import { Linear } from "../../../model/layers.ts";
import { bind, Module } from "../../../model/module.ts";
import { Tensor } from "../../../graph/tensor.ts";
import { traceGraph } from "../../../graph/trace.ts";
import { assertSameMeaning } from "../random_graphs.ts";
import { fuse, precision } from "./on_cpu.ts";

/** Two layers and what lies between them. */
class Layers extends Module {
  readonly first = new Linear(32, 48);
  readonly second = new Linear(48, 16);
  forward(x: Tensor): Tensor {
    return this.second.forward(this.first.forward(x).silu()).square().sum();
  }
}

const names = ["first.weight", "second.weight"];

function layersGraph(): Graph {
  const model = new Layers();
  const forward = traceGraph("layers", [], (builder: Builder) => {
    const x = new Tensor(builder, builder.input("x", f32(2, 8, 32)));
    return { loss: bind(model, { builder, dtype: "f32" }, () => model.forward(x)) };
  });
  return autodiff(forward, { of: "loss", seed: 1, states: names, keep: true });
}

const inFloat8 = (recipe: Float8Recipe, options: Partial<Precision> = {}, weights = names): Graph =>
  verify(
    simplify(precision(layersGraph(), { ...fullPrecision, ...options, float8: { recipe, weights: new Set(weights) } })),
  );

const wave = (size: number, shift: number) =>
  Float64Array.from({ length: size }, (_, i) => Math.sin(i * 1.7 + shift) / 4);

/** The loss and the gradients of both weights. */
function run(graph: Graph): Record<string, Float64Array> {
  const memory = new Map([["first.weight", arr([48, 32], wave(1536, 1))], [
    "second.weight",
    arr([16, 48], wave(768, 2)),
  ]]);
  const { loss } = interpret(graph, { inputs: { x: wave(512, 3) }, memory });
  return {
    loss: loss.data,
    ...Object.fromEntries(names.map((n) => [n, memory.get(`gradient/${n}`)!.data])),
  };
}

/** Products by the types of their operands, in order. */
const products = (graph: Graph): string[] =>
  graph.nodes.filter((n) => n.op === "contract").map((n) => n.inputs.map((v) => v.dtype).join(" "));

Deno.test("each recipe multiplies its own operands in float8, forward and backward", () => {
  const [e4m3, e5m2] = ["f8e4m3", "f8e5m2"];
  const [forward, gradient] = [`${e4m3} ${e4m3}`, `${e5m2} ${e4m3}`];
  assertEquals(products(inFloat8("tensorwise")), [forward, forward, gradient, gradient, gradient]);
  assertEquals(products(inFloat8("rowwise")), Array(5).fill(forward));
  // Gradients of weights stay as they are: the first of the second layer's, then both of the others.
  assertEquals(products(inFloat8("rowwise_with_gw_hp")).toSorted(), [
    ...Array(2).fill("f32 f32"),
    ...Array(3).fill(forward),
  ]);
  assertEquals(products(inFloat8("rowwise_with_gw_hp", { param: "bf16" })).filter((t) => t === "bf16 bf16").length, 2);
});

Deno.test("only the products of the named weights are converted, and a graph in f64 stays as it is", () => {
  assertEquals(products(inFloat8("tensorwise", {}, ["second.weight"])).filter((t) => t === "f32 f32").length, 2);
  const double = traceGraph("double", [], (b) => {
    const model = new Layers(), x = new Tensor(b, b.input("x", { dtype: "f64", shape: [2, 8, 32] }));
    return { loss: bind(model, { builder: b, dtype: "f64" }, () => model.forward(x)) };
  });
  const float8 = { recipe: "tensorwise", weights: new Set(names) } as const;
  assertEquals(print(precision(double, { ...fullPrecision, float8 })), print(double));
});

Deno.test("what float8 gives is close to what it stands for, and not the same", () => {
  const exact = run(layersGraph());
  for (const recipe of ["tensorwise", "rowwise", "rowwise_with_gw_hp"] as const) {
    const rounded = run(inFloat8(recipe));
    for (const [name, data] of Object.entries(exact)) {
      const norm = (f: (x: number, i: number) => number) =>
        Math.sqrt(data.reduce((sum, x, i) => sum + f(x, i) ** 2, 0));
      const error = norm((x, i) => x - rounded[name][i]) / norm((x) => x);
      assert(error > 1e-4 && error < 0.1, `${name} is off by ${error} in ${recipe}`);
    }
  }
});

Deno.test("a value twice as large is scaled half as much: tensorwise, nothing but the exponent of what comes out changes", () => {
  const graph = inFloat8("tensorwise"), { loss } = run(graph);
  const memory = new Map([["first.weight", arr([48, 32], wave(1536, 1))], [
    "second.weight",
    arr([16, 48], wave(768, 2).map((x) => 2 * x)),
  ]]);
  assertEquals(interpret(graph, { inputs: { x: wave(512, 3) }, memory }).loss.data[0], 4 * loss[0]);
});

Deno.test("a tensor of zeros stays zeros, and one that is not finite gives no number", () => {
  const graph = inFloat8("tensorwise");
  const lossOf = (x: Float64Array) => {
    const memory = new Map([["first.weight", arr([48, 32], wave(1536, 1))], [
      "second.weight",
      arr([16, 48], wave(768, 2)),
    ]]);
    return interpret(graph, { inputs: { x }, memory }).loss.data[0];
  };
  assertEquals(lossOf(new Float64Array(512)), 0);
  for (const bad of [Infinity, NaN]) assertEquals(lossOf(wave(512, 3).with(7, bad)), NaN);
});

Deno.test("remat and fuse keep the meaning of float8, and casts become part of other kernels", () => {
  for (const recipe of ["tensorwise", "rowwise", "rowwise_with_gw_hp"] as const) {
    for (const param of ["f32", "bf16"] as const) {
      const before = inFloat8(recipe, { param }), after = verify(fuse(verify(remat(before))));
      assertSameMeaning(before, after, 1);
      assertEquals(after.nodes.filter((n) => n.op === "cast").length, 0);
    }
  }
});
