import { assertEquals, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { cellText, stagesByRank } from "../../../parallel/pipeline/actions.ts";
import {
  joinHalves,
  makeSchedule,
  namedSchedule,
  type Pipeline,
  scheduleFault,
  scheduleKind,
  SCHEDULES,
} from "../../../parallel/pipeline/schedules.ts";
import { simulate } from "../../../parallel/pipeline/timetable.ts";
import { verifySchedule } from "../../../parallel/pipeline/verify_schedule.ts";

/** What `tools/make_schedule_goldens.py` wrote: by name, ranks, stages per rank and microbatches, hashes of rows and idle units. */
const goldens: { cases: Record<string, [hashes: string, idle: string]>; full: Record<string, string[]> } = JSON.parse(
  Deno.readTextFileSync(new URL("../../goldens/parallel/schedules.json", import.meta.url)),
);

function fromKey(key: string): { name: string; pipeline: Pipeline } {
  const [name, ranks, stagesPerRank, microbatches] = key.split(" ");
  const [r, v, m] = [ranks, stagesPerRank, microbatches].map(Number);
  return { name, pipeline: { ranks: r, stagesPerRank: v, microbatches: m } };
}

const textOf = (row: ReturnType<typeof namedSchedule>["rows"][number]) => row.map(cellText).join(" ");

Deno.test("each schedule has PyTorch's order of actions, on 2, 4 and 8 ranks, for every number of microbatches up to 32", () => {
  const seen = new Set<string>();
  for (const [key, [hashes]] of Object.entries(goldens.cases)) {
    const { name, pipeline } = fromKey(key), { rows } = namedSchedule(name, pipeline);
    const own = rows.map((row) => createHash("sha256").update(textOf(row)).digest("hex").slice(0, 8)).join(" ");
    assertEquals(own, hashes, `${key} is in another order: ${rows.map(textOf).join("\n")}`);
    seen.add(`${name} ${pipeline.ranks} ${pipeline.microbatches}`);
  }
  for (const { name } of SCHEDULES) {
    for (const ranks of [2, 4, 8]) {
      assertEquals(seen.has(`${name} ${ranks} 32`), true, `${name} on ${ranks} ranks is missing`);
    }
  }
});

Deno.test("some schedules, in full, are those of PyTorch", () => {
  assertEquals(Object.keys(goldens.full).length, SCHEDULES.length);
  for (const [key, rows] of Object.entries(goldens.full)) {
    const { name, pipeline } = fromKey(key);
    assertEquals(namedSchedule(name, pipeline).rows.map(textOf), rows, key);
  }
});

Deno.test("ranks are idle for as many units as in PyTorch's schedules", () => {
  for (const [key, [, idle]] of Object.entries(goldens.cases)) {
    const { name, pipeline } = fromKey(key);
    assertEquals(simulate(namedSchedule(name, pipeline)).idle.join(" "), idle, key);
  }
});

Deno.test("what PyTorch refuses of microbatches is refused, but a short 1F1B; all else can run", () => {
  for (const { name, stagesPerRank: needs } of SCHEDULES) {
    for (const ranks of [2, 4, 8]) {
      for (let microbatches = 1; microbatches <= 32; microbatches++) {
        const pipeline = { ranks, stagesPerRank: needs === "one" ? 1 : 2, microbatches };
        const known = `${name} ${ranks} ${pipeline.stagesPerRank} ${microbatches}` in goldens.cases;
        const may = known || name === "1F1B";
        assertEquals(
          scheduleFault(scheduleKind(name), pipeline) === undefined,
          may,
          `${name}, ${ranks}, ${microbatches}`,
        );
        if (may) verifySchedule(namedSchedule(name, pipeline));
      }
    }
  }
});

type Formula = (p: { P: number; V: number; M: number; r: number }) => number;

/** The formulas that the schedules' comments have, and for which microbatches they hold. */
const FORMULAS: Readonly<
  Record<string, { bubble: Formula; memory: Formula; holds?: (P: number, M: number) => boolean }>
> = {
  "GPipe": { bubble: ({ P, M }) => (P - 1) / (M + P - 1), memory: ({ M }) => M },
  "1F1B": { bubble: ({ P, M }) => (P - 1) / (M + P - 1), memory: ({ P, M, r }) => Math.min(M, P - r) },
  "LoopedBFS": {
    bubble: ({ P, V, M }) => (P - 1) / (V * M + P - 1),
    memory: ({ V, M }) => V * M,
    holds: (P, M) => M >= P,
  },
  "Interleaved1F1B": {
    bubble: ({ P, V, M }) => (P - 1) / (V * M + P - 1),
    memory: ({ P, V, M, r }) => Math.min(V * M, (V - 1) * P + 2 * (P - 1 - r) + 1),
    holds: (P, M) => M % P === 0,
  },
  "InterleavedZeroBubble": {
    bubble: ({ P, V, M }) => (P - 1) / (3 * V * M + P - 1),
    memory: ({ P, V, M }) => Math.min(V * M, V * P),
    holds: (P, M) => M % P === 0,
  },
  "ZBVZeroBubble": {
    bubble: ({ P, M }) => (P - 1) / (6 * M + P - 1),
    memory: ({ P }) => 2 * P,
    holds: (P, M) => M >= 2 * P - 1,
  },
  "DualPipeV": { bubble: ({ P, M }) => (P - 1) / (6 * M + P - 1), memory: ({ P }) => 2 * P + 1 },
};

Deno.test("bubbles are within a hundredth of their formulas, and memory is what is said of it", () => {
  for (const key of Object.keys(goldens.cases)) {
    const { name, pipeline } = fromKey(key), { ranks: P, stagesPerRank: V, microbatches: M } = pipeline;
    const { bubble, memory, holds } = FORMULAS[name];
    if (holds && !holds(P, M)) continue;
    const timetable = simulate(namedSchedule(name, pipeline)), expected = bubble({ P, V, M, r: 0 });
    const off = Math.abs(timetable.bubble / expected - 1);
    assertEquals(off <= 0.01, true, `${key}: bubble ${timetable.bubble}, by its formula ${expected}`);
    assertEquals(timetable.slots, timetable.slots.map((_, r) => memory({ P, V, M, r })), key);
  }
});

Deno.test("names are known in any case, and others are told which there are", () => {
  assertEquals(scheduleKind("interleavedZEROBUBBLE").name, "InterleavedZeroBubble");
  assertThrows(() => scheduleKind("2F2B"), RangeError, 'no schedule "2F2B"; expected one of GPipe, 1F1B, LoopedBFS');
});

Deno.test("a schedule that cannot do with a pipeline says what it needs", () => {
  const fails = (name: string, [ranks, stagesPerRank, microbatches]: number[], message: string) =>
    assertThrows(() => namedSchedule(name, { ranks, stagesPerRank, microbatches }), RangeError, message);
  fails("GPipe", [2, 2, 4], "GPipe cannot run: there are 2 stages on each rank; expected exactly one");
  fails("LoopedBFS", [2, 1, 4], "expected at least two");
  fails("zbvzerobubble", [2, 3, 4], "ZBVZeroBubble cannot run: there are 3 stages on each rank; expected exactly two");
  fails("DualPipeV", [4, 2, 7], "7 microbatches are too few; expected one for each of the 8 stages");
  fails("Interleaved1F1B", [4, 2, 9], "9 microbatches on 4 ranks make 2 rounds; expected a multiple of 2, such as 8");
  fails("1F1B", [2, 1, 0], "microbatches is 0; expected a whole number from 1 on");
});

Deno.test("a schedule of one's own is a function that gives each rank its row", () => {
  const own = makeSchedule({
    name: "one by one",
    style: "loop",
    row: ({ stages, microbatches }) =>
      Array.from(
        { length: microbatches },
        (_, microbatch) => [
          ...stages.map((stage) => ({ stage, kind: "F", microbatch }) as const),
          ...stages.toReversed().map((stage) => ({ stage, kind: "B", microbatch }) as const),
        ],
      ).flat(),
  }, { ranks: 2, stagesPerRank: 2, microbatches: 2 });
  verifySchedule(own, { slots: 2 });
  assertEquals(own.rows.map(textOf), [
    "0F0 2F0 2B0 0B0 0F1 2F1 2B1 0B1",
    "1F0 3F0 3B0 1B0 1F1 3F1 3B1 1B1",
  ]);
  // Each microbatch goes up and down alone, through 4 stages of 3 units.
  assertEquals(simulate(own).makespan, 24);
});

Deno.test("stages of a V are those of both its sides", () => {
  const pipeline = { ranks: 4, stagesPerRank: 2, microbatches: 8 };
  assertEquals(stagesByRank(namedSchedule("DualPipeV", pipeline)), [[0, 7], [1, 6], [2, 5], [3, 4]]);
  assertEquals(stagesByRank(namedSchedule("LoopedBFS", pipeline)), [[0, 4], [1, 5], [2, 6], [3, 7]]);
});

Deno.test("halves of a backward join where one follows the other, and only there", () => {
  const schedule = namedSchedule("InterleavedZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  const joined = joinHalves(schedule);
  verifySchedule(joined);
  assertEquals(textOf(joined.rows[0]), textOf(schedule.rows[0]).replace(/(\d)I(\d) \1W\2/g, "$1B$2"));
  assertEquals(textOf(joined.rows[1]), textOf(schedule.rows[1]).replace(/(\d)I(\d) \1W\2/g, "$1B$2"));
  assertEquals(textOf(joined.rows[0]) === textOf(schedule.rows[0]), false);
  const whole = namedSchedule("DualPipeV", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  assertEquals(joinHalves(joined), joined);
  verifySchedule(joinHalves(whole));
});
