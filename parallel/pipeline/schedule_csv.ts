/** Schedules as files: comma-separated values as PyTorch's `_PipelineScheduleRuntime` reads and writes them. A line is a rank, and has no
 * header; a cell is `[stage][action][microbatch]`, such as `2F0`, a pair of such in the form `(0F7;7B3)OVERLAP_F_B`, or blank.
 *
 * Such a file says what is computed, or beside that what is sent and received, `2SEND_F0` and `3RECV_F0`. The latter may also say when
 * FSDP gathers and reduces (`2UNSHARD`, `2RESHARD`, `2REDUCE_GRAD`). These cells are checked for their form and left out: here the
 * compiler places gathers and reductions.
 *
 * Older files have `B` for the gradient of the input, where there is `I` now, and `BW` for the whole backward. A file without an `I` is
 * read so if it has a `BW`, or a `B` of the same stage and microbatch for each `W`.
 * @module */
import { type Action, type Cell, cellText, type Kind, type Schedule, ScheduleError } from "./actions.ts";
import { isMessageEnd, type MessageEnd, messageEndText, type MessageRow, type MessageSchedule } from "./messages.ts";

/** What a file is read for. */
export interface ReadScheduleOptions {
  /** What the schedule is to be called, such as the file's name. */
  readonly name: string;
  /** By stage: the rank that holds it. */
  readonly rankOf: readonly number[];
  readonly microbatches: number;
}

type FileCell = MessageRow[number] | "fsdp";

const COMPUTE = /^(0|[1-9]\d*)(F|B|I|W|BW)(0|[1-9]\d*)$/;
const MESSAGE = /^(0|[1-9]\d*)(SEND_F|RECV_F|SEND_B|RECV_B)(0|[1-9]\d*)$/;
const FSDP = /^(0|[1-9]\d*)(UNSHARD|RESHARD|REDUCE_GRAD)$/;
const PAIR = /^\(\s*([^;()]+?)\s*;\s*([^;()]+?)\s*\)OVERLAP_F_B$/;

/** The text of a schedule, with or without sends and receives; blanks stay. */
export function writeSchedule({ rows }: Schedule | MessageSchedule): string {
  const text = (cell: MessageRow[number]) => isMessageEnd(cell) ? messageEndText(cell) : cellText(cell);
  return rows.map((row) => `${row.map(text).join(",")}\n`).join("");
}

/** Reads a schedule that says what is computed, and when messages are sent if it says that too. That it can run is for
 * `verifySchedule` and `verifyMessages` to say.
 * @throws {ScheduleError} when a cell has no meaning, or when there are not as many lines as ranks. */
export function readSchedule(text: string, { name, rankOf, microbatches }: ReadScheduleOptions): {
  readonly schedule: Schedule;
  readonly messages?: MessageSchedule;
} {
  const lines = text.replace(/(\r?\n)+$/, "").split(/\r?\n/), ranks = Math.max(...rankOf) + 1;
  if (lines.length !== ranks) {
    const fix = "each rank has a line, and there is no header";
    throw new ScheduleError(`"${name}" has ${lines.length} lines; expected ${ranks}: ${fix}`, {
      rank: Math.min(lines.length, ranks),
    });
  }
  const texts = lines.map((line) => line.split(",").map((cell) => cell.trim().replace(/^"(.*)"$/, "$1").trim()));
  const older = isOlder(texts);
  const rows = texts.map((row, rank) => row.map((cell, column) => readCell(cell, { name, rank, column, older })));
  const compute = (cell: FileCell): cell is Cell => cell !== "fsdp" && !isMessageEnd(cell);
  // What is told of the schedule later on names cells as they are now.
  const called = older ? `${name} (older: B is read as I, BW as B)` : name;
  const schedule = {
    name: called,
    rankOf,
    microbatches,
    rows: rows.map((row) => row.map((c) => compute(c) ? c : null)),
  };
  if (rows.every((row) => row.every(compute))) return { schedule };
  return { schedule, messages: { ...schedule, rows: rows.map((row) => row.map((c) => c === "fsdp" ? null : c)) } };
}

/** By stage: the first rank whose line does something with it; ranks that a schedule says more of are for `verifySchedule` to refuse. */
export function ranksInText(text: string): number[] {
  const found: number[] = [];
  for (const [rank, line] of text.replace(/(\r?\n)+$/, "").split(/\r?\n/).entries()) {
    for (const part of line.split(",").flatMap((cell) => partsOf(cell.trim().replace(/^"(.*)"$/, "$1").trim()))) {
      const stage = COMPUTE.exec(part)?.[1];
      if (stage !== undefined) found[Number(stage)] ??= rank;
    }
  }
  return Array.from(found, (rank) => rank ?? 0);
}

/** Is `B` the gradient of the input alone? */
function isOlder(texts: readonly (readonly string[])[]): boolean {
  const seen = new Map<string, Set<string>>();
  for (const part of texts.flat().flatMap(partsOf)) {
    const [, stage, kind, microbatch] = COMPUTE.exec(part) ?? [];
    if (kind !== undefined) seen.set(kind, (seen.get(kind) ?? new Set()).add(`${stage} ${microbatch}`));
  }
  if (seen.has("I")) return false;
  const weights = [...seen.get("W") ?? []];
  return seen.has("BW") || weights.length > 0 && weights.every((of) => seen.get("B")?.has(of));
}

/** What the actions of older files are now. */
const OLDER: Readonly<Record<string, Kind>> = { F: "F", B: "I", BW: "B", W: "W" };

interface Place {
  readonly name: string;
  readonly rank: number;
  readonly column: number;
  readonly older: boolean;
}

function readCell(text: string, place: Place): FileCell {
  if (text === "") return null;
  if (FSDP.test(text)) return "fsdp";
  const message = MESSAGE.exec(text);
  if (message) {
    const [, stage, kind, microbatch] = message;
    return { stage: Number(stage), kind: kind as MessageEnd["kind"], microbatch: Number(microbatch) };
  }
  const actions = partsOf(text).map((part) => readAction(part, place.older));
  if (actions.some((action) => action === undefined)) {
    const { name, rank, column } = place;
    throw new ScheduleError(
      `"${name}", rank ${rank}, column ${column}: "${text}" is no action; expected [stage][F|B|I|W][microbatch] such as 2F0, a ` +
        "pair such as (0F7;7B3)OVERLAP_F_B, 2SEND_F0, 2RECV_F0, 2SEND_B0, 2RECV_B0, 2UNSHARD, 2RESHARD, 2REDUCE_GRAD, or nothing",
      { rank, column },
    );
  }
  const [action, second] = actions as Action[];
  return second ? [action, second] : action;
}

/** The actions of a cell, as they are written. */
function partsOf(text: string): string[] {
  return PAIR.exec(text)?.slice(1) ?? [text];
}

function readAction(text: string, older: boolean): Action | undefined {
  const [, stage, kind, microbatch] = COMPUTE.exec(text) ?? [];
  if (kind === undefined) return undefined;
  const now = older ? OLDER[kind] : kind;
  return now === "BW" ? undefined : { stage: Number(stage), kind: now as Kind, microbatch: Number(microbatch) };
}
