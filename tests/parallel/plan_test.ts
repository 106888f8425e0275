import { assertEquals, assertThrows } from "@std/assert";
import { f64 } from "../../graph/builder.ts";
import { gradientOf, type Graph, momentsOf, type State, type StateKind } from "../../graph/ir.ts";
import { LayoutError, layoutText, shard } from "../../graph/layout.ts";
import { traceGraph } from "../../graph/trace.ts";
import { llamaPlan } from "../../model/llama_plan.ts";
import { BoundPlan, dataPlan, type Plan, planOf } from "../../parallel/plan.ts";
import { tinyLlama } from "../model/tiny.ts";
import { layoutTextOn, type MeshOptions } from "../../parallel/mesh.ts";
import { boundPlan, meshOf, stepGraphs } from "./step_graphs.ts";

const state = (name: string, kind: StateKind, ...shape: number[]): State => ({ name, kind, ...f64(...shape) });
const [w, scale] = [state("w", "parameter", 8, 6), state("scale", "parameter")];

/** A graph that knows some states, and a module that gives one. */
function graphWith(...states: State[]): Graph {
  return traceGraph("g", states, (builder) => {
    builder.input("tokens", { dtype: "i32", shape: [8, 8] }, ["batch", "sequence"]);
    builder.input("lr", f64());
    builder.activations.push({ name: "layers.0.mixer", value: builder.read(states[0].name) });
  });
}

const all = [
  w,
  scale,
  momentsOf(w)[0],
  gradientOf(w),
  gradientOf(scale),
  state("loss_sum", "sum"),
];
const mesh = meshOf({ dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 });
const bound = (parameters: Plan["parameters"], states = all) =>
  new BoundPlan({ ...dataPlan, parameters }, mesh, [graphWith(...states)]);

Deno.test("without a word, data axes shard dim 0 of parameters, moments and gradient sums, and copies keep summands", () => {
  const plan = bound([]), text = (name: string) => layoutText(plan.state(all.find((s) => s.name === name)!));
  assertEquals(text("w"), "dp_shard: Shard(0), cp: Shard(0)");
  assertEquals(text("moment1/w"), text("w"));
  assertEquals(text("gradient/w"), "dp_shard: Shard(0), cp: Shard(0), dp_replicate: Partial(sum)");
  assertEquals(layoutText(plan.used(all[0])), "Replicate");
});

Deno.test("a scalar is whole, and its gradient what each rank has added up, as sums are", () => {
  const plan = bound([]), summands = "cp: Partial(sum), dp_replicate: Partial(sum), dp_shard: Partial(sum)";
  assertEquals([1, 4, 5].map((i) => layoutText(plan.state(all[i]))), ["Replicate", summands, summands]);
});

Deno.test("the batch and the sequence of inputs are shared out, scalars are everybody's", () => {
  const plan = bound([]), [tokens, lr] = graphWith(...all).inputs;
  assertEquals(layoutText(plan.input(tokens)), "dp_replicate: Shard(0), dp_shard: Shard(0), cp: Shard(1)");
  assertEquals(layoutText(plan.input(lr)), "Replicate");
});

Deno.test("tp cuts a dim before data axes do, so that what they gather is one box", () => {
  const tp = { tp: shard(0) }, plan = bound([{ pattern: "w", stored: tp, used: tp, gradient: tp }]);
  assertEquals(layoutText(plan.state(all[0])), "tp: Shard(0), dp_shard: Shard(0), cp: Shard(0)");
  assertEquals(layoutText(plan.used(all[0])), "tp: Shard(0)");
});

Deno.test("caches are whole unless a rule cuts them, whose pattern has to match where there are caches at all", () => {
  const keys = { name: "cache/keys", kind: "cache", dtype: "f32", shape: [2, 8, 6] } as const,
    graphs = [graphWith(keys)];
  const rules = [{ pattern: "cache/*", layout: { tp: shard(2) }, parts: { 2: 2 } }];
  const layoutOf = (caches: Plan["caches"]) =>
    layoutText(new BoundPlan({ ...dataPlan, caches }, mesh, graphs).state(keys));
  assertEquals([layoutOf([]), layoutOf(rules)], ["Replicate", "tp: Shard(2)"]);
  assertThrows(
    () => layoutOf([{ ...rules[0], pattern: "keys" }]),
    LayoutError,
    "matches no cache: expected one of cache/keys",
  );
  assertThrows(() => layoutOf([{ ...rules[0], parts: { 2: 3 } }]), LayoutError, "is 3 parts that belong together");
  new BoundPlan({ ...dataPlan, caches: rules }, mesh, [graphWith(...all)]); // a step of training has none
});

Deno.test("a pattern that matches nothing is an error that names what there is", () => {
  assertThrows(
    () => bound([{ pattern: "layers.*.w" }]),
    RangeError,
    `The plan's pattern "layers.*.w" matches no parameter: expected one of w, scale; remove the pattern, or correct it`,
  );
  const activations = [{ pattern: "layers.*.attention", layout: {} }];
  assertThrows(
    () => new BoundPlan({ ...dataPlan, activations }, mesh, [graphWith(...all)]),
    RangeError,
    `matches no module: expected one of layers.0.mixer`,
  );
});

Deno.test("a name that two patterns match is an error that names both", () => {
  assertThrows(
    () => bound([{ pattern: "w" }, { pattern: "*" }]),
    RangeError,
    `The plan's patterns "w" and "*" both match parameter "w": expected one`,
  );
});

Deno.test("a star stands for one part of a name, and a dot for a dot", () => {
  const states = ["layers.0.wq", "layers.0.sub.wq", "layersx0.wq"].map((name) => state(name, "parameter", 4, 4));
  const tp = { tp: shard(1) };
  const plan = bound([{ pattern: "layers.*.wq", used: tp }], states);
  assertEquals(states.map((s) => layoutText(plan.used(s))), ["tp: Shard(1)", "Replicate", "Replicate"]);
});

/** The layouts of four experts, stored and in use, and of their gradient sum. */
function expertLayouts(options: MeshOptions, shape: readonly number[] = [4, 6, 8]): string[] {
  const up = state("up", "parameter", ...shape), on = meshOf(options);
  const parameters = [{ pattern: "up", role: "expert", parts: shape[0] }] as const;
  const model = { parameters, logits: "head", residual: [] };
  const plan = new BoundPlan(planOf(model), on, [graphWith(up, gradientOf(up))]);
  return [plan.state(up), plan.used(up), plan.state(gradientOf(up))].map((layout) => layoutTextOn(on, layout));
}

Deno.test("experts lie on the ranks of ep, and what is left of the data axes cuts the first dim that it can", () => {
  const rest = (dim: number) => `ep: Shard(0), dp_shard_mod_ep: Shard(${dim})`;
  assertEquals(expertLayouts({ dp_shard: 4, ep: 2 }), [rest(0), "ep: Shard(0)", rest(0)]);
  assertEquals(expertLayouts({ dp_shard: 6, ep: 2 })[0], rest(1));
  assertEquals(expertLayouts({ dp_shard: 16, ep: 2 })[0], rest(2));
  assertEquals(expertLayouts({ dp_shard: 10, ep: 2 }), [
    "ep: Shard(0), dp_shard_mod_ep: Shard(0, padded)",
    "ep: Shard(0)",
    "ep: Shard(0), dp_shard_mod_ep: Shard(0, padded)",
  ]);
  assertEquals(expertLayouts({ dp_shard: 2, cp: 2, ep: 4 })[0], "dp_shard: Shard(0), cp: Shard(0)");
  assertEquals(expertLayouts({ dp_replicate: 2, dp_shard: 8 }), [
    "dp_shard: Shard(2)",
    "Replicate",
    "dp_shard: Shard(2), dp_replicate: Partial(sum)",
  ]);
  assertThrows(
    () => expertLayouts({ dp_shard: 3, ep: 3 }),
    RangeError,
    'Cannot cut "up" over ep: dim 0 of [4,6,8] is 4 parts that belong together, not a multiple of 3; change ' +
      "parallelism.expert_parallel_degree, or the model's size",
  );
});

Deno.test("dims are shared out by what they count, whichever they are, and the stream over tp as well", () => {
  const roles = ["sequence", "features", "batch"] as const, on = meshOf({ dp_shard: 2, cp: 2, tp: 2 });
  const plan = new BoundPlan(planOf({ parameters: [], logits: "", residual: roles }), on, [graphWith(w)]);
  const value = { id: 0, ...f64(4, 4, 4) }, data = "cp: Shard(0), dp_shard: Shard(2)";
  assertEquals(layoutText(plan.input({ name: "x", value, roles })), data);
  assertEquals(layoutText(plan.input({ name: "x", value })), "Replicate");
  assertEquals(layoutText(plan.residual(roles)), "cp: Shard(0), tp: Shard(0), dp_shard: Shard(2)");
  assertEquals(layoutText(plan.residual([...roles, "features"])), data);
});

Deno.test("what belongs together is not cut: heads, by the number of them", () => {
  const graphs = stepGraphs(tinyLlama(), { batch: 4, seqLen: 8, dtype: "f32" });
  assertThrows(
    () => boundPlan(tinyLlama(), meshOf({ tp: 4 }), graphs),
    RangeError,
    `Cannot cut "layers.0.attention.wk.weight" over tp: dim 0 of [8,16] is 2 parts that belong together, not a multiple ` +
      `of 4; change parallelism.tensor_parallel_degree, or the model's size`,
  );
  assertThrows(
    () => bound([{ pattern: "w", used: { dp_replicate: shard(1) } }], [state("w", "parameter", 4, 5)]),
    RangeError,
    "is 5 parts",
  );
});

Deno.test("dims that data axes do not divide are cut with padding, and the plan says so", () => {
  const plan = bound([], [state("w", "parameter", 7, 6), state("v", "parameter", 8)]);
  assertEquals(plan.padded().map((s) => s.name), ["w"]);
  assertEquals(
    String(plan),
    "w [7,6]: stored dp_shard: Shard(0, padded), cp: Shard(0, padded); used Replicate; " +
      "gradient dp_shard: Shard(0, padded), cp: Shard(0, padded), dp_replicate: Partial(sum)\n" +
      "v [8]: stored dp_shard: Shard(0), cp: Shard(0); used Replicate; " +
      "gradient dp_shard: Shard(0), cp: Shard(0), dp_replicate: Partial(sum)\n",
  );
});

Deno.test("without sequence parallelism the residual stream is whole on tp, without loss parallelism the logits are", () => {
  const plan = (options: { sequenceParallel?: boolean; lossParallel?: boolean }) =>
    planOf(llamaPlan(tinyLlama().config), options);
  assertEquals([plan({}), plan({ sequenceParallel: false })].map((p) => p.residual.layout.tp), [shard(1), undefined]);
  assertEquals([plan({}), plan({ lossParallel: false })].map((p) => p.activations.map((a) => a.pattern)), [[], [
    "output",
  ]]);
});
