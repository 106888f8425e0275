/** What recorded steps show of a pipeline: when each action ran on each rank, and beside it when it would have run by plan if it took as
 * long as it did and ranks waited for nothing but their inputs.
 * @module */
import type { Kind, Schedule } from "../../parallel/pipeline/actions.ts";
import type { Section } from "../../parallel/pipeline/rank_actions.ts";
import {
  simulate,
  type Span,
  type StageTimes,
  type Timetable,
  timetableText,
} from "../../parallel/pipeline/timetable.ts";
import { partOfSection } from "../pipeline.ts";
import { commMs, type InstructionTime, type Interval, type StepProfile } from "./profile.ts";
import { timetablePicture } from "./timetable_picture.ts";

/** A step of a pipeline as it ran. Times are nanoseconds. */
export interface MeasuredPipeline {
  /** From 1. */
  readonly step: number;
  /** When actions ran; a rank is idle while it runs no kernel. */
  readonly measured: Timetable;
  /** The schedule, if each action takes what it took in the mean of the step's microbatches. */
  readonly planned: Timetable;
  /** The idle share if all stages take equally long. */
  readonly evenBubble: number;
  /** Nanoseconds that messages travelled, each since both its ranks were ready for it, and the share of these in which at least one of
   * the two ran kernels. */
  readonly messages: { readonly ns: number; readonly hidden: number };
}

const KINDS: Readonly<Record<Section, Kind>> = {
  forward: "F",
  backward: "B",
  backward_input: "I",
  backward_weight: "W",
};

/** What a recorded step shows; `undefined` where the clocks of ranks do not fit together, as those of several hosts.
 * @param runs of the schedule in a step. @param ranks the step on a rank of each place along `pp`. */
export function measurePipeline(
  { schedule, runs }: { readonly schedule: Schedule; readonly runs: number },
  ranks: readonly StepProfile[],
): MeasuredPipeline | undefined {
  const work = ranks.map(({ instructions }) => instructions.filter((i) => i.microbatch !== undefined));
  const kernels = work.map((list) => list.filter((i) => i.stream === 0));
  const travelled = messages(work);
  if (!travelled) return undefined;
  const begin = earliest(kernels.flat()), makespan = latest(kernels.flat()) - begin;
  const spans = kernels.map((list) => spansOf(list, begin));
  const idle = kernels.map((list) => makespan - busy(list));
  const planned = simulate(repeated(schedule, runs), { times: meanTimes(schedule, kernels) });
  const comm = commMs(travelled.map(({ places, messages }) => ({
    instructions: [...union(places.flatMap((place) => kernels[place])), ...messages],
  })));
  return {
    step: ranks[0].step,
    measured: { ...planned, spans, makespan, idle, bubble: sum(idle) / (makespan * ranks.length) },
    planned,
    evenBubble: simulate(schedule).bubble,
    messages: { ns: comm.all * 1e6 * travelled.length, hidden: comm.all === 0 ? 1 : 1 - comm.exposed / comm.all },
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
const earliest = (list: readonly Interval[]): number => list.reduce((least, i) => Math.min(least, i.beginNs), Infinity);
const latest = (list: readonly Interval[]): number => list.reduce((most, i) => Math.max(most, i.endNs), -Infinity);
const busy = (list: readonly Interval[]): number => sum(list.map((i) => i.endNs - i.beginNs));

/** The actions of a rank, from the first kernel of each to its last. */
function spansOf(kernels: readonly InstructionTime[], begin: number): Span[] {
  return [...Map.groupBy(kernels, (i) => i.action).values()].flatMap((list): Span[] => {
    const { section, microbatch } = list[0], part = partOfSection(section);
    if (!part || "way" in part) return [];
    const action = { stage: part.stage, kind: KINDS[part.section], microbatch: microbatch! };
    return [{ action, start: earliest(list) - begin, end: latest(list) - begin }];
  });
}

/** By stage: how long kernels ran for one microbatch. */
function meanTimes({ rankOf }: Schedule, kernels: readonly (readonly InstructionTime[])[]): StageTimes[] {
  const bySection = Map.groupBy(kernels.flat(), (i) => i.section);
  return rankOf.map((_, stage): StageTimes => {
    // A time is never 0: a section that makes nothing does not run.
    const of = (section: Section) => {
      const list = bySection.get(`${section} of microbatch.${stage}`) ?? [];
      return list.length === 0 ? 0 : busy(list) / new Set(list.map((i) => i.action)).size;
    };
    const [whole, input, weight] = [of("backward"), of("backward_input"), of("backward_weight")];
    const half = whole / 2, positive = (time: number) => Math.max(1, time);
    return {
      forward: positive(of("forward")),
      input: positive(input + half),
      weight: positive(weight + half),
      backward: positive(whole + input + weight),
    };
  });
}

/** The messages between two places, in order. */
interface Travelled {
  readonly places: readonly number[];
  readonly messages: readonly Interval[];
}

function messages(ranks: readonly (readonly InstructionTime[])[]): Travelled[] | undefined {
  const ends = ranks.flatMap((list, place) =>
    list.filter((i) => i.stream === 1).flatMap(({ section, microbatch, beginNs, endNs }) => {
      const part = partOfSection(section);
      if (!part || !("way" in part)) return [];
      const { way, what, stage } = part, from = way === "send" ? stage : stage - (what === "activation" ? 1 : -1);
      return [{ message: `${what} ${from} ${microbatch}`, place, beginNs, endNs }];
    })
  );
  const travelled = [...Map.groupBy(ends, ({ message }) => message).values()].map((sides) => ({
    places: sides.map(({ place }) => place).sort((a, b) => a - b),
    stream: 1,
    beginNs: Math.max(...sides.map(({ beginNs }) => beginNs)),
    endNs: Math.max(...sides.map(({ endNs }) => endNs)),
    firstEnd: Math.min(...sides.map(({ endNs }) => endNs)),
  }));
  // Neither side is done before both have come.
  if (travelled.some(({ beginNs, firstEnd }) => firstEnd < beginNs)) return undefined;
  return [...Map.groupBy(travelled, ({ places }) => places.join(" ")).values()]
    .map((list) => ({ places: list[0].places, messages: list.sort((a, b) => a.beginNs - b.beginNs) }));
}

/** When at least one of some intervals was under way. */
function union(intervals: readonly Interval[]): Interval[] {
  const all: Interval[] = [];
  for (const { stream, beginNs, endNs } of intervals.toSorted((a, b) => a.beginNs - b.beginNs)) {
    const last = all.at(-1);
    if (last && beginNs <= last.endNs) all[all.length - 1] = { ...last, endNs: Math.max(last.endNs, endNs) };
    else all.push({ stream, beginNs, endNs });
  }
  return all;
}

/** A schedule that is run several times, as one. */
function repeated(schedule: Schedule, runs: number): Schedule {
  const { rows, microbatches } = schedule;
  const shifted = (cell: Schedule["rows"][number][number], by: number): typeof cell =>
    cell === null
      ? null
      : "kind" in cell
      ? { ...cell, microbatch: cell.microbatch + by }
      : [shifted(cell[0], by), shifted(cell[1], by)] as unknown as typeof cell;
  const times = Array.from({ length: runs }, (_, run) => run * microbatches);
  return {
    ...schedule,
    microbatches: runs * microbatches,
    rows: rows.map((row) => times.flatMap((by) => row.map((cell) => shifted(cell, by)))),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** The measured timetable and the planned one for people, to one scale. */
export function measuredPipelineText({ step, measured, planned, evenBubble, messages }: MeasuredPipeline): string {
  const until = Math.max(measured.makespan, planned.makespan), ms = (ns: number) => (ns / 1e6).toFixed(1);
  const drawn = (timetable: Timetable) => timetableText(timetable, { until }).replaceAll(/^(?=.)/gm, "    ");
  return `Pipeline of step ${step}, ${measured.schedule.name}: ranks are idle for ${percent(measured.bubble)} of ${
    ms(measured.makespan)
  } ms
  planned ${percent(planned.bubble)} with the times that stages take, ${percent(evenBubble)} if all take equally long
  messages travelled for ${ms(messages.ns)} ms, for ${
    percent(messages.hidden)
  } of that beside kernels of one of their ranks
  measured
${drawn(measured)}  planned, with the times that stages take
${drawn(planned).trimEnd()}`;
}

/** Both as a page. */
export function measuredPipelinePage({ step, measured, planned }: MeasuredPipeline): string {
  const until = Math.max(measured.makespan, planned.makespan), title = `Pipeline of step ${step}`;
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title>
<style>body { font: 15px sans-serif; margin: 24px; } .key { display: inline-block; width: 12px; height: 12px; margin-right: 5px; }</style>
</head><body><h1>${title}</h1>
<h2>Measured: ${(measured.makespan / 1e6).toFixed(1)} ms</h2>
${timetablePicture(measured, { until })}
<h2>Planned, with the times that stages take: ${(planned.makespan / 1e6).toFixed(1)} ms</h2>
${timetablePicture(planned, { until })}
</body></html>
`;
}

/** What is said of a recorded step. */
export function pipelineProfile(
  pipeline: { readonly schedule: Schedule; readonly runs: number },
  ranks: readonly StepProfile[],
): { readonly text: string; readonly page?: string } {
  const measured = measurePipeline(pipeline, ranks);
  if (measured) return { text: measuredPipelineText(measured), page: measuredPipelinePage(measured) };
  return {
    text: `Pipeline of step ${ranks[0].step}: no timetable, as the clocks of the ranks' hosts do not fit together`,
  };
}
