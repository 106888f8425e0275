/** The schedule `Auto`: of many timetables the one with the least idle time that fits. Stages take as long as they are said to take, so
 * it suits a pipeline whose stages are uneven, whose links are slow, or whose memory is too small for the named schedules.
 *
 * What is tried: each named schedule, and lists that are made greedily. In those a rank that is free takes the next action by a policy
 * as soon as one can begin; policies differ in how many activations a rank may keep, whether backward is cut in two, and what goes
 * first. Each is simulated as it is, and with backwards whole where their halves follow each other. The shortest wins, so it is never
 * longer than the best of the named ones; between equals the one with fewer slots, then the one met first, the named ones before
 * others. At last single actions of it are moved within their rows, as long as that shortens it. Nothing is random, and no clock is
 * asked: the same times give the same schedule.
 * @module */
import { type Action, actionsOf, type Cell, placeStages, type Schedule, sourceOf, type Style } from "./actions.ts";
import { joinHalves, makeSchedule, type Pipeline, scheduleFault, SCHEDULES } from "./schedules.ts";
import {
  Links,
  simulate,
  simulateIfItEnds,
  type SimulateOptions,
  timeOf,
  timesByStage,
  type Timetable,
} from "./timetable.ts";
import type { ScheduleLimits } from "./verify_schedule.ts";

/** What the search is told beside the pipeline. */
export interface AutoOptions extends SimulateOptions, ScheduleLimits {
  /** How stages lie on ranks, if that is given; else both ways are tried where each rank has two. */
  readonly style?: Style;
}

/** What the search found. */
export interface AutoSchedule {
  readonly timetable: Timetable;
  /** What it is: the name of a schedule, or the policy of a greedy list. */
  readonly found: string;
}

/** How a greedy list is made. */
interface Policy {
  readonly style: Style;
  /** By rank: activations that it may keep. */
  readonly caps: readonly number[];
  /** Is backward cut in two? */
  readonly split: boolean;
  /** Which goes first. */
  readonly first: "backward" | "forward";
  /** Of several forwards: those of the stage furthest up, or those of the oldest microbatch. */
  readonly forwards: "deep" | "oldest";
  /** Do gradients of weights go before forwards, or behind all else? */
  readonly weights: "early" | "late";
}

/** Searches for a timetable.
 * @throws {RangeError} when none fits into the slots, or when times are missing. */
export function autoSchedule(pipeline: Pipeline, { slots, style, ...options }: AutoOptions = {}): AutoSchedule {
  const { ranks, stagesPerRank, microbatches } = pipeline, all = stagesPerRank * microbatches;
  const room = Array.from({ length: ranks }, (_, rank) => typeof slots === "object" ? slots[rank] : slots ?? all);
  const times = timesByStage(ranks * stagesPerRank, options.times), search = new Search(room, options);
  const named = SCHEDULES.filter((kind) => kind.style === (style ?? kind.style) && !scheduleFault(kind, pipeline));
  for (const kind of named) search.consider(makeSchedule(kind, pipeline), kind.name);
  const styles: Style[] = style ? [style] : stagesPerRank > 1 ? ["loop", "v"] : ["loop"];
  const whole = ranks * stagesPerRank, even = [whole, 1.5 * whole, 2 * whole].map((n) => room.map(() => Math.ceil(n)));
  const wanted = [room, ...even, ...named.map((kind) => simulate(makeSchedule(kind, pipeline)).slots)];
  const caps = new Map(
    wanted.map((by) => by.map((n, rank) => Math.min(n, room[rank], all))).map((by) => [`${by}`, by]),
  );
  for (const policy of policies(styles, [...caps.values()])) {
    const schedule = greedyList(pipeline, { ...options, times, policy });
    if (schedule) search.consider(schedule, policyText(policy));
  }
  search.improve();
  if (search.best) return search.best;
  throw new RangeError(
    `No schedule of ${microbatches} microbatches on ${ranks} ranks with ${stagesPerRank} stages each fits into ${
      room.join(", ")
    } slots by rank; expected room for ${stagesPerRank} on each at least: give more, or fewer stages to a rank`,
  );
}

/** Actions that the improvement of a list may simulate, all in all: a second or so. */
const MOST_SIMULATED = 2_000_000;
/** An action is moved by so many places at most. */
const FARTHEST = 6;

/** The best of what has been considered. */
class Search {
  readonly #room: readonly number[];
  readonly #options: SimulateOptions;
  best?: AutoSchedule;
  /** As the best one was before its halves were joined. */
  #inHalves?: Schedule;

  constructor(room: readonly number[], options: SimulateOptions) {
    [this.#room, this.#options] = [room, options];
  }

  /** Keeps a schedule, or what it is with its halves joined, if that fits and is better than the best. */
  consider(schedule: Schedule, found: string): boolean {
    let better = false;
    for (const one of new Set([schedule, joinHalves(schedule)])) {
      const timetable = simulateIfItEnds({ ...one, name: "Auto" }, this.#options);
      if ("stuck" in timetable || timetable.slots.some((n, rank) => n > this.#room[rank])) continue;
      const time = timetable.makespan, before = this.best?.timetable;
      // Sums of times in another order differ in their last bits.
      const longer = before && time >= before.makespan * (1 - 1e-12);
      if (longer && !(time <= before.makespan * (1 + 1e-12) && sum(timetable.slots) < sum(before.slots))) continue;
      [this.best, this.#inHalves, better] = [{ timetable, found }, schedule, true];
    }
    return better;
  }

  /** Moves single actions of the best one within their rows, as long as that makes it better and is worth the time. */
  improve(): void {
    let left = MOST_SIMULATED;
    for (let better = this.best !== undefined; better;) {
      better = false;
      for (const [rank, row] of this.#inHalves!.rows.entries()) {
        for (let from = 0; from < row.length; from++) {
          for (const to of moves(this.#inHalves!.rows[rank], from)) {
            const { rows } = this.#inHalves!, moved = rows[rank].toSpliced(from, 1).toSpliced(to, 0, rows[rank][from]);
            left -= 2 * sum(rows.map(({ length }) => length));
            if (left < 0) return;
            const found = this.best!.found.replace(/(, improved)?$/, ", improved");
            if (!this.consider({ ...this.#inHalves!, rows: rows.with(rank, moved) }, found)) continue;
            better = true;
            break;
          }
        }
      }
    }
  }
}

/** Where an action of a row may go: not past others of its stage and microbatch. */
function moves(row: readonly Cell[], from: number): number[] {
  const own = actionsOf(row[from]), targets: number[] = [];
  for (const step of [-1, 1]) {
    for (let to = from + step; Math.abs(to - from) <= FARTHEST && to >= 0 && to < row.length; to += step) {
      const met = actionsOf(row[to]).some((a) => own.some((o) => a.stage === o.stage && a.microbatch === o.microbatch));
      if (met) break;
      targets.push(to);
    }
  }
  return targets;
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, n) => total + n, 0);

function policies(styles: readonly Style[], capsOf: readonly (readonly number[])[]): Policy[] {
  const both = <A, B>(as: readonly A[], bs: readonly B[]) => as.flatMap((a) => bs.map((b) => ({ ...a, ...b })));
  const orders = both(
    [{ first: "backward" }, { first: "forward" }] as const,
    [
      { forwards: "deep" },
      { forwards: "oldest" },
    ] as const,
  );
  const halves = [{ split: true, weights: "late" }, { split: true, weights: "early" }, {
    split: false,
    weights: "late",
  }] as const;
  return both(both(styles.map((style) => ({ style })), capsOf.map((caps) => ({ caps }))), both(orders, halves));
}

function policyText({ style, caps, split, first, forwards, weights }: Policy): string {
  const halves = split ? `halves of backward, gradients of weights ${weights}` : "whole backwards";
  return `${style}, ${first} first, ${forwards} forwards first, ${halves}, at most ${caps.join(", ")} slots`;
}

interface GreedyOptions extends SimulateOptions {
  readonly policy: Policy;
}

/** What a rank could do next, and from when on. */
interface Candidate {
  readonly action: Action;
  readonly ready: number;
}

/** The schedule that ranks make which take what they can by a policy; nothing if they come to a stand. */
function greedyList(pipeline: Pipeline, { policy, ...options }: GreedyOptions): Schedule | undefined {
  const { ranks, stagesPerRank, microbatches } = pipeline, count = ranks * stagesPerRank;
  const rankOf = placeStages(count, { ranks, style: policy.style }), links = new Links(options);
  const times = timesByStage(count, options.times), backward = policy.split ? "I" : "B";
  const never = () => Array.from({ length: count }, () => new Float64Array(microbatches).fill(Infinity));
  const arrived = { F: never(), B: never() };
  arrived.F[0].fill(0);
  const next = { F: new Int32Array(count), B: new Int32Array(count) };
  const own = Array.from({ length: ranks }, (_, rank) => rankOf.flatMap((owner, s) => owner === rank ? [s] : []));
  const rows = own.map((): Action[] => []), weights = own.map((): Action[] => []);
  const free = own.map(() => 0), kept = own.map(() => 0);

  const candidates = (rank: number): Candidate[] => {
    const found: Candidate[] = [];
    for (const [pass, stage] of own[rank].entries()) {
      const [f, b] = [next.F[stage], next.B[stage]];
      // Each stage leaves a slot for every one of the rank's stages above it: what has begun can be finished.
      if (f < microbatches && kept[rank] + stagesPerRank - pass <= policy.caps[rank]) {
        found.push({ action: { stage, kind: "F", microbatch: f }, ready: arrived.F[stage][f] });
      }
      if (b < f) found.push({ action: { stage, kind: backward, microbatch: b }, ready: arrived.B[stage][b] });
    }
    const [weight] = weights[rank];
    if (weight) found.push({ action: weight, ready: 0 });
    return found;
  };
  const earliest = (rank: number) =>
    candidates(rank).reduce((least, { ready }) => Math.min(least, Math.max(ready, free[rank])), Infinity);
  const begins = own.map((_, rank) => earliest(rank));

  for (let left = count * microbatches * (policy.split ? 3 : 2); left > 0; left--) {
    const start = Math.min(...begins), rank = begins.indexOf(start);
    if (start === Infinity) return undefined;
    const { action } = candidates(rank).filter(({ ready }) => ready <= start)
      .reduce((a, b) => isBefore(b.action, a.action, policy) ? b : a);
    const { stage, kind, microbatch } = action, end = start + timeOf(action, times[stage]);
    rows[rank].push(action);
    free[rank] = end;
    if (kind === "F") kept[rank]++;
    if (kind === "B" || kind === "W") kept[rank]--;
    if (kind === "I") weights[rank].push({ ...action, kind: "W" });
    if (kind === "W") weights[rank].shift();
    else {
      const way = kind === "F" ? "F" : "B", reader = stage + (kind === "F" ? 1 : -1);
      next[way][stage]++;
      if (kind === "F" && sourceOf({ stage, kind: backward }, count) === undefined) arrived.B[stage][microbatch] = end;
      if (reader >= 0 && reader < count) {
        const to = rankOf[reader];
        arrived[way][reader][microbatch] = links.arrival(end, { from: rank, to });
        begins[to] = earliest(to);
      }
    }
    begins[rank] = earliest(rank);
  }
  return { name: "Auto", microbatches, rankOf, rows };
}

/** Does a policy take `a` rather than `b`? */
function isBefore(a: Action, b: Action, { first, forwards, weights }: Policy): boolean {
  const rank = ({ kind }: Action) =>
    kind === "W" ? weights === "early" ? 1 : 3 : (kind === "F") === (first === "forward") ? 0 : 2;
  if (rank(a) !== rank(b)) return rank(a) < rank(b);
  const older = a.microbatch - b.microbatch || a.stage - b.stage;
  return a.kind === "F" && forwards === "deep" ? a.stage > b.stage : older < 0;
}
