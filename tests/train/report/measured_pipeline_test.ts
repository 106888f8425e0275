import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { sourceOf } from "../../../parallel/pipeline/actions.ts";
import { namedSchedule } from "../../../parallel/pipeline/schedules.ts";
import { simulate, type StageTimes, type Timetable } from "../../../parallel/pipeline/timetable.ts";
import {
  measuredPipelinePage,
  measuredPipelineText,
  measurePipeline,
  pipelineProfile,
} from "../../../train/report/measured_pipeline.ts";
import type { InstructionTime, StepProfile } from "../../../train/report/profile.ts";

const CLOCK = 7e9, MS = 1e6;
const SECTIONS = { F: "forward", B: "backward", I: "backward_input", W: "backward_weight" } as const;
const times: StageTimes[] = [{ forward: 3, input: 3, weight: 4 }, { forward: 2, input: 5, weight: 3 }];

/** A rank's record of a step that went as a timetable says, a unit a millisecond, with two kernels for each action; in the middle of each
 * it waits for so many milliseconds. A message is ready when it is made, and on its way for `travel` milliseconds. */
function recorded({ spans, schedule: { rankOf } }: Timetable, { travel = 0, apart = 0 } = {}): StepProfile[] {
  const stages = rankOf.length, made = spans.flat().filter(({ action }) => action.kind !== "W");
  const ends = new Map(
    made.map(({ action: { stage, kind, microbatch }, end }) => [`${stage} ${kind === "F"} ${microbatch}`, end]),
  );
  return spans.map((row, place): StepProfile => {
    const instruction = (section: string, more: Partial<InstructionTime>, [begin, end]: readonly number[]) => ({
      ...{ kernel: "gemm", scope: "", phase: "forward" as const, flops: 0, bytes: 0, section, action: 0, stream: 0 },
      ...more,
      beginNs: CLOCK + apart * place + begin * MS,
      endNs: CLOCK + apart * place + end * MS,
    });
    const instructions = row.flatMap(({ action, start, end }, i) => {
      const { stage, kind, microbatch } = action, of = `of microbatch.${stage}`, middle = (start + end) / 2;
      const more = { action: i, microbatch }, section = `${SECTIONS[kind]} ${of}`;
      const what = kind === "F" ? "activation" : "gradient", to = stage + (kind === "F" ? 1 : -1);
      const source = kind === "W" ? undefined : sourceOf(action, stages);
      const ready = ends.get(`${source} ${kind === "F"} ${microbatch}`)!, comm = { ...more, stream: 1 };
      const sends = kind !== "W" && to >= 0 && to < stages && rankOf[to] !== place;
      return [
        instruction(section, more, [start, middle]),
        instruction(section, more, [middle, end]),
        ...sends ? [instruction(`send ${what} ${of}`, comm, [end, end + travel])] : [],
        ...source !== undefined && rankOf[source] !== place
          ? [instruction(`receive ${what} ${of}`, comm, [ready - 1, ready + travel])]
          : [],
      ];
    });
    const update = { ...instruction("update", { action: row.length }, [100, 200]), microbatch: undefined };
    return { step: 5, startMs: 0, calledMs: 0, endMs: 0, instructions: [...instructions, update] };
  });
}

Deno.test("a step that goes as planned has the idle time, the spans and the times of the plan; its update does not count", () => {
  const schedules = [
    namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 5 }),
    namedSchedule("ZBVZeroBubble", { ranks: 2, stagesPerRank: 2, microbatches: 4 }),
  ];
  for (const schedule of schedules) {
    const ofStages = schedule.rankOf.map((_, stage) => times[stage % 2]);
    const timetable = simulate(schedule, { times: ofStages });
    const { measured, planned } = measurePipeline({ schedule, runs: 1 }, recorded(timetable))!;
    assertEquals(
      measured.spans.map((row) => row.map(({ action }) => action)),
      timetable.spans.map((row) => row.map(({ action }) => action)),
    );
    for (const found of [measured, planned]) {
      assertAlmostEquals(found.makespan, timetable.makespan * MS, 1);
      assertAlmostEquals(found.bubble, timetable.bubble, 1e-9);
      found.idle.forEach((idle, rank) => assertAlmostEquals(idle, timetable.idle[rank] * MS, 1));
    }
  }
});

Deno.test("time in which no kernel runs is idle, in the middle of an action too, and the plan has none of it", () => {
  const schedule = namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 4 });
  const timetable = simulate(schedule, { times }), [first, second] = recorded(timetable);
  // The last action of rank 0 waits for 10 ms between its kernels.
  const last = first.instructions.findLast((i) => i.section === "backward of microbatch.0")!;
  const late = { ...last, beginNs: last.beginNs + 10 * MS, endNs: last.endNs + 10 * MS };
  const ranks = [{ ...first, instructions: first.instructions.map((i) => i === last ? late : i) }, second];
  const { measured, planned } = measurePipeline({ schedule, runs: 1 }, ranks)!;
  assertAlmostEquals(planned.makespan, timetable.makespan * MS, 1);
  assertAlmostEquals(measured.makespan, (timetable.makespan + 10) * MS, 1);
  assertEquals(measured.idle.map((ns, rank) => Math.round(ns / MS - timetable.idle[rank])), [10, 10]);
});

Deno.test("a schedule that a step runs twice is planned twice, one behind the other", () => {
  const once = { ranks: 2, stagesPerRank: 1, microbatches: 2 }, schedule = namedSchedule("GPipe", once);
  const [row, other] = schedule.rows,
    again = (cells: typeof row) =>
      cells.map((cell) => cell && "kind" in cell ? { ...cell, microbatch: cell.microbatch + 2 } : cell);
  const twice = simulate({
    ...schedule,
    microbatches: 4,
    rows: [[...row, ...again(row)], [...other, ...again(other)]],
  });
  const { measured, planned, evenBubble } = measurePipeline({ schedule, runs: 2 }, recorded(twice))!;
  assertAlmostEquals(planned.makespan, twice.makespan * MS, 1);
  assertEquals(measured.spans[0].length, 8);
  assertAlmostEquals(evenBubble, 1 / 3);
});

Deno.test("a message travels since both its ranks are ready for it, and is hidden while one of them runs kernels", () => {
  const schedule = namedSchedule("GPipe", { ranks: 2, stagesPerRank: 1, microbatches: 4 });
  const timetable = simulate(schedule, {
    times: [{ forward: 2, input: 2, weight: 2 }, { forward: 4, input: 4, weight: 4 }],
    link: { latency: 1, bytesPerSecond: Infinity },
  });
  const { messages } = measurePipeline({ schedule, runs: 1 }, recorded(timetable, { travel: 1 }))!;
  assertAlmostEquals(messages.ns, 8 * MS, 1);
  // For the last gradient both wait: rank 1 has nothing left to do, and rank 0 has done its other backwards.
  assertAlmostEquals(messages.hidden, 7 / 8, 1e-9);
  const late = recorded(timetable, { travel: 3 }), { messages: slow } = measurePipeline({ schedule, runs: 1 }, late)!;
  assertAlmostEquals(slow.ns, 24 * MS, 1);
});

Deno.test("ranks whose clocks do not fit together get no timetable, and are told so", () => {
  const schedule = namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 });
  for (const apart of [-1e9, 1e9]) {
    const ranks = recorded(simulate(schedule, { times }), { apart });
    assertEquals(measurePipeline({ schedule, runs: 1 }, ranks), undefined);
    const { text, page } = pipelineProfile({ schedule, runs: 1 }, ranks);
    assertStringIncludes(text, "clocks of the ranks' hosts do not fit together");
    assertEquals(page, undefined);
  }
});

Deno.test("both timetables are drawn to one scale, as text and as pictures", () => {
  const schedule = namedSchedule("1F1B", { ranks: 2, stagesPerRank: 1, microbatches: 2 });
  const timetable = simulate(schedule, { times }), found = measurePipeline({ schedule, runs: 1 }, recorded(timetable))!;
  const late = { ...found, measured: { ...found.measured, makespan: 2 * found.measured.makespan } };
  const lines = (text: string) => text.split("\n").filter((line) => /^ {4}r\d /.test(line)).map((line) => line.length);
  const [measured, , planned] = lines(measuredPipelineText(late));
  assertEquals(measured, 124); // 120 characters, indented
  assert(Math.abs((measured - 7) / (planned - 7) - 2) < 0.05, `${measured} ${planned}`);
  const page = measuredPipelinePage(found),
    widths = [...page.matchAll(/ width="([\d.]+)" height="22"/g)].map((m) => Number(m[1]));
  assertEquals(widths.slice(0, 8), widths.slice(8));
  const shrunk = [...measuredPipelinePage(late).matchAll(/ width="([\d.]+)" height="22"/g)].map((m) => Number(m[1]));
  assertAlmostEquals(shrunk[0], widths[0] / 2, 0.1);
  assertMatch(measuredPipelineText(found), /^Pipeline of step 5, 1F1B: ranks are idle for \d+\.\d % of 30\.0 ms\n/);
});
