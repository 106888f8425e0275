import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import type { Schedule } from "../../../parallel/pipeline/actions.ts";
import { namedSchedule } from "../../../parallel/pipeline/schedules.ts";
import { simulate, timetableText } from "../../../parallel/pipeline/timetable.ts";
import { below, randomFrom, randomSchedule } from "./random_schedules.ts";

const oneByOne = { ranks: 4, stagesPerRank: 1, microbatches: 8 };
const spanText = (schedule: Schedule, options = {}) =>
  simulate(schedule, options).spans.map((row) =>
    row.map(({ action: { kind, microbatch }, start, end }) => `${kind}${microbatch} ${start}-${end}`).join(", ")
  );

Deno.test("the text of 1F1B on 4 ranks has a cell for each unit, and a dot where a rank is idle", () => {
  assertEquals(
    timetableText(simulate(namedSchedule("1F1B", oneByOne))),
    `r0 F0 F1 F2 F3 ·  ·  ·  ·  ·  ·  B0 B0 F4 B1 B1 F5 B2 B2 F6 B3 B3 F7 B4 B4 ·  B5 B5 ·  B6 B6 ·  B7 B7
r1 ·  F0 F1 F2 ·  ·  ·  ·  B0 B0 F3 B1 B1 F4 B2 B2 F5 B3 B3 F6 B4 B4 F7 B5 B5 ·  B6 B6 ·  B7 B7 ·  ·
r2 ·  ·  F0 F1 ·  ·  B0 B0 F2 B1 B1 F3 B2 B2 F4 B3 B3 F5 B4 B4 F6 B5 B5 F7 B6 B6 ·  B7 B7 ·  ·  ·  ·
r3 ·  ·  ·  F0 B0 B0 F1 B1 B1 F2 B2 B2 F3 B3 B3 F4 B4 B4 F5 B5 B5 F6 B6 B6 F7 B7 B7 ·  ·  ·  ·  ·  ·
`,
  );
});

Deno.test("a text that has to be narrow has a letter for each part of the step", () => {
  const text = timetableText(simulate(namedSchedule("GPipe", oneByOne)), { width: 36 });
  assertEquals(
    text,
    `r0 FFFFFFFF·········BBBBBBBBBBBBBBBB
r1 ·FFFFFFFF······BBBBBBBBBBBBBBBB··
r2 ··FFFFFFFF···BBBBBBBBBBBBBBBB····
r3 ···FFFFFFFFBBBBBBBBBBBBBBBB······
`,
  );
  const long = simulate(namedSchedule("GPipe", { ...oneByOne, microbatches: 500 }));
  assertEquals(timetableText(long, { width: 80 }).split("\n").map((line) => line.length), [80, 80, 80, 80, 0]);
});

Deno.test("where ranks have several stages, each cell says which", () => {
  const schedule = namedSchedule("LoopedBFS", { ranks: 2, stagesPerRank: 2, microbatches: 2 });
  assertEquals(
    timetableText(simulate(schedule)),
    `r0 0F0 0F1 2F0 2F1 ·   ·   ·   2B1 2B1 2B0 2B0 0B1 0B1 0B0 0B0
r1 ·   1F0 1F1 3F0 3F1 3B1 3B1 3B0 3B0 1B1 1B1 1B0 1B0 ·   ·
`,
  );
});

Deno.test("stages take the time that they are said to take, and a whole backward its own", () => {
  const times = [{ forward: 1, input: 2, weight: 3 }, { forward: 4, input: 5, weight: 6, backward: 10 }];
  const schedule = namedSchedule("GPipe", { ranks: 2, stagesPerRank: 1, microbatches: 2 });
  assertEquals(spanText(schedule, { times }), [
    "F0 0-1, F1 1-2, B0 19-24, B1 29-34",
    "F0 1-5, F1 5-9, B0 9-19, B1 19-29",
  ]);
});

Deno.test("messages of one direction wait for each other, those of the other direction do not", () => {
  const schedule = namedSchedule("GPipe", { ranks: 2, stagesPerRank: 1, microbatches: 2 });
  // 30 bytes at 10 a unit, and half a unit on the way: F0 is sent in 1-4 and there at 4.5, F1 in 4-7 and there at 7.5.
  const link = { latency: 0.5, bytesPerSecond: 10 };
  assertEquals(spanText(schedule, { link, messageBytes: 30 }), [
    "F0 0-1, F1 1-2, B0 14-16, B1 17-19",
    "F0 4.5-5.5, F1 7.5-8.5, B0 8.5-10.5, B1 10.5-12.5",
  ]);
  const { idle, makespan, sentBytes, bubble } = simulate(schedule, { link, messageBytes: 30 });
  assertEquals([makespan, idle, sentBytes], [19, [13, 13], [60, 60]]);
  assertAlmostEquals(bubble, 13 / 19);
});

Deno.test("what goes to a stage of the same rank takes no time and sends nothing", () => {
  const schedule = namedSchedule("ZBVZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  const { sentBytes } = simulate(schedule, { link: { latency: 1, bytesPerSecond: 1 }, messageBytes: 1 });
  // Rank 0 sends from stage 0 up and from stage 3 down; rank 1 from 2 up and from 1 down, and from 1 to 2 nothing.
  assertEquals(sentBytes, [8, 8]);
});

Deno.test("slots and bytes are the most that a rank keeps between forward and the gradients of weights", () => {
  const zero = namedSchedule("InterleavedZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 });
  const { slots, activationBytes } = simulate(zero, { activationBytes: [100, 10, 1, 1000] });
  assertEquals(slots, [4, 4]);
  // Rank 0 has done with both of stage 2 when it comes to 0F3, the fourth of stage 0. Rank 1 has 1F0 1F1 3F0 3F1 at once.
  assertEquals(activationBytes, [400, 2020]);
});

Deno.test("idle time and work make the step on every rank, whatever the schedule", () => {
  const random = randomFrom(7);
  for (let i = 0; i < 100; i++) {
    const schedule = randomSchedule(random);
    const times = schedule.rankOf.map(() => ({
      forward: 1 + below(5, random),
      input: 1 + below(5, random),
      weight: 1 + below(5, random),
    }));
    const { spans, idle, makespan } = simulate(schedule, { times });
    assertEquals(Math.max(...spans.flat().map(({ end }) => end)), makespan);
    for (const [rank, row] of spans.entries()) {
      const busy = row.reduce((sum, { start, end }) => sum + end - start, 0);
      assertEquals(busy + idle[rank], makespan);
      for (const [at, { start }] of row.entries()) assertEquals(start >= (row[at - 1]?.end ?? 0), true);
    }
  }
});

Deno.test("times that are none, or not of all stages, are refused, and so are schedules that come to no end", () => {
  const schedule = namedSchedule("GPipe", { ranks: 2, stagesPerRank: 1, microbatches: 1 });
  const times = [{ forward: 1, input: 1, weight: 1 }];
  assertThrows(() => simulate(schedule, { times }), RangeError, "times of 1 stages; expected those of 2");
  const none = [...times, { forward: 1, input: 0, weight: 1 }];
  assertThrows(() => simulate(schedule, { times: none }), RangeError, "Stage 1 takes 0 for input");
  const stuck = { ...schedule, rows: [schedule.rows[0].toReversed(), schedule.rows[1]] };
  assertThrows(() => simulate(stuck), RangeError, "comes to no end");
});
