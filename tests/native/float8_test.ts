import { assert } from "@std/assert";
import { arr } from "../../graph/array.ts";
import { Builder } from "../../graph/builder.ts";
import { interpret, type Memory } from "../../graph/interpret.ts";
import { type Graph, type Node, producers, withNodes } from "../../graph/ir.ts";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { namedParameters } from "../../model/module.ts";
import { compileGraphs } from "../../train/compile.ts";
import { float8ProductsOf } from "../../train/float8.ts";
import { traceMicrobatch } from "../../train/step.ts";
import { precision } from "../graph/passes/on_cpu.ts";
import { golden, goldenBatch, goldenModel, goldenStates } from "../model/parity.ts";
import { norms, testFloat8Parity } from "../train/float8_parity.ts";
import { NativeSession } from "./native.ts";

const tolerances = { tensorwise: 1e-5, rowwise: 0.2, rowwise_with_gw_hp: 0.2, mxfp8: 1e-5 };

testFloat8Parity("the native library", tolerances, async (graph, precision, states) => {
  const shapes = new Map(graph.states.map((s) => [s.name, s.shape]));
  const session = await NativeSession.open([graph], {
    threads: 2,
    memory: new Map([...states].map(([name, data]) => [name, arr(shapes.get(name)!, data)])),
    compile: (graphs, options) => compileGraphs(graphs, { ...options, precision }),
  });
  return {
    run: (inputs) => session.run("microbatch", inputs),
    read: async (name) => (await session.read(name)).data,
    write: (name, data) => session.write(name, data),
    close: () => session[Symbol.dispose](),
  };
});

/** A graph that also gives, for each cast to float8 in order, what is scaled and what comes out. */
function withCasts(graph: Graph): { casts: readonly Node[]; graph: Graph } {
  const builder = Builder.beside(graph), made = producers(graph);
  builder.nodes.push(...graph.nodes);
  const casts = graph.nodes.filter((n) => n.op === "cast" && n.outputs[0].dtype.startsWith("f8"));
  const outputs = casts.flatMap((node, i) => [
    { name: `operand.${i}`, value: made.get(node.inputs[0])!.inputs[0] },
    { name: `cast.${i}`, value: builder.emit("cast", [node.outputs[0]], { dtype: "f32" }, node)[0] },
  ]);
  return { casts, graph: { ...withNodes(graph, builder.nodes, (v) => v), outputs } };
}

/** Places of a cast that differ, but for operands that are nothing but rounding beside the largest, with by how many steps at most. */
function flips(operand: ArrayLike<number>, exact: ArrayLike<number>, actual: ArrayLike<number>) {
  const largest = Array.from(operand).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const places = Array.from(exact).flatMap((x, i) =>
    x !== actual[i] && Math.abs(operand[i]) > 1e-6 * largest ? [i] : []
  );
  const step = (x: number) => Math.max(2 ** Math.floor(Math.log2(Math.abs(x))) / 8, 2 ** -9);
  const steps = places.map((i) =>
    Math.abs(exact[i] - actual[i]) / step(Math.max(Math.abs(exact[i]), Math.abs(actual[i])))
  );
  return { count: places.length, steps: Math.max(0, ...steps) };
}

for (const recipe of ["rowwise", "rowwise_with_gw_hp"] as const) {
  Deno.test(`in float8 ${recipe}, steps of the native library are the interpreter's to 1e-5, or some cast was off by a step before`, async () => {
    const sizes = golden(), model = goldenModel(sizes, false), { batch, tokens: seqLen } = sizes;
    const float8 = float8ProductsOf(model, { recipe, filter: ["output"] });
    const traced = traceMicrobatch(model, { batch, seqLen, dtype: "f32", globalTokens: batch * seqLen });
    const { casts, graph } = withCasts(simplify(precision(traced, { ...fullPrecision, float8 })));
    const shapes = new Map(graph.states.map((s) => [s.name, s.shape]));
    const memory: Memory = new Map([...goldenStates()].map(([name, data]) => [name, arr(shapes.get(name)!, data)]));
    using session = await NativeSession.open([graph], { memory });
    let alike = 0;
    for (const step of [0, 1, 2]) {
      const { tokens, targets, positions } = goldenBatch(step, sizes);
      const rows = { tokens, targets, positions }, ofBatch = (data: ArrayLike<number>) => arr([batch, seqLen], data);
      const inputs = Object.fromEntries(Object.entries(rows).map(([name, data]) => [name, ofBatch(data)]));
      const exact = interpret(graph, { inputs, memory }), actual = await session.run("microbatch", rows);
      const data = (from: typeof actual, name: string) => from[name].data;
      const found = casts.map((_, i) =>
        flips(data(exact, `operand.${i}`), data(exact, `cast.${i}`), data(actual, `cast.${i}`))
      );
      const first = found.find(({ count }) => count > 0);
      assert(
        !first || first.count <= 8 && first.steps <= 1,
        `step ${step} begins to differ by ${JSON.stringify(first)}`,
      );
      if (!first) alike++;
      for (const name of namedParameters(model).keys()) {
        const gradient = memory.get(`gradient/${name}`)!.data, value = memory.get(name)!;
        const [difference, size] = norms((await session.read(`gradient/${name}`)).data, gradient);
        assert(
          first || difference < 1e-5 * size,
          `step ${step}: the gradient of ${name} is off by ${difference / size}`,
        );
        memory.set(name, arr(value.shape, value.data.map((x, i) => x - 0.05 * gradient[i])));
        await session.write(name, memory.get(name)!.data);
      }
    }
    assert(alike > 0, "no step has the interpreter's casts");
  });
}
