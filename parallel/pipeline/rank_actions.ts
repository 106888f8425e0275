/** What each rank's program is told to do, in order, with the memory that each action uses: the last form of a schedule. Activations of
 * one stage and microbatch lie in a _slot_ from their forward until their gradients of weights are made. What passes between stages lies
 * in a _place_ from when it is made or received until it is sent, or read for the last time: backward reads what forward read, too.
 * A rank has as many slots and places as are in use at once.
 * @module */
import type { Action, Kind, Schedule } from "./actions.ts";
import { type ExchangeRow, exchangeRows, isExchange, type Message, placeMessages } from "./messages.ts";
import type { SimulateOptions } from "./timetable.ts";

/** Part of a stage's program. */
export type Section = "forward" | "backward" | "backward_input" | "backward_weight";

/** A run of a section. */
export interface SectionAction {
  readonly section: Section;
  readonly stage: number;
  readonly microbatch: number;
  /** Where its activations are. */
  readonly slot: number;
  /** The place of what the stage before sent; the first stage has none. */
  readonly activationIn?: number;
  /** Where forward puts what the stage behind reads. */
  readonly activationOut?: number;
  /** The place of the gradient that came from the stage behind. */
  readonly gradientIn?: number;
  /** Where backward puts the gradient for the stage before. */
  readonly gradientOut?: number;
  /** Nothing of this step has been added yet to what the section adds to: a forward's sum of losses, sums of weights' gradients. */
  readonly first: boolean;
  /** Nothing more of this step will be added to it. */
  readonly last: boolean;
}

/** What a rank gives to another, or is given, when they meet. */
export interface Transfer {
  readonly way: "send" | "receive";
  readonly message: Message;
  readonly place: number;
}

/** A meeting with another rank, which has the same list of transfers, each the other way. */
export interface ExchangeAction {
  readonly peer: number;
  readonly transfers: readonly Transfer[];
}

/** What a rank does in a step. */
export interface RankActions {
  readonly actions: readonly (SectionAction | ExchangeAction)[];
  readonly slots: number;
  readonly places: number;
}

const SECTIONS: Readonly<Record<Kind, Section>> = {
  F: "forward",
  B: "backward",
  I: "backward_input",
  W: "backward_weight",
};

/** By rank: what it does for a schedule that says what is computed. Messages are placed by the times that are given.
 * @throws {ScheduleError} when the schedule cannot run. */
export function rankActions(schedule: Schedule, options: SimulateOptions = {}): RankActions[] {
  return actionsByRank(exchangeRows(placeMessages(schedule, options)), schedule.rankOf);
}

/** By rank: what it does for rows of exchanges. */
export function actionsByRank(rows: readonly ExchangeRow[], rankOf: readonly number[]): RankActions[] {
  return rows.map((row, rank) => {
    const places = new Lifetimes(), slots = new Lifetimes();
    for (const [i, step] of row.entries()) {
      if (isExchange(step)) {
        for (const { what, from, microbatch } of step.messages) places.use(value(what, from, microbatch), i);
      } else {
        slots.use(slotOf(step), i);
        for (const used of Object.values(valuesOf(step, rankOf.length))) places.use(used, i);
      }
    }
    const slotAt = slots.assign(), placeAt = places.assign(), ends = endsOf(row);
    const actions = row.map((step, i): SectionAction | ExchangeAction => {
      if (isExchange(step)) {
        const transfers = step.messages.map((message): Transfer => ({
          way: rankOf[message.from] === rank ? "send" : "receive",
          message,
          place: placeAt.get(value(message.what, message.from, message.microbatch))!,
        }));
        return { peer: step.ranks[0] === rank ? step.ranks[1] : step.ranks[0], transfers };
      }
      const { stage, kind, microbatch } = step;
      const used = Object.entries(valuesOf(step, rankOf.length)).map(([name, of]) => [name, placeAt.get(of)]);
      return {
        section: SECTIONS[kind],
        stage,
        microbatch,
        slot: slotAt.get(slotOf(step))!,
        ...Object.fromEntries(used),
        first: ends.get(sumOf(step))?.[0] === i,
        last: ends.get(sumOf(step))?.[1] === i,
      };
    });
    return { actions, slots: slots.count, places: places.count };
  });
}

const value = (what: Message["what"], stage: number, microbatch: number) => `${what} of ${stage}, ${microbatch}`;
const slotOf = ({ stage, microbatch }: Action) => `${stage}, ${microbatch}`;

/** What passes between stages and an action reads or makes, by the name of its field. */
function valuesOf({ stage, kind, microbatch }: Action, stages: number): Record<string, string> {
  const first = stage === 0, last = stage === stages - 1, backward = kind !== "F";
  return {
    ...!first && { activationIn: value("activation", stage - 1, microbatch) },
    ...kind === "F" && !last && { activationOut: value("activation", stage, microbatch) },
    ...backward && !last && { gradientIn: value("gradient", stage + 1, microbatch) },
    ...backward && kind !== "W" && !first && { gradientOut: value("gradient", stage, microbatch) },
  };
}

/** What an action adds to; the gradient of an input is no sum. */
const sumOf = ({ stage, kind }: Action) => kind === "I" ? "" : `${stage} ${kind === "F" ? "losses" : "gradients"}`;

/** The first and the last step of a row that adds to each sum. */
function endsOf(row: ExchangeRow): Map<string, [number, number]> {
  const ends = new Map<string, [number, number]>();
  for (const [i, step] of row.entries()) {
    if (isExchange(step) || step.kind === "I") continue;
    ends.set(sumOf(step), [ends.get(sumOf(step))?.[0] ?? i, i]);
  }
  return ends;
}

/** From when to when names are in use, and the fewest numbers that keep apart what is in use at once. */
class Lifetimes {
  readonly #spans = new Map<string, [number, number]>();
  /** How many numbers `assign` has given. */
  count = 0;

  /** A name is in use at step `at`; steps are told in order. */
  use(name: string, at: number): void {
    this.#spans.set(name, [this.#spans.get(name)?.[0] ?? at, at]);
  }

  /** A number for each name. Spans are met by their begin, so the lowest free number is enough: no more are given than overlap. */
  assign(): Map<string, number> {
    const until: number[] = [], numbers = new Map<string, number>();
    for (const [name, [begin, end]] of this.#spans) {
      const free = until.findIndex((last) => last < begin), number = free < 0 ? until.length : free;
      until[number] = end;
      numbers.set(name, number);
    }
    this.count = until.length;
    return numbers;
  }
}
