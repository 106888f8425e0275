import { assertEquals, assertThrows } from "@std/assert";
import { type Action, actionsOf, type Schedule, stagesByRank } from "../../../parallel/pipeline/actions.ts";
import { autoSchedule } from "../../../parallel/pipeline/auto_schedule.ts";
import { joinHalves, makeSchedule, scheduleFault, SCHEDULES } from "../../../parallel/pipeline/schedules.ts";
import { simulate, type StageTimes, UNIT_TIMES } from "../../../parallel/pipeline/timetable.ts";
import { verifySchedule } from "../../../parallel/pipeline/verify_schedule.ts";
import { below, randomFrom } from "./random_schedules.ts";

Deno.test("Auto is never longer than a named schedule that fits, with its backwards whole or in halves, and fits itself", () => {
  const random = randomFrom(41);
  for (let i = 0; i < 16; i++) {
    const ranks = [2, 3, 4][below(3, random)], stagesPerRank = 1 + below(3, random);
    const pipeline = { ranks, stagesPerRank, microbatches: ranks * (1 + below(3, random)) };
    const times = Array.from({ length: ranks * stagesPerRank }, (): StageTimes => {
      const [forward, input, weight] = [1 + random(), 1 + random(), 0.5 + random()];
      return { forward, input, weight, backward: (input + weight) * (0.9 + 0.1 * random()) };
    });
    const options = { times, link: { latency: 0.3 * random(), bytesPerSecond: 1 }, messageBytes: random() };
    const slots = Array.from({ length: ranks }, () => stagesPerRank * (1 + below(2 * ranks, random)));
    const { timetable } = autoSchedule(pipeline, { ...options, slots });
    verifySchedule(timetable.schedule, { slots });
    assertEquals(timetable, simulate(timetable.schedule, options));
    for (const kind of SCHEDULES) {
      if (scheduleFault(kind, pipeline) !== undefined) continue;
      const named = makeSchedule(kind, pipeline);
      for (const schedule of [named, joinHalves(named)]) {
        const { makespan, slots: used } = simulate(schedule, options);
        const fits = used.every((n, rank) => n <= slots[rank]);
        assertEquals(!fits || timetable.makespan <= makespan * (1 + 1e-12), true, `${kind.name} takes ${makespan}`);
      }
    }
  }
});

Deno.test("with one stage on each rank Auto fills with gradients of weights what 1F1B leaves idle, in the same memory", () => {
  for (const ranks of [2, 4, 8]) {
    const pipeline = { ranks, stagesPerRank: 1, microbatches: 2 * ranks };
    const { timetable } = autoSchedule(pipeline, { slots: ranks });
    // 1F1B is idle for 3(P-1) units of time, zero bubble in the same memory for 2(P-1) at most.
    assertEquals(Math.max(...timetable.idle) <= 2 * (ranks - 1), true, `idle ${timetable.idle}`);
    assertEquals(autoSchedule(pipeline).timetable.makespan, 3 * pipeline.microbatches + ranks - 1);
  }
});

/** The shortest makespan of all orders in which two ranks of one stage each can act: every row is tried with every other. */
function shortest(microbatches: number, { times, slots }: { times: readonly StageTimes[]; slots: number }): number {
  const rowsOf = (stage: number) => {
    const all = Array.from(
      { length: microbatches },
      (_, microbatch) => (["F", "I", "W"] as const).map((kind): Action => ({ stage, kind, microbatch })),
    ).flat();
    const rows: Action[][] = [];
    const extend = (row: readonly Action[], kept: number): void => {
      if (row.length === all.length) rows.push([...row]);
      for (const action of all) {
        const { kind, microbatch } = action,
          has = (k: string) => row.some((a) => a.kind === k && a.microbatch === microbatch);
        if (has(kind) || kind === "I" && !has("F") || kind === "W" && !has("I")) continue;
        if (kind === "F" && kept === slots) continue;
        // Microbatches are alike: forwards go in their order.
        if (kind === "F" && row.filter((a) => a.kind === "F").length !== microbatch) continue;
        extend([...row, action], kept + (kind === "F" ? 1 : kind === "W" ? -1 : 0));
      }
    };
    extend([], 0);
    return rows;
  };
  let least = Infinity;
  const [low, high] = [rowsOf(0), rowsOf(1)];
  for (const first of low) {
    for (const second of high) {
      const schedule: Schedule = { name: "tried", microbatches, rankOf: [0, 1], rows: [first, second] };
      for (const one of new Set([schedule, joinHalves(schedule)])) {
        try {
          least = Math.min(least, simulate(one, { times }).makespan);
        } catch {
          continue; // ranks wait for each other
        }
      }
    }
  }
  return least;
}

Deno.test("on two ranks with two microbatches Auto is the best of all orders", () => {
  const random = randomFrom(43);
  for (let i = 0; i < 12; i++) {
    const times = [0, 1].map((): StageTimes => {
      const [forward, input, weight] = i === 0 ? [1, 1, 1] : [1 + random(), 1 + random(), 1 + random()];
      return { forward, input, weight, backward: (input + weight) * (i % 2 ? 0.8 : 1) };
    });
    for (const slots of [1, 2]) {
      const { timetable } = autoSchedule({ ranks: 2, stagesPerRank: 1, microbatches: 2 }, { times, slots });
      const least = shortest(2, { times, slots });
      assertEquals(
        timetable.makespan <= least * (1 + 1e-12),
        true,
        `${timetable.makespan}, where ${least} can be reached`,
      );
    }
  }
});

Deno.test("stages lie as they are told to, and every action comes once", () => {
  for (const style of ["loop", "v"] as const) {
    const { timetable: { schedule } } = autoSchedule({ ranks: 2, stagesPerRank: 2, microbatches: 4 }, { style });
    assertEquals(stagesByRank(schedule), style === "v" ? [[0, 3], [1, 2]] : [[0, 2], [1, 3]]);
    assertEquals(schedule.name, "Auto");
    const forwards = schedule.rows.flat().flatMap(actionsOf).filter(({ kind }) => kind === "F");
    assertEquals(forwards.length, 16);
  }
});

Deno.test("the same times give the same schedule, and what was found is told", () => {
  const pipeline = { ranks: 4, stagesPerRank: 1, microbatches: 8 };
  const uneven = [1, 2, 1, 1.5].map((n) => ({ forward: n, input: n, weight: n }));
  assertEquals(
    autoSchedule(pipeline, { times: uneven, slots: 4 }),
    autoSchedule(pipeline, { times: uneven, slots: 4 }),
  );
  assertEquals(autoSchedule({ ...pipeline, stagesPerRank: 2 }).found, "InterleavedZeroBubble");
  assertEquals(/^loop, .* at most 4, 4, 4, 4 slots$/.test(autoSchedule(pipeline, { slots: 4 }).found), true);
});

Deno.test("what fits nowhere is refused with what would", () => {
  const pipeline = { ranks: 2, stagesPerRank: 2, microbatches: 4 };
  assertThrows(
    () => autoSchedule(pipeline, { slots: [2, 1] }),
    RangeError,
    "fits into 2, 1 slots by rank; expected room for 2",
  );
  const { timetable } = autoSchedule(pipeline, { slots: 2 });
  assertEquals(timetable.slots, [2, 2]);
  assertThrows(
    () => autoSchedule(pipeline, { times: [UNIT_TIMES] }),
    RangeError,
    "times of 1 stages; expected those of 4",
  );
});
