import { assert, assertEquals, assertThrows } from "@std/assert";
import { MemoryBudgetError } from "../../graph/passes/remat_search.ts";
import { print } from "../../graph/print.ts";
import { Mesh, type MeshOptions } from "../../parallel/mesh.ts";
import { isTransfer } from "../../parallel/pipeline/rank_actions.ts";
import { evaluationActions, microbatchActions, type PipelineChoices } from "../../train/pipeline.ts";
import type { MeshChoices } from "../../train/ranks.ts";
import { compileStep, planPlaces, planStep, type StepOptions } from "../../train/step_plan.ts";
import { orderOf, unordered } from "../graph/order.ts";
import { decode } from "../graph/passes/decode.ts";
import { tinyLlama } from "../model/tiny.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const model = tinyLlama({ numLayers: 4 });

function options(degrees: MeshOptions, pipeline: PipelineChoices = {}, others: MeshChoices = {}) {
  const size = Object.values(degrees).reduce((n, degree) => n * degree, 1);
  const mesh = new Mesh({ dp_shard: 1, ...degrees }, size),
    sizes = { batch: 2, seqLen: 16, accumulation: 4, threads: 1 };
  const ranks = { mesh, rank: 0, pipeline, ...others };
  return { model, optimizer, dtype: "f32", ...sizes, evaluate: { batch: 2, seqLen: 16 }, ranks } as const;
}

/** All that a rank's program runs for a step and two batches of an evaluation, twice. */
function runsOf(step: StepOptions) {
  const { program, pipeline } = compileStep(step), sections = program.sections.map((s) => s.name);
  const update = { section: "update", slot: 0, source: 0 }, result = { ...update, section: "evaluate_result" };
  const evaluation = evaluationActions(pipeline);
  const once = [...microbatchActions(pipeline, step.accumulation), update, ...evaluation, ...evaluation, result];
  const runs = [...once, ...once].map(({ section, slot, source = slot }) => ({
    section: sections.indexOf(section),
    slot,
    source,
  }));
  return {
    runs: runs.filter(({ section }) => section >= 0),
    sections: orderOf(program.bytes),
    decoded: decode(program.bytes),
  };
}

const pipelines: readonly (readonly [MeshOptions, PipelineChoices, MeshChoices?])[] = [
  [{ pp: 2 }, {}],
  [{ pp: 2 }, { schedule: "ZBVZeroBubble" }],
  [{ pp: 2 }, { schedule: "Interleaved1F1B" }],
  [{ pp: 2, dp_shard: 2 }, { schedule: "InterleavedZeroBubble" }],
  [{ pp: 2, tp: 2 }, { schedule: "DualPipeV" }, { asyncTensorParallel: true }],
  [{ pp: 4, dp_replicate: 2 }, { schedule: "GPipe", microbatches: 2 }],
];

for (const [degrees, choices, others] of pipelines) {
  const name = JSON.stringify({ ...degrees, ...choices });
  Deno.test(`kernels and transfers of a rank never meet in its memory, whatever slots its microbatches have, on ${name}`, () => {
    for (
      const rank of [
        0,
        new Mesh({ dp_shard: 1, ...degrees }, Object.values(degrees).reduce((a, b) => a * b)).size - 1,
      ]
    ) {
      const step = options(degrees, choices, others),
        { runs, sections } = runsOf({ ...step, ranks: { ...step.ranks, rank } });
      assertEquals(unordered(sections, runs), []);
      const without = sections.map((list) => list.map((i) => ({ ...i, waits: [] })));
      assert(unordered(without, runs).length > 0, "nothing would ever wait");
    }
  });
}

Deno.test("a program has as many slots as its rank needs, as large as the stage that keeps most", () => {
  const step = options({ pp: 2 }, { schedule: "GPipe" }), { decoded: { slots, arenaBytes }, sections } = runsOf(step);
  assertEquals(slots.count, 4);
  const end = Math.max(...sections.flat().flatMap(({ inSlot }) => inSlot.writes.map((r) => r.end)));
  assert(slots.bytes >= end && slots.bytes < end + 64, `${slots.bytes} for ${end}`);
  const { plan: { categories, slots: planned } } = planStep(step);
  assertEquals([planned, categories.activation], [slots, slots.count * slots.bytes]);
  assert(categories.activation < arenaBytes);
});

Deno.test("each place along pp is planned, and all of them together have every parameter", () => {
  const places = planPlaces(options({ pp: 4, tp: 2 }));
  assertEquals(places.map(({ spread }) => spread.rank), [0, 2, 4, 6]);
  const own = places.map(({ plan }) =>
    [...plan.states.values()].filter(({ state }) => state.kind === "parameter").length
  );
  const all = [...places[0].spread.states.values()].filter((s) => s.kind === "parameter").length;
  assertEquals(own.reduce((a, b) => a + b), all);
  assert(new Set(places.map(({ plan }) => plan.arenaBytes)).size > 1);
});

Deno.test("1F1B has fewer slots on later ranks, and no more than it has ranks on the first", () => {
  const slots = planPlaces({ ...options({ pp: 4 }), accumulation: 16 }).map(({ plan }) => plan.slots.count);
  assertEquals(slots, [4, 4, 3, 2]);
});

Deno.test("the first rank of 1F1B sends each microbatch, and receives its gradient", () => {
  const { pipeline } = planStep(options({ pp: 2 }));
  assertEquals(pipeline!.train.actions.filter(isTransfer).length, 8);
});

Deno.test("stages gather parameters once a step and keep them beside the slots, unless they are to be gathered always", () => {
  const planOf = (reshard?: boolean) => planStep(options({ pp: 2, dp_shard: 2 }, {}, { reshard }));
  const [byDefault, never, always] = [undefined, false, true].map(planOf);
  const bytes = ({ plan: { categories, slots, arenaBytes } }: ReturnType<typeof planOf>) => {
    return { gathered: categories.gathered, slots: slots.bytes, arenaBytes };
  };
  const gathers = ({ graphs }: ReturnType<typeof planOf>) =>
    graphs.flatMap((g) => g.nodes).filter((n) => n.op === "all_gather" && n.attrs.first === true).length;
  assertEquals(bytes(byDefault), bytes(never));
  assertEquals([bytes(always).gathered, gathers(always)], [0, 0]);
  // All that the rank stores, and the other half.
  const stored = always.plan.categories.parameter, { gathered } = bytes(never);
  assert(gathered > 1.8 * stored && gathered < 2.2 * stored && gathers(never) > 0, `${gathered} of ${stored}`);
  assert(bytes(never).slots <= bytes(always).slots, JSON.stringify([bytes(never), bytes(always)]));
});

Deno.test("a rank keeps tokens for its own blocks alone, and all stages together what one process keeps", () => {
  const generate = { sequences: 3, maxLength: 40 };
  for (const schedule of ["Interleaved1F1B", "ZBVZeroBubble"]) {
    const step = { ...options({ pp: 2 }, { schedule }), model: tinyLlama({ numLayers: 4 }), generate };
    const kept = planPlaces(step).map(({ plan }) => plan.categories.cache);
    const alone = planStep({ ...step, ranks: undefined }).plan.categories.cache;
    assertEquals(alone, 4 * 2 * 3 * 40 * 8 * 4, "keys and values of four blocks, in f32");
    assertEquals(kept.map((bytes) => bytes / alone), schedule === "ZBVZeroBubble" ? [1 / 4, 3 / 4] : [1 / 2, 1 / 2]);
  }
});

for (const schedule of ["1F1B", "ZBVZeroBubble"]) {
  Deno.test(`within a memory budget each place along pp fits, and makes no more again than it must, by ${schedule}`, () => {
    const step = { ...options({ pp: 2 }, { schedule }), batch: 8, seqLen: 64, evaluate: undefined };
    const plan = (remat: StepOptions["remat"]) => planPlaces({ ...step, remat });
    const arenas = (plans: ReturnType<typeof plan>) => plans.map((p) => p.plan.arenaBytes);
    const remade = (plans: ReturnType<typeof plan>) =>
      plans.map((p) => p.graphs.flatMap((g) => g.nodes).filter((n) => n.phase === "remade").length);
    const none = plan({ mode: "none" }), full = plan({ mode: "full" });
    const bytes = Math.round((Math.max(...arenas(none)) + Math.max(...arenas(full))) / 2);
    const within = plan({ mode: "memory_budget", bytes });
    for (const [place, arena] of arenas(within).entries()) {
      assert(arena <= bytes && arena > arenas(full)[place], `place ${place}: ${arena} of ${bytes}`);
      assert(remade(within)[place] < remade(full)[place], `place ${place}: ${remade(within)}, at most ${remade(full)}`);
    }
    // The first place has more room than the last one, and tells what that needs.
    const first = (bytes: number) => planStep({ ...step, remat: { mode: "memory_budget", bytes } });
    const { leastBytes } = assertThrows(() => first(4096), MemoryBudgetError);
    assert(arenas(plan({ mode: "memory_budget", bytes: leastBytes })).every((arena) => arena <= leastBytes));
    const least = arenas(plan({ mode: "memory_budget", fraction: 0 }));
    assert(least[0] < least[1] && least[1] <= leastBytes, `${least}, where ${leastBytes} are told`);
    assert(leastBytes <= Math.max(...arenas(full)), `${leastBytes}, and ${arenas(full)} when all is made again`);
  });
}

Deno.test("places are planned together as each alone, and what they have in common is partitioned once", () => {
  const step = options({ pp: 4, tp: 2 }, { schedule: "Interleaved1F1B" }), { mesh } = step.ranks;
  const printed: string[] = [], before = Deno.env.get("TITAN_PRINT"), { error } = console;
  console.error = (text: string) => printed.push(text);
  Deno.env.set("TITAN_PRINT", "update:partition");
  try {
    const together = planPlaces({ ...step, model: tinyLlama({ numLayers: 6 }) });
    assertEquals(printed.length, 1);
    for (const [i, rank] of mesh.group(0, mesh.factorsOf("pp")).entries()) {
      const alone = planStep({ ...step, model: tinyLlama({ numLayers: 6 }), ranks: { ...step.ranks, rank } });
      assertEquals(together[i].graphs.map(print), alone.graphs.map(print));
      assertEquals(together[i].plan.arenaBytes, alone.plan.arenaBytes);
    }
    assertEquals(printed.length, 5);
  } finally {
    console.error = error;
    if (before === undefined) Deno.env.delete("TITAN_PRINT");
    else Deno.env.set("TITAN_PRINT", before);
  }
});
