import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  durationText,
  speedsText,
  stepTime,
  stepTimeRows,
  stepTimeText,
  type TimedSection,
} from "../../../train/report/step_time.ts";
import { meshOf } from "../../parallel/step_graphs.ts";
import { tinyPlan } from "./mesh_plans.ts";

/** A product that arithmetic limits, a norm that memory limits, an exchange, which its link limits. */
const sections: TimedSection[] = [{
  runs: 3,
  instructions: [
    { kernel: "gemm", flops: 8e12, bytes: 1e9 },
    { kernel: "rmsnorm", flops: 1e9, bytes: 6e9 },
    { kernel: "all_gather", flops: 0, bytes: 1e15 },
  ],
}];
const speeds = { flops: 4e12, bandwidth: 3e9, links: { tp: 1e9, other: 1e6 } };
const collectives = [
  { axes: ["tp"], bytes: 4e9 },
  { axes: ["dp_shard"], bytes: 1e6 },
  { axes: ["tp"], bytes: 2e9 },
  { axes: ["dp_shard", "tp"], bytes: 2e6 },
];

Deno.test("a kernel takes as long as its arithmetic or its memory, whichever is longer, and an exchange as its slowest link", () => {
  const time = stepTime({ speeds, sections, collectives, tokens: 100 });
  assertEquals([time.arithmetic, time.memory, time.waiting], [6, 6, 0]);
  assertEquals(time.exchanges, [
    { axes: ["tp"], seconds: 6 },
    { axes: ["dp_shard", "tp"], seconds: 2 },
    { axes: ["dp_shard"], seconds: 1 },
  ]);
  assertEquals([time.least, time.most, time.run], [12, 21, null]);
});

Deno.test("times of kernels are told by name, of all sections together, the longest first, and add up to those of arithmetic and memory", () => {
  const update: TimedSection = {
    runs: 1,
    instructions: [{ kernel: "adamw", flops: 0, bytes: 30e9 }, { kernel: "rmsnorm", flops: 0, bytes: 3e9 }],
  };
  const time = stepTime({ speeds, sections: [...sections, update], collectives, tokens: 100 });
  assertEquals(time.kernels, [["adamw", 10], ["rmsnorm", 7], ["gemm", 6]]);
  assertEquals(time.arithmetic + time.memory, 23);
  const lines = stepTimeText(time).split("\n");
  assertEquals(lines.slice(-4), ["Time of kernels", "  adamw    10 s", "  rmsnorm   7 s", "  gemm      6 s"]);
});

Deno.test("exchanges that take longer than kernels cannot hide behind them", () => {
  const slow = { ...speeds, links: { other: 1e8 } };
  const { least, most } = stepTime({ speeds: slow, sections, collectives: collectives.slice(0, 1), tokens: 100 });
  assertEquals([least, most], [40, 52]);
});

Deno.test("what no speed is given for takes no time, and is told", () => {
  const bare = { flops: 4e12, links: { dp_shard: 1e6 } };
  const time = stepTime({ speeds: bare, sections, collectives, tokens: 100 });
  assertEquals(time.memory, 0);
  const rows = new Map(stepTimeRows(time));
  assertEquals(rows.get("exchanges over tp"), "not known: --link");
  assertEquals(rows.get("exchanges over dp_shard tp"), "not known: --link");
  assertEquals(rows.get("exchanges over dp_shard"), "1,000 ms");
  assertEquals(
    speedsText(bare),
    "4 TFLOP/s, memory that takes no time (--device-bandwidth), links of dp_shard of 1 MB/s",
  );
});

Deno.test("tokens of a run become whole steps, and days", () => {
  const time = stepTime({ speeds: { ...speeds, tokens: 1_000_001 }, sections, collectives, tokens: 100 });
  assertEquals(time.run, { tokens: 1_000_001, steps: 10_001 });
  assertEquals(stepTimeRows(time).slice(-2), [
    ["a step, exchanges behind kernels or not", "12 s to 21 s"],
    ["1,000,001 tokens in 10,001 steps", "33.3 h to 2.43 days"],
  ]);
});

Deno.test("times are told in a unit of which there are two at least", () => {
  const texts = [1e-7, 5e-6, 0.0123, 1.5, 2, 119, 121, 7300, 172800].map(durationText);
  assertEquals(texts, [
    "less than 1 us",
    "5 us",
    "12.3 ms",
    "1,500 ms",
    "2 s",
    "119 s",
    "2.02 min",
    "2.03 h",
    "2 days",
  ]);
});

Deno.test("a mesh's plan counts every kernel of a step once for each run, and each byte that is sent", () => {
  const plan = tinyPlan({ dp_shard: 2, tp: 2 }, { speeds: { flops: 1e9, links: { tp: 1e6, other: 1e5 } } });
  const { exchanges } = plan.time!;
  for (const axes of [["tp"], ["dp_shard"]]) {
    const bytes = plan.collectives.filter((c) => String(c.axes) === String(axes)).reduce((n, c) => n + c.bytes, 0);
    assert(bytes > 0);
    assertAlmostEquals(
      exchanges.find((e) => String(e.axes) === String(axes))!.seconds!,
      bytes / (axes[0] === "tp" ? 1e6 : 1e5),
      1e-9,
    );
  }
  const alone = tinyPlan({}, { speeds: { flops: 1e9, links: {} } });
  assertAlmostEquals(alone.time!.arithmetic, alone.flops / 1e9, 1e-12);
  assertEquals(tinyPlan({ dp_shard: 2 }).time, null);
});

Deno.test("a rank of a pipeline waits as long as its timetable says", () => {
  const ranks = { mesh: meshOf({ pp: 2 }), pipeline: { schedule: "GPipe", microbatches: 3 } };
  const plan = tinyPlan({ pp: 2 }, { ranks, speeds: { flops: 1e9, links: {} } });
  const { makespan, idle } = plan.pipeline!.timetable, { arithmetic, memory, waiting } = plan.time!;
  const busiest = makespan - Math.min(...idle);
  assert(waiting > 0);
  assertAlmostEquals(waiting, (arithmetic + memory) * (makespan / busiest - 1), 1e-9);
});
