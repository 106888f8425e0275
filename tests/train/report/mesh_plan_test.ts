import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { numParameters } from "../../../model/module.ts";
import { collectiveTotals, parameterGroups } from "../../../train/report/mesh_plan.ts";
import { meshPlanPage } from "../../../train/report/mesh_plan_page.ts";
import { meshPlanText } from "../../../train/report/mesh_plan_text.ts";
import { memoryUse } from "../../../train/report/plan_report.ts";
import { compileStep } from "../../../train/step_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";
import type { MeshChoices } from "../../../train/ranks.ts";
import { meshOf } from "../../parallel/step_graphs.ts";
import { tinyPlan } from "./mesh_plans.ts";

const plan = tinyPlan({ dp_shard: 2, tp: 2 });

Deno.test("each parameter has its shapes and its layouts", () => {
  const [w2] = plan.parameters.filter((p) => p.name === "layers.1.feed_forward.w2.weight");
  assertEquals(w2, {
    name: "layers.1.feed_forward.w2.weight",
    shape: [16, 24],
    localShape: [8, 12],
    stored: "dp_shard: Shard(0), tp: Shard(1)",
    used: "tp: Shard(1)",
    gradient: "dp_shard: Shard(0), tp: Shard(1)",
    padded: false,
    bytes: 4 * 8 * 12,
  });
});

Deno.test("on one rank memory and FLOPs are those that a run is compiled to", () => {
  const one = tinyPlan({}), optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
  const model = tinyLlama(), sizes = { batch: 2, seqLen: 16, accumulation: 3, dtype: "f32", threads: 2 } as const;
  const { plan: compiled } = compileStep({ model, optimizer, ...sizes });
  const { use, largest } = memoryUse(compiled);
  assertEquals([one.memory, one.largestIn, one.collectives], [use, largest.graph.name, []]);
  assert(one.flops > 6 * (numParameters(model) - 32 * 16) * one.step.tokens);
});

Deno.test("the parts of memory add up to the arena, and states are those of the rank's parts", () => {
  const { arena, ...parts } = plan.memory, bytes = plan.parameters.reduce((n, p) => n + p.bytes, 0);
  assertEquals(Object.values(parts).reduce((a, b) => a + b), arena);
  // Every state starts at a cache line.
  for (const [of, times] of [[parts.parameters, 1], [parts.gradientSums, 1], [parts.moments, 2]]) {
    assert(of >= times * bytes && of < times * (bytes + 64 * plan.parameters.length));
  }
});

Deno.test("collectives of a microbatch are counted once for each microbatch of a step, at their place", () => {
  const at = (where: string, op: string) => plan.collectives.filter((c) => c.where === where && c.op === op);
  const two = { section: "microbatch", op: "all_gather", size: 2, dtype: "f32" as const };
  // Two layers; two rows of 8 of the 16 tokens, and half of what tp uses of the parameters, in forward and again in backward.
  const sequence = { ...two, where: "layers.*.attention.wq", axes: ["tp"] };
  assertEquals(at("layers.*.attention.wq", "all_gather").map((c) => ({ ...c })), [
    { ...sequence, count: 6, tensors: 6, bytes: 6 * 2 * 8 * 16 * 4 },
  ]);
  const parameters = (16 * (16 + 8 + 8 + 16 + 3 * 24) / 4 + 2 * 16 / 2) * 4;
  for (const where of ["layers.*", "layers.*'"]) {
    const unit = { ...two, where, axes: ["dp_shard"], count: 6, tensors: 6 * 9, bytes: 6 * parameters };
    assertEquals(at(where, "all_gather").map((c) => ({ ...c })), [unit]);
  }
  const totals = collectiveTotals(plan.collectives),
    sum = (list: readonly { bytes: number; count: number; tensors: number }[]) =>
      list.reduce((n, c) => [n[0] + c.bytes, n[1] + c.count, n[2] + c.tensors], [0, 0, 0]);
  assertEquals(sum(totals), sum(plan.collectives));
  assert(totals.length < plan.collectives.length);
});

Deno.test("kept, parameters are gathered once a step, and take more memory; further ahead, they take more", () => {
  const model = tinyLlama({ numLayers: 6 }),
    gathered = (choices: MeshChoices) => {
      const { memory, collectives } = tinyPlan({ dp_shard: 2 }, {
        model,
        ranks: { mesh: meshOf({ dp_shard: 2 }), ...choices },
      });
      return { bytes: memory.gathered, count: collectiveTotals(collectives).find((c) => c.op === "all_gather")!.count };
    };
  const [plain, kept, ahead] = [{}, { reshard: false }, { prefetch: 3 }].map(gathered);
  // Eight units in each of three microbatches, and the blocks again.
  assertEquals([plain.count, kept.count, ahead.count], [3 * (8 + 6), 8, 3 * (8 + 6)]);
  assert(kept.bytes > 2 * plain.bytes && ahead.bytes > plain.bytes, JSON.stringify([plain, kept, ahead]));
});

Deno.test("copies reduce their gradients once a step, whatever its microbatches, and hold no second one of them", () => {
  const [one, two] = [{}, { dp_replicate: 2 }].map((axes) => tinyPlan(axes));
  const sums = two.collectives.filter((c) => c.axes.includes("dp_replicate") && c.section === "microbatch");
  assertEquals(sums.map((c) => [c.where, c.op, c.count, c.tensors]).toSorted(), [
    ["layers.*'", "all_reduce", 2, 18],
    ["output, norm'", "all_reduce", 1, 2],
    ["tok_embeddings'", "all_reduce", 1, 1],
  ]);
  // In a ring of two, each sends as many bytes as it has.
  assertEquals(sums.reduce((n, c) => n + c.bytes, 0), two.parameters.reduce((n, p) => n + p.bytes, 0));
  assertEquals(two.memory, one.memory);
});

Deno.test("checkpoints are those of all ranks: every parameter once, and twice as much of moments", () => {
  const { checkpoint: { full, model, ranks }, model: { parameters } } = plan;
  assertEquals([ranks, model.bytes, full.bytes], [4, 4 * parameters, 12 * parameters]);
  const stored = { precision: { param: "bf16", reduce: "bf16", stored: "bf16" } } as const;
  const half = tinyPlan({ dp_shard: 2, tp: 2 }, stored).checkpoint;
  assertEquals([half.model.bytes, half.full.bytes], [2 * parameters, 6 * parameters]);
  const { checkpoint } = tinyPlan({ dp_shard: 2, tp: 2 }, { exportDtype: "bf16", diskSpeed: 100 });
  assertEquals([checkpoint.model.bytes, checkpoint.full.bytes], [2 * parameters, 12 * parameters]);
  assertEquals(checkpoint.full.seconds, 12 * parameters / 100);
});

Deno.test("a step is that of all ranks", () => {
  assertEquals(plan.step, { seqLen: 16, localBatchSize: 2, globalBatchSize: 12, microbatches: 3, tokens: 192 });
  assertEquals([plan.ranks, plan.mesh.tp, plan.model.parameters], [4, 2, numParameters(tinyLlama())]);
  assertEquals(plan.sections.map((s) => [s.name, s.runs]), [["initialize", 0], ["microbatch", 3], ["update", 1]]);
});

Deno.test("parameters that lie alike in every layer are one group", () => {
  const groups = parameterGroups(plan.parameters),
    [wq] = groups.filter((g) => g.name === "layers.*.attention.wq.weight");
  assertEquals(wq.names, ["layers.0.attention.wq.weight", "layers.1.attention.wq.weight"]);
  assertEquals(groups.flatMap((g) => g.names).toSorted(), plan.parameters.map((p) => p.name).toSorted());
});

Deno.test("the plan is plain data", () => assertEquals(JSON.parse(JSON.stringify(plan)), plan));

Deno.test("every axis is planned, also with padding, bf16 and a memory budget", () => {
  const axes = { dp_replicate: 2, dp_shard: 2, cp: 2, tp: 2 };
  const uneven = tinyPlan({ dp_shard: 4 }, { model: tinyLlama({ vocabSize: 33 }) });
  assertEquals(uneven.parameters.filter((p) => p.padded).map((p) => p.localShape), [[9, 16], [9, 16]]);
  const rounded = tinyPlan(axes, { precision: { param: "bf16", reduce: "f32", stored: "f32" } });
  assert(rounded.collectives.some((c) => c.dtype === "bf16"));
  const all = tinyPlan(axes), none = tinyPlan(axes, { remat: { mode: "memory_budget", fraction: 0 } });
  assert(none.memory.kept < all.memory.kept && none.flops > all.flops);
});

Deno.test("keys and values that go around a ring are planned as that", () => {
  const plan = (rotateMethod: "allgather" | "alltoall") =>
    tinyPlan({ cp: 4 }, { ranks: { mesh: meshOf({ cp: 4 }), rotateMethod } }).collectives
      .filter((c) => /^layers\.\*\.attention'?$/.test(c.where))
      .map(({ where, op, dtype, count, bytes }) => [where, op, dtype, count, bytes]);
  // Keys and values of 4 of the 16 tokens of two rows: 2 heads of 4. Three microbatches of two layers.
  const slices = 2 * 2 * 4 * 2 * 4 * 4, times = 3 * 2;
  assertEquals(plan("allgather"), [
    ["layers.*.attention", "all_gather", "f32", 2 * times, 3 * slices * times],
    ["layers.*.attention'", "reduce_scatter", "f32", 2 * times, 3 * slices * times],
    ["layers.*.attention", "all_gather", "i32", 3, 3 * 3 * 2 * 4 * 4],
  ]);
  assertEquals(plan("alltoall"), [
    ["layers.*.attention'", "ring_shift", "f32", 6 * times, 6 * slices * times],
    ["layers.*.attention", "ring_shift", "f32", 3 * times, 3 * slices * times],
    ["layers.*.attention", "all_gather", "i32", 3, 3 * 3 * 2 * 4 * 4],
  ]);
});

Deno.test("a model that the mesh cannot cut is refused", () => {
  assertThrows(() => tinyPlan({ tp: 8 }), RangeError, "change parallelism.tensor_parallel_degree");
});

Deno.test("a plan says whether a rank of it fits into a device, on the console and on the page, if it is asked", () => {
  const { device, memory } = tinyPlan({ dp_shard: 2 });
  assertEquals(device, null);
  for (const [bytes, fits] of [[memory.arena, true], [memory.arena - 1, false]] as const) {
    const plan = tinyPlan({ dp_shard: 2 }, { deviceMemory: bytes });
    assertEquals([plan.device, plan.memory], [{ bytes, room: bytes, taken: {}, fits }, memory]);
    const text = `${fits ? "fits" : "does not fit"}: a rank needs `;
    assertStringIncludes(meshPlanText(plan), `\nDevice\n  ${text}`);
    assertStringIncludes(meshPlanPage(plan), `<p>It ${text}`);
  }
  assert(!meshPlanPage(tinyPlan({ dp_shard: 2 })).includes("fit"));
});
