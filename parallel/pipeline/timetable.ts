/** When each action of a schedule happens, if stages and links take the time that they are said to take: a simulation, in which ranks
 * wait for data alone, and messages travel while ranks compute. Times are in seconds, or in units of one's own.
 * @module */
import { type Action, actionsOf, type Placed, type Schedule, ScheduleError, sourceOf, walk } from "./actions.ts";

/** How long the sections of a stage take for one microbatch. */
export interface StageTimes {
  readonly forward: number;
  /** The part of backward that makes the gradient of the stage's input. */
  readonly input: number;
  /** The part that makes those of weights. */
  readonly weight: number;
  /** Both parts as one; by default their sum. */
  readonly backward?: number;
}

/** What messages between two ranks take; those of one direction travel one after another. */
export interface Link {
  /** Until the first byte is there. */
  readonly latency: number;
  readonly bytesPerSecond: number;
}

/** What a simulation is told. */
export interface SimulateOptions {
  /** By stage; by default a unit for `forward`, `input` and `weight`. */
  readonly times?: readonly StageTimes[];
  /** By default messages take no time. */
  readonly link?: Link;
  /** Bytes of a message: an activation between stages, or its gradient. Default 0. */
  readonly messageBytes?: number;
  /** By stage: bytes that are kept of a microbatch from its forward until its backward. Default 0. */
  readonly activationBytes?: readonly number[];
}

/** An action in time. */
export interface Span {
  readonly action: Action;
  readonly start: number;
  readonly end: number;
}

/** A schedule in time. */
export interface Timetable {
  readonly schedule: Schedule;
  /** By rank, in order. */
  readonly spans: readonly (readonly Span[])[];
  /** When the last rank is done. */
  readonly makespan: number;
  /** By rank: the time in which it does nothing, from the step's begin to its end. */
  readonly idle: readonly number[];
  /** The idle share of all ranks' time. */
  readonly bubble: number;
  /** By rank: the most microbatches, over its stages, whose activations it keeps at once. */
  readonly slots: readonly number[];
  /** By rank: the most bytes of activations that it keeps at once. */
  readonly activationBytes: readonly number[];
  /** By rank: bytes that it sends. */
  readonly sentBytes: readonly number[];
}

/** A unit for each part. */
export const UNIT_TIMES: StageTimes = { forward: 1, input: 1, weight: 1 };

/** What a kind of action takes on a stage. */
export function timeOf({ kind }: Pick<Action, "kind">, { forward, input, weight, backward }: StageTimes): number {
  return { F: forward, B: backward ?? input + weight, I: input, W: weight }[kind];
}

/** The links between ranks, each busy until some time. */
export class Links {
  readonly #busy = new Map<string, number>();
  readonly #link?: Link;
  readonly #bytes: number;

  /** @param options what a message is and takes. */
  constructor({ link, messageBytes = 0 }: Pick<SimulateOptions, "link" | "messageBytes">) {
    this.#link = link;
    this.#bytes = messageBytes;
  }

  /** When a message is there that is ready at `time`. Messages of one direction are to be given in their order. */
  arrival(time: number, { from, to }: { from: number; to: number }): number {
    if (from === to || this.#link === undefined) return time;
    const { latency, bytesPerSecond } = this.#link, key = `${from} ${to}`;
    const sent = Math.max(time, this.#busy.get(key) ?? 0) + this.#bytes / bytesPerSecond;
    this.#busy.set(key, sent);
    return sent + latency;
  }
}

/** The times of each stage.
 * @throws {RangeError} when they are not one for each stage, or not times. */
export function timesByStage(stages: number, times?: readonly StageTimes[]): readonly StageTimes[] {
  if (times === undefined) return Array.from({ length: stages }, () => UNIT_TIMES);
  if (times.length !== stages) {
    throw new RangeError(`There are times of ${times.length} stages; expected those of ${stages}`);
  }
  for (const [stage, one] of times.entries()) {
    const wrong = Object.entries(one).find(([, time]) => time !== undefined && !(time > 0 && time < Infinity));
    if (wrong) throw new RangeError(`Stage ${stage} takes ${wrong[1]} for ${wrong[0]}; expected a time above 0`);
  }
  return times;
}

/** Simulates a schedule.
 * @throws {ScheduleError} when ranks wait for each other for ever.
 * @throws {RangeError} when times are missing or are none. */
export function simulate(schedule: Schedule, options: SimulateOptions = {}): Timetable {
  const result = simulateIfItEnds(schedule, options);
  if (!("stuck" in result)) return result;
  throw new ScheduleError(`"${schedule.name}" comes to no end; verify it first`, result.stuck[0]);
}

/** As {@linkcode simulate}, but a schedule in which ranks wait for each other for ever gives where they do.
 * @throws {RangeError} when times are missing or are none. */
export function simulateIfItEnds(
  schedule: Schedule,
  options: SimulateOptions = {},
): Timetable | { readonly stuck: readonly Placed[] } {
  const { rankOf, rows, microbatches } = schedule, stages = rankOf.length;
  const { messageBytes = 0, activationBytes: bytesOf = [] } = options;
  const times = timesByStage(stages, options.times), links = new Links(options);
  // By stage and microbatch: when the activation, or the gradient, is there that the stage reads.
  const arrived = { F: new Float64Array(stages * microbatches), B: new Float64Array(stages * microbatches) };
  const spans = rows.map((): Span[] => []), sentBytes = rows.map(() => 0);
  const stuck = walk(schedule, ({ rank, action }) => {
    const { stage, kind, microbatch } = action, forward = kind === "F", row = spans[rank];
    const there = sourceOf(action, stages) === undefined
      ? 0
      : arrived[forward ? "F" : "B"][stage * microbatches + microbatch];
    const start = Math.max(row.at(-1)?.end ?? 0, there), end = start + timeOf(action, times[stage]);
    row.push({ action, start, end });
    const reader = stage + (forward ? 1 : -1);
    if (kind === "W" || reader < 0 || reader >= stages) return;
    const to = rankOf[reader];
    arrived[forward ? "F" : "B"][reader * microbatches + microbatch] = links.arrival(end, { from: rank, to });
    if (to !== rank) sentBytes[rank] += messageBytes;
  });
  if (stuck.length > 0) return { stuck };
  const makespan = Math.max(0, ...spans.map((row) => row.at(-1)?.end ?? 0));
  const idle = spans.map((row) => row.reduce((left, { start, end }) => left - (end - start), makespan));
  const kept = rows.map((row) => mostKept(row.flatMap(actionsOf), (stage) => bytesOf[stage] ?? 0));
  return {
    schedule,
    spans,
    makespan,
    idle,
    bubble: makespan === 0 ? 0 : idle.reduce((sum, time) => sum + time, 0) / (makespan * rows.length),
    slots: kept.map(({ count }) => count),
    activationBytes: kept.map(({ bytes }) => bytes),
    sentBytes,
  };
}

/** The most activations that a row keeps at once, and the most bytes of them: from a forward until the gradients of weights are made. */
function mostKept(row: readonly Action[], bytesOf: (stage: number) => number): { count: number; bytes: number } {
  let [count, bytes] = [0, 0];
  const most = { count: 0, bytes: 0 };
  for (const { kind, stage } of row) {
    if (kind === "I") continue;
    const sign = kind === "F" ? 1 : -1;
    [count, bytes] = [count + sign, bytes + sign * bytesOf(stage)];
    [most.count, most.bytes] = [Math.max(most.count, count), Math.max(most.bytes, bytes)];
  }
  return most;
}

/** A timetable as text, a line for each rank. Where it fits into `width` characters, each cell is as long as the shortest action, and
 * says kind and microbatch, with the stage before it where a rank has several; an action that takes several cells is repeated, and
 * `·` is an idle one. Else, and where `until` says how long `width` is, each character is an equal part of the time, and says the kind
 * alone. */
export function timetableText(
  { schedule, spans, makespan }: Timetable,
  { width = 120, until }: { width?: number; until?: number } = {},
): string {
  const several = schedule.rankOf.length > spans.length;
  const nameOf = ({ stage, kind, microbatch }: Action) => `${several ? stage : ""}${kind}${microbatch}`;
  const all = spans.flat(), shortest = Math.min(...all.map(({ start, end }) => end - start));
  const cells = Math.round(makespan / shortest), wide = Math.max(...all.map(({ action }) => nameOf(action).length));
  const label = (rank: number) => `r${rank}`.padEnd(`r${spans.length - 1}`.length);
  const fits = until === undefined && label(0).length + cells * (wide + 1) <= width;
  const part = fits ? makespan / cells : (until ?? makespan) / Math.max(1, width - label(0).length - 1);
  const count = Math.round(makespan / part);
  const lines = spans.map((row, rank) => {
    let at = 0;
    const drawn = Array.from({ length: count }, (_, i) => {
      const middle = (i + 0.5) * part;
      while (at < row.length && row[at].end <= middle) at++;
      const span = row[at], idle = span === undefined || span.start > middle;
      return idle ? "·" : fits ? nameOf(span.action) : span.action.kind;
    });
    return fits
      ? `${label(rank)} ${drawn.map((text) => text.padEnd(wide)).join(" ").trimEnd()}\n`
      : `${label(rank)} ${drawn.join("")}\n`;
  });
  return lines.join("");
}
