/** What the ranks of a pipeline do in one step, as data. A model is cut into stages, a batch into microbatches; each rank holds some
 * stages, and has a row of actions. A schedule is these rows. Everything counts from 0.
 * @module */
/** What is done with one microbatch on one stage: forward (`F`), the whole backward (`B`), or its halves, the gradient of the stage's input
 * (`I`) and those of its weights (`W`). */
export type Kind = "F" | "B" | "I" | "W";

/** One thing that a rank does. */
export interface Action {
  readonly stage: number;
  readonly kind: Kind;
  readonly microbatch: number;
}

/** A forward and a backward that a rank may do at the same time; where it cannot, the forward comes first. */
export type Pair = readonly [forward: Action, backward: Action];

/** A place in a row: an action, a pair, or nothing. What stands in one column need not happen at one time: ranks wait for data alone. */
export type Cell = Action | Pair | null;

/** Rows of actions, one for each rank. */
export interface Schedule {
  /** What people call it. */
  readonly name: string;
  readonly microbatches: number;
  /** By stage: the rank that holds it. */
  readonly rankOf: readonly number[];
  /** By rank, in the order in which it acts. */
  readonly rows: readonly (readonly Cell[])[];
}

/** How stages lie on ranks. `loop`: stage s is on rank s mod P. `v`: every other pass goes back, so that with two passes rank r holds
 * stages r and 2P-1-r, and the first rank both the first stage and the last. */
export type Style = "loop" | "v";

/** By stage: the rank that holds it. */
export function placeStages(stages: number, { ranks, style }: { ranks: number; style: Style }): number[] {
  return Array.from({ length: stages }, (_, stage) => {
    const pass = Math.floor(stage / ranks), at = stage % ranks;
    return style === "v" && pass % 2 === 1 ? ranks - 1 - at : at;
  });
}

/** By rank: its stages, upward. */
export function stagesByRank({ rankOf, rows }: Pick<Schedule, "rankOf" | "rows">): number[][] {
  return rows.map((_, rank) => rankOf.flatMap((owner, stage) => owner === rank ? [stage] : []));
}

/** Is a cell a pair? */
export function isPair(cell: Cell): cell is Pair {
  return Array.isArray(cell);
}

/** The actions of a cell, in their order. */
export function actionsOf(cell: Cell): readonly Action[] {
  return cell === null ? [] : isPair(cell) ? cell : [cell as Action];
}

/** An action as PyTorch writes it: `2F0` is the forward of microbatch 0 on stage 2. */
export function actionText({ stage, kind, microbatch }: Action): string {
  return `${stage}${kind}${microbatch}`;
}

/** A cell as PyTorch writes it; nothing is "". */
export function cellText(cell: Cell): string {
  return isPair(cell) ? `(${cell.map(actionText).join(";")})OVERLAP_F_B` : actionsOf(cell).map(actionText).join("");
}

/** A schedule that cannot run, and where that shows. */
export class ScheduleError extends RangeError {
  /** Tells it from the errors of JavaScript itself. */
  override readonly name = "ScheduleError";

  /** @param message what happened, what was expected and how to mend it.
   * @param place the row and the column that the message is about; a column is absent where the row as a whole is wrong. */
  constructor(message: string, readonly place: { readonly rank: number; readonly column?: number }) {
    super(message);
  }
}

/** An action with its place. */
export interface Placed {
  readonly rank: number;
  readonly column: number;
  readonly action: Action;
}

/** What must be done on another stage before an action can begin: the forward of the stage before it, or the backward for the input of
 * the stage behind it; nothing for first stages forward, for last ones backward, and for gradients of weights. */
export function sourceOf({ stage, kind }: Pick<Action, "stage" | "kind">, stages: number): number | undefined {
  if (kind === "F") return stage > 0 ? stage - 1 : undefined;
  return kind !== "W" && stage < stages - 1 ? stage + 1 : undefined;
}

/** Goes through all actions in an order in which they can happen: by rows, and each behind what it waits for. `visit` sees each once.
 * @returns those that ranks are stuck at, one for each rank that did not reach its end. */
export function walk(schedule: Schedule, visit: (placed: Placed) => void): Placed[] {
  const { rankOf, rows, microbatches } = schedule, stages = rankOf.length;
  const leaves = rows.map((row, rank) =>
    row.flatMap((cell, column) => actionsOf(cell).map((action): Placed => ({ rank, column, action })))
  );
  const next = rows.map(() => 0), done = new Set<number>(), waiting = new Map<number, number[]>();
  // Forwards and backwards of one stage and microbatch are two events that others wait for.
  const event = (stage: number, { kind, microbatch }: Action) =>
    2 * (stage * microbatches + microbatch) + (kind === "F" ? 0 : 1);
  const ready = rows.map((_, rank) => rank).toReversed();
  while (ready.length > 0) {
    const rank = ready.pop()!;
    for (; next[rank] < leaves[rank].length; next[rank]++) {
      const placed = leaves[rank][next[rank]], { action } = placed, source = sourceOf(action, stages);
      if (source !== undefined && !done.has(event(source, action))) {
        const key = event(source, action);
        waiting.set(key, [...waiting.get(key) ?? [], rank]);
        break;
      }
      visit(placed);
      if (action.kind === "W") continue;
      const key = event(action.stage, action);
      done.add(key);
      ready.push(...waiting.get(key) ?? []);
      waiting.delete(key);
    }
  }
  return leaves.flatMap((row, rank) => row[next[rank]] ?? []);
}
