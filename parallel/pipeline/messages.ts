/** When ranks of a pipeline talk: what a stage makes is sent to the rank of its neighbour, which must be there to receive it. A row with
 * messages has, beside what is computed, both ends of each: `2SEND_F0` on the rank of stage 2, and `3RECV_F0` on that of stage 3. What goes
 * to a stage on the same rank is no message.
 *
 * Ends with nothing computed between them are one batch: they happen together, in any order. Rows are taken literally: a rank comes to
 * a batch when all before it is done, and leaves it when all its messages have been exchanged. What runs so runs with less waiting too.
 * @module */
import { type Action, actionsOf, actionText, type Cell, type Schedule, ScheduleError, sourceOf } from "./actions.ts";
import { simulate, type SimulateOptions } from "./timetable.ts";
import { verifySchedule } from "./verify_schedule.ts";

/** One end of a message, on the rank that holds `stage`: `F` is an activation on its way up, `B` its gradient on its way down. */
export interface MessageEnd {
  readonly stage: number;
  readonly kind: "SEND_F" | "RECV_F" | "SEND_B" | "RECV_B";
  readonly microbatch: number;
}

/** What a rank does, messages and all. */
export type MessageRow = readonly (Cell | MessageEnd)[];

/** A schedule that says when messages are sent and received. */
export interface MessageSchedule extends Omit<Schedule, "rows"> {
  readonly rows: readonly MessageRow[];
}

/** A message: what the stage `from` made of a microbatch. */
export interface Message {
  readonly what: "activation" | "gradient";
  readonly from: number;
  readonly to: number;
  readonly microbatch: number;
}

/** Two ranks meet, and give each other messages: one exchange of a program. Both have the same list. */
export interface Exchange {
  readonly ranks: readonly [number, number];
  readonly messages: readonly Message[];
}

/** What a rank does, one thing after another: both of its peers come to an exchange at the same point of their order. */
export type ExchangeRow = readonly (Action | Exchange)[];

/** Is it an end of a message? */
export function isMessageEnd(cell: Cell | MessageEnd): cell is MessageEnd {
  return cell !== null && "kind" in cell && cell.kind.length > 1;
}

/** Is it an exchange? */
export function isExchange(step: Action | Exchange): step is Exchange {
  return "messages" in step;
}

/** An end as PyTorch writes it. */
export function messageEndText({ stage, kind, microbatch }: MessageEnd): string {
  return `${stage}${kind}${microbatch}`;
}

function messageOf({ stage, kind, microbatch }: MessageEnd): Message {
  const up = kind.endsWith("F"), sends = kind.startsWith("SEND"), other = stage + (up === sends ? 1 : -1);
  const [from, to] = sends ? [stage, other] : [other, stage];
  return { what: up ? "activation" : "gradient", from, to, microbatch };
}

const messageText = ({ what, from, microbatch }: Message) => `${what} ${from} ${microbatch}`;

/** The message that an action makes for a stage on another rank, if it does. */
function messageBy({ stage, kind, microbatch }: Action, rankOf: readonly number[]): Message | undefined {
  const to = stage + (kind === "F" ? 1 : -1);
  if (kind === "W" || rankOf[to] === undefined || rankOf[to] === rankOf[stage]) return undefined;
  return { what: kind === "F" ? "activation" : "gradient", from: stage, to, microbatch };
}

/** Puts sends and receives into a schedule that can run. A message is sent as soon as it is made, and its receiver is there by then, as
 * far as the times tell that are given: each row is put into the order of time, so no rank can wait for one that waits for it. A pair
 * becomes its two actions, so that the forward's message travels while the backward is at work.
 * @throws {ScheduleError} when the schedule cannot run. */
export function placeMessages(schedule: Schedule, options: SimulateOptions = {}): MessageSchedule {
  const { rankOf } = schedule, timetable = simulate(schedule, options).spans;
  const rows = schedule.rows.map((): { time: number; cell: Action | MessageEnd }[] => []);
  const begins = new Map(timetable.flat().map(({ action, start }) => [readText(action), start]));
  for (const [rank, spans] of timetable.entries()) {
    for (const { action, start, end } of spans) {
      rows[rank].push({ time: start, cell: action });
      const message = messageBy(action, rankOf);
      if (!message) continue;
      const { from, to, microbatch } = message, way = message.what === "activation" ? "F" : "B";
      rows[rank].push({ time: end, cell: { stage: from, kind: `SEND_${way}`, microbatch } });
      rows[rankOf[to]].push({ time: end, cell: { stage: to, kind: `RECV_${way}`, microbatch } });
    }
  }
  // Messages before what begins at the same time, as that may read them; among themselves all ranks have them in one order, first those
  // that are read first: a rank that comes a little late with another would keep them waiting.
  const key = (cell: Action | MessageEnd) => isMessageEnd(cell) ? messageText(messageOf(cell)) : "~";
  const needed = (cell: Action | MessageEnd) =>
    isMessageEnd(cell) ? begins.get(readText(readerOf(messageOf(cell))))! : Infinity;
  const order = (a: string, b: string) => a < b ? -1 : a > b ? 1 : 0;
  return {
    ...schedule,
    rows: rows.map((row) =>
      row.map((one) => ({ ...one, needed: needed(one.cell) }))
        .sort((a, b) =>
          a.time - b.time || (a.needed < b.needed ? -1 : a.needed > b.needed ? 1 : order(key(a.cell), key(b.cell)))
        )
        .map(({ cell }) => cell)
    ),
  };
}

/** What reads a message: a forward, or a backward, whole or for the input. */
function readerOf({ what, to, microbatch }: Message): Action {
  return { stage: to, kind: what === "activation" ? "F" : "I", microbatch };
}

/** One name for a backward, whole or for the input. */
function readText({ stage, kind, microbatch }: Action): string {
  return `${stage}${kind === "B" ? "I" : kind}${microbatch}`;
}

/** Verifies that a schedule can run with messages exchanged as rows have them: what `verifySchedule` asks; both ends of each message once
 * and nothing else, a send behind what makes it, a receive before what reads it; and no ranks that wait for each other.
 * @throws {ScheduleError} at the first thing that is wrong. */
export function verifyMessages(schedule: MessageSchedule): void {
  meet(schedule);
}

/** Rows of exchanges: what is sent between two ranks at one point of both their orders is one exchange.
 * @param options what things take; of exchanges that ranks may do in any order, they do those first whose message is there first.
 * @throws {ScheduleError} as {@linkcode verifyMessages}. */
export function exchangeRows(schedule: MessageSchedule, options: SimulateOptions = {}): ExchangeRow[] {
  return meet(schedule, options);
}

/** Where an end is. */
interface EndPlace {
  readonly rank: number;
  readonly column: number;
}

function wrong(schedule: MessageSchedule, { rank, column }: EndPlace, what: string): ScheduleError {
  const cell = schedule.rows[rank][column] as MessageEnd;
  const text = `"${schedule.name}", rank ${rank}, column ${column}: "${messageEndText(cell)}" ${what}`;
  return new ScheduleError(text, { rank, column });
}

/** All ends by their text. Each must be there once, on its own rank, in the right place of its row. */
function endsOf(schedule: MessageSchedule): Map<string, EndPlace> {
  const { rows, rankOf } = schedule, ends = new Map<string, EndPlace>();
  for (const [rank, row] of rows.entries()) {
    for (const [column, cell] of row.entries()) {
      if (!isMessageEnd(cell)) continue;
      const place = { rank, column }, text = messageEndText(cell), before = ends.get(text);
      const { from, to } = messageOf(cell),
        [own, other] = [rankOf[cell.stage], rankOf[cell.stage === from ? to : from]];
      if (own !== rank) throw wrong(schedule, place, `is of stage ${cell.stage}; expected a stage of this rank`);
      if (other === undefined || other === rank) {
        const why = other === undefined ? "which there is not" : "which is on this rank";
        throw wrong(
          schedule,
          place,
          `goes to or from stage ${cell.stage === from ? to : from}, ${why}; leave the cell out`,
        );
      }
      if (before) throw wrong(schedule, place, `was done in column ${before.column}; expected each end once`);
      ends.set(text, place);
    }
  }
  return ends;
}

/** Rows in which exchanges stand in an order that all ranks share. Of those that ranks have come to, the one that is made first goes first,
 * and of several that are made at one time the one that is read first: else its reader would wait for a message of somebody else. */
function meet(schedule: MessageSchedule, options: SimulateOptions = {}): (Action | Exchange)[][] {
  const { rows, rankOf } = schedule, ends = endsOf(schedule);
  const computed = { ...schedule, rows: rows.map((row) => row.map((cell) => isMessageEnd(cell) ? null : cell)) };
  verifySchedule(computed);
  verifyEnds(schedule, ends);
  const spans = new Map(simulate(computed, options).spans.flat().map((span) => [readText(span.action), span]));
  const out = rows.map((): (Action | Exchange)[] => []), next = rows.map(() => 0);
  /** Ends of the batch that a rank has come to, which still wait for their other ends. */
  const open = rows.map(() => new Set<string>());
  /** Messages both of whose ranks have come to them. */
  const ready: { message: Message; ranks: readonly [number, number]; made: number; read: number }[] = [];
  const goOn = (rank: number) => {
    for (const row = rows[rank]; next[rank] < row.length; next[rank]++) {
      const cell = row[next[rank]];
      if (isMessageEnd(cell)) {
        const message = messageOf(cell), other = rankOf[cell.stage === message.from ? message.to : message.from];
        open[rank].add(messageText(message));
        if (!open[other].has(messageText(message))) continue;
        const made = spans.get(readText({ ...readerOf(message), stage: message.from }))!.end;
        const read = spans.get(readText(readerOf(message)))!.start;
        ready.push({ message, ranks: [Math.min(rank, other), Math.max(rank, other)], made, read });
      } else if (cell !== null) {
        if (open[rank].size > 0) break;
        out[rank].push(...actionsOf(cell));
      }
    }
  };
  rows.forEach((_, rank) => goOn(rank));
  while (ready.length > 0) {
    const first = ready.reduce((a, b) => b.made < a.made || (b.made === a.made && b.read < a.read) ? b : a);
    ready.splice(ready.indexOf(first), 1);
    addMessage(out, first.message, first.ranks);
    for (const rank of first.ranks) {
      open[rank].delete(messageText(first.message));
      if (open[rank].size === 0) goOn(rank);
    }
  }
  const stuck = open.findIndex((keys) => keys.size > 0);
  if (stuck < 0) return out;
  const column = rows[stuck].findIndex((cell) => isMessageEnd(cell) && open[stuck].has(messageText(messageOf(cell))));
  const end = rows[stuck][column] as MessageEnd, { from, to } = messageOf(end);
  const peer = rankOf[end.stage === from ? to : from];
  const reached = rows[peer].findIndex((cell) => isMessageEnd(cell) && open[peer].has(messageText(messageOf(cell))));
  throw wrong(
    schedule,
    { rank: stuck, column },
    `is never exchanged: rank ${peer} waits at column ${reached}, "${
      messageEndText(rows[peer][reached] as MessageEnd)
    }"; expected an order in which ranks that exchange come to it together`,
  );
}

/** Appends a message to both ranks' rows; if both have just met each other and done nothing since, it is part of that exchange. */
function addMessage(rows: (Action | Exchange)[][], message: Message, ranks: readonly [number, number]): void {
  const [low, high] = ranks.map((rank) => rows[rank].at(-1));
  if (low !== undefined && low === high && isExchange(low)) (low.messages as Message[]).push(message);
  else {
    const exchange = { ranks, messages: [message] };
    for (const rank of ranks) rows[rank].push(exchange);
  }
}

/** Each message that is due is sent behind what makes it, and received before what reads it. */
function verifyEnds(schedule: MessageSchedule, ends: ReadonlyMap<string, EndPlace>): void {
  const { rows, rankOf } = schedule, expected = new Set<string>();
  for (const [rank, row] of rows.entries()) {
    for (const [column, cell] of row.entries()) {
      if (isMessageEnd(cell)) continue;
      for (const action of actionsOf(cell)) {
        const { stage, kind, microbatch } = action, way = kind === "F" ? "F" : "B";
        const source = sourceOf(action, rankOf.length);
        const receives = source !== undefined && rankOf[source] !== rank;
        const due = [
          ...messageBy(action, rankOf) ? [`SEND_${way}` as const] : [],
          ...receives ? [`RECV_${way}` as const] : [],
        ];
        for (const endKind of due) {
          const end = { stage, kind: endKind, microbatch }, place = ends.get(messageEndText(end));
          const [before, expects] = endKind.startsWith("SEND") ? [column, "behind"] : [place?.column, "before"];
          const after = endKind.startsWith("SEND") ? place?.column : column;
          expected.add(messageEndText(end));
          if (before !== undefined && after !== undefined && before < after) continue;
          const text = `"${schedule.name}", rank ${rank}, column ${column}: "${actionText(action)}" has ` +
            (place === undefined ? `no ${messageEndText(end)}` : `${messageEndText(end)} in column ${place.column}`);
          throw new ScheduleError(`${text}; expected it ${expects} column ${column}`, { rank, column });
        }
      }
    }
  }
  for (const [text, place] of ends) {
    if (!expected.has(text)) throw wrong(schedule, place, "belongs to no action of the row; leave it out");
  }
}
