/** The rules one by one on small graphs, then the counts that they lead to, then thousands of graphs on meshes.
 * @module */
import { assertEquals, assertThrows } from "@std/assert";
import { Builder, f64, i32 } from "../../graph/builder.ts";
import { type DimRole, gradientOf, type Graph, type Node, type State } from "../../graph/ir.ts";
import { partial, type Placement, replicate, shard } from "../../graph/layout.ts";
import { autodiff } from "../../graph/passes/autodiff.ts";
import { simplify } from "../../graph/passes/simplify.ts";
import { print } from "../../graph/print.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { partition } from "../../parallel/partition.ts";
import type { Layouts, PlanOptions } from "../../parallel/plan.ts";
import { golden } from "../golden.ts";
import { forSeeds, Random, randomGraph } from "../graph/random_graphs.ts";
import { tinyLlama } from "../model/tiny.ts";
import { assertSameOnMesh, layout, layoutsFor } from "./lockstep.ts";
import { randomLayouts, randomMesh } from "./random_layouts.ts";
import { boundPlan, collectivesOf, meshOf, stepGraphs } from "./step_graphs.ts";
import { at } from "../graph/origins.ts";

const parameter = (name: string, ...shape: number[]): State => ({ name, kind: "parameter", ...f64(...shape) });
const gradient = (name: string, ...shape: number[]): State => gradientOf(parameter(name, ...shape));

/** `all_gather tp 1 [4,6]`: the nodes of a partitioned graph but for reads and constants, and what they give. */
function textOf(nodes: readonly Node[]): string[] {
  return nodes.filter((n) => n.op !== "read" && n.op !== "constant").map(({ op, attrs, inputs, outputs }) =>
    [
      op,
      ...(attrs.axes as string[] ?? []),
      ...("dim" in attrs ? [attrs.dim] : []),
      `[${(outputs[0] ?? inputs[0]).shape}]`,
    ]
      .join(" ")
  );
}

/** What becomes of a graph on two ranks of one axis (tp unless the layouts name others), checked to mean the same. */
function partitioned(
  body: (builder: Builder, input: (name: string, ...shape: number[]) => Tensor) => Record<string, Tensor> | void,
  layouts: Layouts,
  { states = [], mesh = { tp: 2 } }: { states?: State[]; mesh?: MeshOptions } = {},
): string[] {
  const graph = traceGraph(
    "g",
    states,
    (builder) => body(builder, (name, ...shape) => new Tensor(builder, builder.input(name, f64(...shape)))),
  );
  for (const seed of [1, 2]) assertSameOnMesh(graph, meshOf(mesh), layouts, seed);
  return textOf(verify(partition(graph, meshOf(mesh), layouts)).nodes);
}

Deno.test("rule 1: a sharded dim stays sharded through ops that keep it", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(0) }) }, states: { s: layout({ tp: shard(1) }) } });
  const text = partitioned(
    (builder, input) => builder.assign("s", input("x", 4, 6).exp().transpose(0, 1).value),
    layouts,
    { states: [{ name: "s", kind: "sum", ...f64(6, 4) }] },
  );
  assertEquals(text, ["exp [2,6]", "transpose [6,2]", "assign [6,2]"]);
});

Deno.test("rule 1: a sharded dim that is summed away leaves summands, or maxima", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(1) }) } });
  const sum = (kind: "sum" | "max") => partitioned((_, input) => ({ y: input("x", 3, 4)[kind](1) }), layouts);
  assertEquals(sum("sum"), ["reduce [3]", "all_reduce tp [3]"]);
  assertEquals(sum("max"), ["reduce [3]", "all_reduce tp [3]"]);
});

Deno.test("rule 1: what an op must see whole is gathered", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(1) }) } });
  const text = partitioned((_, input) => ({ y: input("x", 3, 4).softmax() }), layouts);
  assertEquals(text, ["all_gather tp 1 [3,4]", "softmax [3,4]"]);
});

Deno.test("rule 1: of a joined dim, only the outer part can be cut", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(1) }) }, states: { s: layout({ tp: shard(1) }) } });
  const text = (heads: number) =>
    partitioned((_, input) => ({ y: input("x", 3, 12).reshape("a (h k) -> a h k", { h: heads }) }), layouts);
  assertEquals(text(4), ["reshape [3,2,3]", "all_gather tp 1 [3,4,3]"]);
  assertEquals(text(3), ["all_gather tp 1 [3,12]", "reshape [3,3,4]"]);
});

/** What is done with a state of five numbers that two ranks hold with padding. */
const padded = (body: (builder: Builder) => Record<string, Tensor> | void) =>
  partitioned(body, layoutsFor({ states: { s: layout({ tp: shard(0, { padded: true }) }) } }), {
    states: [{ name: "s", kind: "sum", ...f64(5) }],
  });

Deno.test("rule 1: what has padding is gathered for an op that would make something of it", () => {
  const text = padded((builder) => ({ y: new Tensor(builder, builder.read("s")).exp().sum() }));
  assertEquals(text, ["all_gather tp 0 [6]", "slice [5]", "exp [5]", "reduce []"]);
});

Deno.test("rule 1: padding over two axes does not become a cut that the two do not make evenly", () => {
  const placement = shard(0, { padded: true });
  const text = partitioned(
    (builder) => ({ y: new Tensor(builder, builder.read("s")).exp().sum() }),
    layoutsFor({ states: { s: layout({ dp_shard: placement, cp: placement }) } }),
    { states: [{ name: "s", kind: "sum", ...f64(6) }], mesh: { dp_shard: 2, cp: 2 } },
  );
  assertEquals(text.filter((line) => line.startsWith("exp")), ["exp [3]"]);
});

Deno.test("a constant is padded with zeros, so that it counts nothing in a norm", () => {
  const text = padded((builder) => {
    builder.assign("s", builder.emit("constant", [], { value: 1, dtype: "f64", shape: [5] })[0]);
  });
  assertEquals(text, ["concat 0 [6]", "slice_by_rank tp 0 [3]", "assign [3]"]);
});

const weights = { states: { w: layout({ tp: shard(0) }) }, used: { w: layout({ tp: shard(0) }) } };

Deno.test("rule 2b: beside a sharded parameter, activations move", () => {
  const layouts = layoutsFor({ ...weights, inputs: { x: layout({ tp: shard(0) }) } });
  const text = partitioned(
    (builder, input) => ({ y: input("x", 4, 6).contract("t i, o i -> t o", new Tensor(builder, builder.read("w"))) }),
    layouts,
    { states: [parameter("w", 8, 6)] },
  );
  assertEquals(text, ["all_gather tp 0 [4,6]", "contract [4,4]", "all_gather tp 1 [4,8]"]);
});

Deno.test("rule 2a: the gradient of a parameter takes the parameter's layout, whatever its operands lie like", () => {
  const shards = layout({ tp: shard(1) });
  const layouts = layoutsFor({
    states: { w: shards, "gradient/w": shards },
    used: { w: shards },
    inputs: { dy: layout({ tp: shard(0) }), x: layout({ tp: shard(0) }) },
  });
  const text = partitioned(
    (builder, input) => {
      const [a, b] = ["dy", "x"].map((name) => input(name, 4, 6));
      builder.accumulate("gradient/w", a.contract("t o, t i -> o i", b).add(a.contract("t o, t i -> o i", b)).value);
    },
    layouts,
    { states: [parameter("w", 6, 6), gradient("w", 6, 6)] },
  );
  // Else each product would be summands over t.
  assertEquals(text, [
    "all_gather tp 0 [4,6]",
    "all_to_all tp [4,3]",
    "contract [6,3]",
    "contract [6,3]",
    "add [6,3]",
    "accumulate [6,3]",
  ]);
});

Deno.test("rule 2c: sharded operands agree on the first one's dim, and summands are brought there", () => {
  const layouts = layoutsFor({
    inputs: { x: layout({ tp: shard(0) }), y: layout({ tp: shard(1) }), z: layout({ tp: partial() }) },
  });
  const text = partitioned((_, input) => {
    const [x, y, z] = ["x", "y", "z"].map((name) => input(name, 4, 6));
    return { sum: x.add(y).mul(z) };
  }, layouts);
  assertEquals(text, [
    "all_to_all tp [2,6]",
    "add [2,6]",
    "reduce_scatter tp 0 [2,6]",
    "mul [2,6]",
    "all_gather tp 0 [4,6]",
  ]);
});

Deno.test("rule 2c: a cut that the result keeps goes before one that would leave summands", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(1) }), ids: layout({ tp: shard(0) }) } });
  const rows = partitioned((builder, input) => {
    const ids = new Tensor(builder, builder.input("ids", i32(4, 3)));
    return { y: input("x", 4, 6, 2).take(ids) };
  }, layouts);
  assertEquals(rows, ["all_to_all tp [2,6,2]", "take [2,3,2]", "all_gather tp 0 [4,3,2]"]);
  // Where no operand offers one, summands they are.
  const all = partitioned((builder, input) => {
    const ids = new Tensor(builder, builder.input("ids", i32(4, 3)));
    return { y: input("x", 4, 6, 2).take(ids) };
  }, layoutsFor({ inputs: { x: layout({ tp: shard(1) }) } }));
  assertEquals(all, ["take [4,3,2]", "all_reduce tp [4,3,2]"]);
});

Deno.test("rule 2d: summands stay summands through linear ops, and are reduced for others", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: partial() }), z: layout({ tp: partial() }) } });
  const text = (last: (x: Tensor, z: Tensor) => Tensor) =>
    partitioned((_, input) => ({ y: last(input("x", 4, 6).neg(), input("z", 4, 6)) }), layouts);
  assertEquals(text((x, z) => x.sub(z)), ["neg [4,6]", "sub [4,6]", "all_reduce tp [4,6]"]);
  assertEquals(text((x) => x.exp()), ["neg [4,6]", "all_reduce tp [4,6]", "exp [4,6]"]);
  assertEquals(text((x, z) => x.mul(z)), [
    "neg [4,6]",
    "all_reduce tp [4,6]",
    "all_reduce tp [4,6]",
    "mul [4,6]",
  ]);
});

Deno.test("rule 3: summands of several uses are resolved where they are made, in the residual layout", () => {
  const inputs = { x: layout({ tp: partial() }) };
  const text = (residual: Record<string, Placement>, roles?: readonly DimRole[]) =>
    partitioned((builder) => {
      const y = new Tensor(builder, builder.input("x", f64(2, 4, 3), roles)).neg();
      return { y: y.exp().add(y) };
    }, layoutsFor({ inputs, residual: layout(residual) }));
  const stream: readonly DimRole[] = ["batch", "sequence", "features"];
  assertEquals(text({ tp: shard(1) }, stream), [
    "neg [2,4,3]",
    "reduce_scatter tp 1 [2,2,3]",
    "exp [2,2,3]",
    "add [2,2,3]",
    "all_gather tp 1 [2,4,3]",
  ]);
  const reduced = ["neg [2,4,3]", "all_reduce tp [2,4,3]", "exp [2,4,3]", "add [2,4,3]"];
  assertEquals([text({}, stream), text({ tp: shard(1) })], [reduced, reduced]);
});

Deno.test("rule 3: a result of the graph is a use: what it shares with a linear op is reduced once", () => {
  const text = partitioned((_, input) => {
    const y = input("x", 4).neg();
    return { y, z: y.mul(2) };
  }, layoutsFor({ inputs: { x: layout({ tp: partial() }) } }));
  assertEquals(text, ["neg [4]", "all_reduce tp [4]", "mul [4]"]);
});

Deno.test("rule 3: a whole value becomes summands for nothing, where that saves an exchange", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: partial() }) } });
  const once = partitioned((_, input) => ({ y: input("x", 4).add(input("z", 4)).neg() }), layouts);
  assertEquals(once, ["keep_on_first tp [4]", "add [4]", "neg [4]", "all_reduce tp [4]"]);
  // The sum would be resolved at once: its operand is, instead.
  const twice = partitioned((_, input) => {
    const y = input("x", 4).add(input("z", 4));
    return { y: y.neg(), z: y.exp() };
  }, layouts);
  assertEquals(twice, ["all_reduce tp [4]", "add [4]", "neg [4]", "exp [4]"]);
});

Deno.test("rule 3: a norm over sharded and whole values is one exchange", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(0) }), y: layout({ tp: shard(1) }) } });
  const text = partitioned((_, input) => {
    const [x, y, z] = [input("x", 4, 6), input("y", 4, 6), input("z", 5)];
    return { norm: x.apply("sum_squares", [y, z])[0].sqrt() };
  }, layouts);
  assertEquals(text, ["keep_on_first tp [5]", "sum_squares []", "all_reduce tp []", "sqrt []"]);
});

Deno.test("rule 3: summands are reduced before they are squared, to shards where they can be", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(0) }), y: layout({ tp: partial() }) } });
  const text = (rows: number) =>
    partitioned((_, input) => ({ y: input("x", 4).apply("sum_squares", [input("y", rows)])[0] }), layouts);
  assertEquals(text(6), ["reduce_scatter tp 0 [3]", "sum_squares []", "all_reduce tp []"]);
  assertEquals(text(5), ["all_gather tp 0 [4]", "all_reduce tp [5]", "sum_squares []"]);
});

/** Attention whose queries, keys and values are cut along the sequence, and the gradients of keys and values. */
function attention(keys: Placement): string[] {
  const places = layout({ cp: shard(1) }), head = layout({ cp: keys });
  const graph = traceGraph("g", [], (builder) => {
    const [q, k, v] = ["q", "k", "v"].map((name) => new Tensor(builder, builder.input(name, f64(1, 4, 2, 2))));
    const positions = new Tensor(builder, builder.input("positions", i32(1, 4)));
    return { loss: q.apply("attention", [k, v, positions, positions], { scale: 0.7 })[0].square().sum() };
  });
  const layouts = layoutsFor({ inputs: { q: places, k: head, v: head, positions: places } });
  const builder = Builder.extend(simplify(autodiff(graph, { of: "loss", inputs: ["k", "v"], keep: false })));
  builder.origin = at("'");
  // Linear work on the gradients, through which summands might travel.
  const negated = builder.outputs.map(({ value }) => new Tensor(builder, value).neg().value);
  negated.forEach((value, i) => builder.outputs[i] = { name: `y${i}`, value });
  const both = builder.finish();
  assertSameOnMesh(both, meshOf({ cp: 2 }), layouts, 1);
  const text = textOf(partition(both, meshOf({ cp: 2 }), layouts).nodes);
  return text.slice(text.findIndex((t) => t.startsWith("attention_backward")) + 1);
}

Deno.test("rule 4: the gradient of a value takes its layout, that of summands is whole", () => {
  assertEquals(attention(shard(1)).slice(0, 2), Array(2).fill("reduce_scatter cp 1 [1,2,2,2]"));
  const reduced = [...Array(2).fill("all_reduce cp [1,4,2,2]"), ...Array(2).fill("neg [1,4,2,2]")];
  assertEquals(attention(replicate), reduced);
  assertEquals(attention(partial()), reduced);
});

Deno.test("rule 5: a conversion is made once for each value and target", () => {
  const layouts = layoutsFor({ inputs: { x: layout({ tp: shard(1) }) } });
  const text = partitioned((_, input) => {
    const x = input("x", 4, 6);
    return { y: x.softmax(), z: x.exp().sum(1), w: x.softmax().exp() };
  }, layouts);
  assertEquals(text.filter((t) => t.startsWith("all_gather")), ["all_gather tp 1 [4,6]"]);
});

Deno.test("rule 5: equal conversions over several axes are one, over the joint group", () => {
  const sharded = layout({ dp_shard: shard(0), cp: shard(0) });
  const text = partitioned(
    (builder, input) => {
      const w = new Tensor(builder, builder.read("w")), x = input("x", 12, 6);
      builder.accumulate("gradient/w", x.contract("t o, t i -> o i", x).value);
      return { y: w.exp() };
    },
    layoutsFor({
      states: { w: sharded, "gradient/w": sharded },
      inputs: { x: layout({ dp_shard: shard(0), cp: shard(0) }) },
    }),
    { states: [parameter("w", 6, 6), gradient("w", 6, 6)], mesh: { dp_shard: 2, cp: 3 } },
  ).filter((t) => /all_|scatter/.test(t));
  assertEquals(text, ["reduce_scatter dp_shard cp 0 [1,6]", "all_gather dp_shard cp 0 [6,6]"]);
});

Deno.test("a gradient that is a sum of sums of the same is followed once, however many ways there are", () => {
  const sharded = layout({ tp: shard(0) });
  const text = partitioned(
    (builder, input) => {
      let sum = input("x", 4, 6);
      for (let i = 0; i < 48; i++) sum = sum.add(sum);
      builder.accumulate("gradient/w", sum.value);
    },
    layoutsFor({ states: { w: sharded, "gradient/w": sharded } }),
    { states: [parameter("w", 4, 6), gradient("w", 4, 6)] },
  );
  assertEquals(text.filter((t) => t.startsWith("add")).length, 48);
});

Deno.test("an op whose record has no split is done whole by every rank, which is told once", () => {
  const program = { constants: [], steps: [["exp", 0]], results: [1] };
  const graph = traceGraph("g", [], (builder) => {
    const [x, y] = ["x", "y"].map((name) => new Tensor(builder, builder.input(name, f64(4, 6))));
    builder.origin = at("layers.0");
    const map = (t: Tensor) => t.apply("map", [], { program, dtype: "f64", shape: [4, 6] })[0];
    return { x: map(x), again: map(x.neg()), y: map(y) };
  });
  const cut = layoutsFor({ inputs: { x: layout({ tp: shard(1) }) } }), whole = layoutsFor({});
  const notices = (layouts: typeof cut) => partition(graph, meshOf({ tp: 2 }), layouts).notices;
  const says = `does "map" of layers.0 whole on every rank, since its record has no split: what it reads is gathered`;
  assertEquals([notices(cut), notices(whole)], [[says], []]);
});

Deno.test("the result of a module lies as the plan says", () => {
  const text = partitioned((builder, input) => {
    const y = input("x", 4, 6).neg();
    builder.activations.push({ name: "output", value: y.value });
    return { y: y.exp().sum() };
  }, layoutsFor({ inputs: { x: layout({ tp: shard(1) }) }, activations: { output: layout({ tp: replicate }) } }));
  assertEquals(text, ["neg [4,3]", "all_gather tp 1 [4,6]", "exp [4,6]", "reduce []"]);
  const cut = () =>
    partitioned((builder, input) => {
      builder.origin = at("output");
      const y = input("x", 5).neg();
      builder.activations.push({ name: "output", value: y.value });
      return { y };
    }, layoutsFor({ activations: { output: layout({ tp: shard(0) }) } }));
  assertThrows(cut, RangeError, 'Cannot cut the result of "output", [5], over tp as the plan says');
});

Deno.test("an input that cannot be shared out is refused by its name", () => {
  const run = () =>
    partitioned((_, input) => ({ y: input("x", 5) }), layoutsFor({ inputs: { x: layout({ tp: shard(0) }) } }));
  assertThrows(run, RangeError, `Cannot cut dim 0 of input "x" [5] into 2 equal slices over tp`);
});

Deno.test("random values are made in the box that is asked for", () => {
  const states: State[] = [{ name: "s", kind: "parameter", ...f64(4, 6) }];
  const text = partitioned(
    (builder) => {
      const seed = builder.input("seed", i32(2));
      const attrs = { kind: "normal", name: "s", shape: [4, 6], dtype: "f64", a: 0, b: 1 };
      builder.assign("s", builder.emit("random", [seed], attrs)[0]);
    },
    layoutsFor({ states: { s: layout({ tp: shard(1), dp_shard: shard(0) }) } }),
    { states, mesh: { tp: 2, dp_shard: 2 } },
  );
  assertEquals(text, ["random [2,3]", "assign [2,3]"]);
});

/** Number of collectives of one block of a Llama over an axis. */
function counts(
  options: MeshOptions,
  plan: PlanOptions,
  axis: string,
  modules = /^layers\.1\b/,
): Record<string, number> {
  const model = tinyLlama({ numLayers: 3 }), mesh = meshOf(options);
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  return collectivesOf(partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs, plan)), axis, modules);
}

Deno.test("a block with tensor and sequence parallelism gathers and scatters twice each way, and reduces two norms", () => {
  const expected = { all_gather: 2, reduce_scatter: 2, "all_gather'": 2, "reduce_scatter'": 2, "all_reduce'": 2 };
  assertEquals(counts({ tp: 2 }, {}, "tp"), expected);
  assertEquals(counts({ dp_shard: 2, cp: 2, tp: 2 }, {}, "tp"), expected);
});

Deno.test("a block without sequence parallelism reduces twice each way", () => {
  assertEquals(counts({ tp: 2 }, { sequenceParallel: false }, "tp"), { all_reduce: 2, "all_reduce'": 2 });
});

Deno.test("with sequence parallelism the residual stream of a rank has 1/tp of the tokens, without it all", () => {
  const shapes = (plan: PlanOptions) => {
    const model = tinyLlama({ numLayers: 3 }), mesh = meshOf({ tp: 2 });
    const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
    const { nodes } = partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs, plan));
    const sums = nodes.filter((n) => n.op === "add" && /^layers\.\d$/.test(n.scope));
    return sums.map((n) => String(n.outputs[0].shape));
  };
  assertEquals(shapes({}), Array(6).fill("4,4,16"));
  assertEquals(shapes({ sequenceParallel: false }), Array(6).fill("4,8,16"));
});

Deno.test("FSDP gathers every parameter once and scatters its gradient once", () => {
  assertEquals(counts({ dp_shard: 2 }, {}, "dp_shard"), { all_gather: 9, "reduce_scatter'": 9 });
  assertEquals(counts({ dp_shard: 2 }, {}, "dp_shard", /^/), { all_gather: 30, "reduce_scatter'": 30 });
  // On both axes at one go.
  assertEquals(counts({ dp_shard: 2, cp: 2 }, {}, "dp_shard", /^/), { all_gather: 30, "reduce_scatter'": 30 });
});

Deno.test("a block with context parallelism gathers keys and values, and scatters their gradients", () => {
  // Beside what sharded parameters need.
  assertEquals(counts({ cp: 2 }, {}, "cp"), { all_gather: 9 + 2, "reduce_scatter'": 9 + 2 });
});

Deno.test("DDP reduces nothing in a microbatch, and every gradient once in the update", () => {
  assertEquals(counts({ dp_replicate: 2 }, {}, "dp_replicate", /^/), {});
  const model = tinyLlama({ numLayers: 3 }), mesh = meshOf({ dp_replicate: 2 });
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  const { nodes } = partition(graphs.update, mesh, boundPlan(model, mesh, graphs));
  const reduced = nodes.filter((n) => n.op === "all_reduce").map((n) => n.outputs[0].shape.length);
  assertEquals([reduced.filter((r) => r > 0).length, reduced.filter((r) => r === 0).length], [30, 2]);
  assertEquals(nodes.filter((n) => n.op === "all_gather" || n.op === "reduce_scatter"), []);
});

Deno.test("loss parallelism reduces one maximum, then two sums for each token", () => {
  const model = tinyLlama(),
    mesh = meshOf({ tp: 2 }),
    graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  const { nodes } = partition(graphs.microbatch, mesh, boundPlan(model, mesh, graphs));
  const exchanges = nodes.filter((n) => n.scope.startsWith("cross_entropy") && n.attrs.axes);
  assertEquals(textOf(exchanges), Array(2).fill("all_reduce tp [4,8]"));
  assertEquals(exchanges.map((n) => [n.attrs.by, n.inputs.length]), [["max", 1], ["sum", 2]]);
  assertEquals(counts({ tp: 2 }, { lossParallel: false }, "tp", /^output/), {
    all_gather: 2,
    "slice_by_rank'": 1,
  });
});

Deno.test("the global norm of gradients is one exchange, whatever shards they lie in", () => {
  const model = tinyLlama(), mesh = meshOf({ dp_replicate: 2, dp_shard: 2, tp: 2 });
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" });
  const { nodes } = partition(graphs.update, mesh, boundPlan(model, mesh, graphs));
  const scalars = nodes.filter((n) => n.op === "all_reduce" && n.outputs[0].shape.length === 0);
  assertEquals(scalars.map((n) => n.attrs.axes), [
    ["dp_replicate", "dp_shard"],
    ["dp_shard", "tp"],
    ["dp_replicate", "dp_shard"],
  ]);
});

Deno.test("partition prints the graphs of a small Llama for a rank of every axis", () => {
  const model = tinyLlama({ numLayers: 1 }), mesh = meshOf({ dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 });
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" }), plan = boundPlan(model, mesh, graphs);
  const texts = [graphs.initialize, graphs.microbatch, graphs.update].map((g) =>
    print(verify(partition(g, mesh, plan)))
  );
  golden("parallel/partition", [`${plan}`, ...texts].join("\n"));
});

Deno.test("a graph on one rank stays as it is", () => {
  const model = tinyLlama({ numLayers: 1 }), mesh = meshOf({});
  const graphs = stepGraphs(model, { batch: 4, seqLen: 8, dtype: "f32" }), plan = boundPlan(model, mesh, graphs);
  const text = (graph: Graph) => textOf(graph.nodes);
  for (const graph of Object.values(graphs)) assertEquals(text(partition(graph, mesh, plan)), text(graph));
});

Deno.test("partition leaves its graph alone", () => {
  const graph = randomGraph(1, { sizes: [2, 4] }), text = print(graph), random = new Random(1);
  partition(graph, randomMesh(random), randomLayouts(graph, randomMesh(random), random));
  assertEquals(print(graph), text);
});

/** A random graph, with its gradient every other time, on a random mesh in random layouts. */
function checkRandom(seed: number, steps: [number, number], sizes: readonly number[]): void {
  const random = new Random(seed), forward = randomGraph(seed, { steps, sizes });
  const states = forward.states.filter((s) => s.kind === "parameter").map((s) => s.name);
  const graph = random.oneIn(2) ? forward : autodiff(forward, { of: "loss", states });
  const step = random.oneIn(2) ? simplify(graph) : graph, mesh = randomMesh(random);
  assertSameOnMesh(step, mesh, randomLayouts(step, mesh, random), seed);
}

Deno.test("small random graphs mean the same on random meshes in random layouts", () => {
  forSeeds(1500, (seed) => checkRandom(seed, [1, 6], [2, 4, 6]));
});

Deno.test("larger ones do, and sizes that nothing divides", () => {
  forSeeds(100, (seed) => checkRandom(seed, [10, 30], [2, 4, 6]));
  forSeeds(100, (seed) => checkRandom(seed, [5, 20], [1, 2, 3, 5]));
});

Deno.test("a norm, AdamW and initial values mean the same in random layouts, with padding too", () => {
  forSeeds(500, (seed) => {
    const random = new Random(seed), mesh = randomMesh(random);
    const shapes = [[random.pick([3, 4, 6]), 4], [random.pick([5, 8])], []];
    const states = shapes.flatMap((shape, k) =>
      (["parameter", "moment", "moment", "gradient"] as const).map((kind, i): State => ({
        name: `${["", "m/", "v/", "gradient/"][i]}${k}`,
        kind,
        ...(kind === "parameter" ? {} : { of: `${k}` }),
        ...f64(...shape),
      }))
    );
    const graph = traceGraph("update", states, (builder) => {
      const read = (name: string) => new Tensor(builder, builder.read(name));
      const gradients = shapes.map((_, k) => read(`gradient/${k}`));
      const norm = gradients[0].apply("sum_squares", gradients.slice(1))[0].sqrt();
      const [lr, step] = [norm.constant(0.1), norm.constant(2)];
      shapes.forEach((shape, k) => {
        const operands = [read(`m/${k}`), read(`v/${k}`).abs(), gradients[k], lr, step, norm.add(1).reciprocal()];
        const attrs = { beta1: 0.9, beta2: 0.95, eps: 1e-2, weight_decay: 0.1 };
        const [p, m] = read(`${k}`).apply("adamw", operands, attrs);
        builder.assign(`${k}`, p.value);
        builder.assign(`m/${k}`, m.value);
        const draw = { kind: "uniform", name: `v/${k}`, shape, dtype: "f64", a: 0, b: 1 };
        builder.assign(
          `v/${k}`,
          builder.emit("random", [builder.inputs[0]?.value ?? builder.input("seed", i32(2))], draw)[0],
        );
      });
      return { norm };
    });
    assertSameOnMesh(graph, mesh, randomLayouts(graph, mesh, random), seed);
  });
});
