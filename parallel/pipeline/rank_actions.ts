/** What each rank's program is told to do, in order, with the memory that each action uses: the last form of a schedule. All that a stage
 * keeps of a microbatch lies in a _slot_, from when it is given the microbatch until its last backward, or until its gradient has been sent.
 * A rank has as many slots as are in use at once.
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
  readonly slot: number;
  /** Is it the first of this section in the row, so that nothing of this step has been added yet to its sums? */
  readonly first: boolean;
  /** Is it the last one? */
  readonly last: boolean;
}

/** What goes from one stage to the next, or to the one before: to another rank (`send`, there `receive`), or to a stage of the same rank
 * (`pass`). */
export interface TransferAction {
  readonly way: "send" | "receive" | "pass";
  readonly message: Message;
  /** Of the stage that it is sent from, or else of the one that it goes to. */
  readonly slot: number;
  /** Where a `pass` comes from. */
  readonly source?: number;
}

/** One thing that a rank's program does. */
export type RankAction = SectionAction | TransferAction;

/** What a rank does in a step. */
export interface RankActions {
  readonly actions: readonly RankAction[];
  readonly slots: number;
}

/** Is it a transfer? */
export function isTransfer(action: RankAction): action is TransferAction {
  return "way" in action;
}

const SECTIONS: Readonly<Record<Kind, readonly Section[]>> = {
  F: ["forward"],
  B: ["backward"],
  I: ["backward_input"],
  W: ["backward_weight"],
};

/** Does any rank do gradients of weights apart? All backwards are then two sections, as a sum is begun by one of them. */
export function hasHalves({ rows }: Pick<Schedule, "rows">): boolean {
  return rows.some((row) => row.some((cell) => cell !== null && !Array.isArray(cell) && (cell as Action).kind === "W"));
}

/** By rank: what it does for a schedule that says what is computed. Messages are placed by the times that are given.
 * @throws {ScheduleError} when the schedule cannot run. */
export function rankActions(schedule: Schedule, options: SimulateOptions = {}): RankActions[] {
  return actionsByRank(exchangeRows(placeMessages(schedule, options), options), schedule.rankOf, hasHalves(schedule));
}

/** By rank: what it does for rows of exchanges.
 * @param halves is every backward two sections? */
export function actionsByRank(rows: readonly ExchangeRow[], rankOf: readonly number[], halves = false): RankActions[] {
  const sectionsOf = (kind: Kind) => kind === "B" && halves ? [...SECTIONS.I, ...SECTIONS.W] : SECTIONS[kind];
  return rows.map((row, rank) => {
    const plain = row.flatMap((step): Plain[] => {
      if (!isExchange(step)) {
        return [
          ...sectionsOf(step.kind).map((section) => ({ section, ...step })),
          ...passes(step, rankOf).map((message) => ({ way: "pass" as const, message })),
        ];
      }
      return step.messages.map((message) => ({ way: rankOf[message.from] === rank ? "send" : "receive", message }));
    });
    const slots = new Lifetimes(), first = new Set<number>(), last = new Map<string, number>();
    for (const [i, action] of plain.entries()) {
      slotsOf(action).forEach((name) => slots.use(name, i));
      if (!("section" in action)) continue;
      const key = `${action.section} ${action.stage}`;
      if (!last.has(key)) first.add(i);
      last.set(key, i);
    }
    const at = slots.assign(), ends = new Set(last.values());
    const actions = plain.map((action, i): RankAction => {
      const [slot, source] = slotsOf(action).map((name) => at.get(name)!);
      if (!("section" in action)) return source === undefined ? { ...action, slot } : { ...action, slot, source };
      const { section, stage, microbatch } = action;
      return { section, stage, microbatch, slot, first: first.has(i), last: ends.has(i) };
    });
    return { actions, slots: slots.count };
  });
}

/** What a rank does for microbatches that go through all stages forward, one after another; each has one slot. */
export function forwardActions(rankOf: readonly number[], rank: number, microbatches: number): RankActions {
  const own = rankOf.flatMap((owner, stage) => owner === rank ? [stage] : []), last = rankOf.length - 1;
  const actions = Array.from({ length: microbatches }, (_, microbatch) =>
    own.flatMap((stage): RankAction[] => {
      const slot = own.indexOf(stage);
      const message = (from: number): Message => ({ what: "activation", from, to: from + 1, microbatch });
      const list: RankAction[] = [];
      if (stage > 0 && rankOf[stage - 1] !== rank) list.push({ way: "receive", message: message(stage - 1), slot });
      list.push({ section: "forward", stage, microbatch, slot, first: microbatch === 0, last: false });
      if (stage === last) return list;
      if (rankOf[stage + 1] !== rank) list.push({ way: "send", message: message(stage), slot });
      else list.push({ way: "pass", message: message(stage), slot: slot + 1, source: slot });
      return list;
    })).flat();
  return { actions, slots: own.length };
}

/** An action before it has a slot. */
type Plain =
  | (Pick<SectionAction, "section" | "stage" | "microbatch">)
  | Pick<TransferAction, "way" | "message">;

/** What an action makes for a stage of the same rank. */
function passes({ stage, kind, microbatch }: Action, rankOf: readonly number[]): Message[] {
  const to = stage + (kind === "F" ? 1 : -1);
  if (kind === "W" || rankOf[to] !== rankOf[stage]) return [];
  return [{ what: kind === "F" ? "activation" : "gradient", from: stage, to, microbatch }];
}

/** The stages and microbatches whose slots an action uses: its own, and where it passes on from. */
function slotsOf(action: Plain): string[] {
  if ("section" in action) return [`${action.stage}, ${action.microbatch}`];
  const { way, message: { from, to, microbatch } } = action;
  return (way === "send" ? [from] : way === "receive" ? [to] : [to, from]).map((stage) => `${stage}, ${microbatch}`);
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
