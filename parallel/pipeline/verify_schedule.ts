/** Can a schedule run? Each action once and in an order that its data allow, no ranks that wait for each other, and no more activations
 * at once than there is room for. What is wrong is told with its place: rank, column and cell.
 * @module */
import {
  type Action,
  actionsOf,
  actionText,
  cellText,
  isPair,
  type Placed,
  type Schedule,
  ScheduleError,
  sourceOf,
  walk,
} from "./actions.ts";

/** What ranks have room for. */
export interface ScheduleLimits {
  /** Activations that a rank can keep at once, over its stages: of all ranks, or by rank. By default any number. */
  readonly slots?: number | readonly number[];
}

/** What an action must come behind in its own row. */
const BEHIND = { B: "F", I: "F", W: "I" } as const;

/** Verifies that a schedule can run.
 * @throws {ScheduleError} at the first thing that is wrong. */
export function verifySchedule(schedule: Schedule, { slots }: ScheduleLimits = {}): void {
  const { rankOf, rows } = schedule;
  verifyPlaces(schedule);
  for (const [rank, row] of rows.entries()) {
    verifyRow(schedule, rank);
    const room = typeof slots === "object" ? slots[rank] : slots;
    if (room === undefined) continue;
    let kept = 0;
    for (const [column, cell] of row.entries()) {
      for (const action of actionsOf(cell)) {
        kept += { F: 1, B: -1, W: -1, I: 0 }[action.kind];
        if (kept <= room) continue;
        const stages = rankOf.filter((owner) => owner === rank).length;
        const fix = stages > 1
          ? "fewer forwards ahead of backwards, or fewer stages on a rank"
          : "fewer forwards ahead";
        throw wrong(
          schedule,
          { rank, column },
          `is the activation number ${kept} that the rank keeps at once; expected at most ${room}: let ${fix}`,
        );
      }
    }
  }
  const stuck = walk(schedule, () => {});
  if (stuck.length > 0) throw stuckError(schedule, stuck);
}

/** Where something is, in words. */
function at(schedule: Schedule, { rank, column }: { rank: number; column: number }): string {
  return `rank ${rank}, column ${column}: "${cellText(schedule.rows[rank][column])}"`;
}

function wrong(schedule: Schedule, place: { rank: number; column: number }, what: string): ScheduleError {
  return new ScheduleError(`"${schedule.name}", ${at(schedule, place)} ${what}`, place);
}

/** Stages are on ranks that there are, and every action is of a stage that its rank holds and of a microbatch that there is. */
function verifyPlaces(schedule: Schedule): void {
  const { rankOf, rows, microbatches } = schedule;
  for (const [stage, owner] of rankOf.entries()) {
    if (rows[owner] !== undefined) continue;
    throw new ScheduleError(
      `"${schedule.name}" has ${rows.length} rows, and none for rank ${owner}, which holds stage ${stage}; expected a row for each rank`,
      { rank: owner },
    );
  }
  for (const [rank, row] of rows.entries()) {
    for (const [column, cell] of row.entries()) {
      if (isPair(cell) && (cell.length !== 2 || cell[0].kind !== "F" || cell[1].kind !== "B")) {
        throw wrong(schedule, { rank, column }, "is no pair; expected a forward and a whole backward, in this order");
      }
      for (const { stage, microbatch } of actionsOf(cell)) {
        if (rankOf[stage] !== rank) {
          const own = rankOf.flatMap((owner, s) => owner === rank ? [s] : []).join(", ");
          const where = rankOf[stage] === undefined ? "does not exist" : `is on rank ${rankOf[stage]}`;
          throw wrong(schedule, { rank, column }, `is of stage ${stage}, which ${where}; expected one of ${own}`);
        }
        if (!(microbatch >= 0 && microbatch < microbatches)) {
          throw wrong(
            schedule,
            { rank, column },
            `is of microbatch ${microbatch}; expected one of 0 to ${microbatches - 1}`,
          );
        }
      }
    }
  }
}

/** In a row each stage has, for each microbatch, one `F`, and behind it one `B`, or an `I` and behind that a `W`. */
function verifyRow(schedule: Schedule, rank: number): void {
  const found = new Map<string, number>(), { rankOf, rows, microbatches } = schedule;
  for (const [column, cell] of rows[rank].entries()) {
    for (const action of actionsOf(cell)) {
      const { kind } = action, of = (other: Action["kind"]) => found.get(actionText({ ...action, kind: other }));
      const before = of(kind);
      if (before !== undefined) {
        throw wrong(schedule, { rank, column }, `was done in column ${before}; expected each action once`);
      }
      const [twice] = { F: [], B: ["I", "W"] as const, I: ["B"] as const, W: ["B"] as const }[kind]
        .filter((other) => of(other) !== undefined);
      if (twice) {
        throw wrong(
          schedule,
          { rank, column },
          `repeats what ${actionText({ ...action, kind: twice })} does in column ${of(twice)}; ` +
            "expected a B, or an I and a W",
        );
      }
      if (kind !== "F" && of(BEHIND[kind]) === undefined) {
        const needed = actionText({ ...action, kind: BEHIND[kind] });
        throw wrong(schedule, { rank, column }, `comes too early; expected ${needed} before it in the row`);
      }
      found.set(actionText(action), column);
    }
  }
  for (const [stage, owner] of rankOf.entries()) {
    if (owner !== rank) continue;
    for (let microbatch = 0; microbatch < microbatches; microbatch++) {
      const of = (kind: Action["kind"]) => found.get(actionText({ stage, kind, microbatch }));
      const missing = of("F") === undefined ? "F" : of("B") === undefined && of("W") === undefined ? "B" : undefined;
      if (!missing) continue;
      const column = of("I") ?? of("F"), needed = missing === "B" && of("I") !== undefined ? "W" : missing;
      const behind = column === undefined ? "in the row" : `behind column ${column}, "${cellText(rows[rank][column])}"`;
      const text = actionText({ stage, kind: needed, microbatch });
      throw new ScheduleError(`"${schedule.name}", rank ${rank} never does ${text}; expected it ${behind}`, {
        rank,
        column,
      });
    }
  }
}

/** Ranks that wait for each other: the first of them that is met twice on the way from what is awaited to who must do it. */
function stuckError(schedule: Schedule, stuck: readonly Placed[]): ScheduleError {
  const { rankOf } = schedule, ring: Placed[] = [];
  const awaited = ({ action }: Placed): Action => {
    const stage = sourceOf(action, rankOf.length)!;
    return { ...action, stage };
  };
  let one = stuck[0];
  while (!ring.includes(one)) {
    ring.push(one);
    one = stuck.find(({ rank }) => rank === rankOf[awaited(one).stage])!;
  }
  const waiting = ring.slice(ring.indexOf(one)).map((placed) => {
    const { stage, kind, microbatch } = awaited(placed);
    const needed = kind === "F" ? "forward" : "backward";
    return `${at(schedule, placed)} waits for the ${needed} of microbatch ${microbatch} on stage ${stage} (rank ${
      rankOf[stage]
    })`;
  });
  return new ScheduleError(
    `"${schedule.name}" comes to no end: ${waiting.join("; ")}. Expected an order in which one of them can go on; ` +
      "move what is awaited before what waits",
    one,
  );
}
