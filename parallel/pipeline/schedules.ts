/** The schedules that have a name: in which order each rank of a pipeline acts. Names, flags and orders are those of PyTorch
 * (`torch.distributed.pipelining`); one of your own is a function from a {@linkcode Pipeline} to rows, or a file (`schedule_csv.ts`).
 *
 * In what is said of bubble and memory, P is the number of ranks, V that of stages on each, M that of microbatches, and r a rank. Bubble
 * is the share of a step in which a rank is idle, where all stages take equally long, `F`, `I` and `W` a unit each and `B` two, and
 * messages no time. Memory is how many activations (of one stage for one microbatch) a rank keeps at most.
 * @module */
import { type Action, type Cell, isPair, type Kind, placeStages, type Schedule, type Style } from "./actions.ts";

/** What a schedule is made for. */
export interface Pipeline {
  readonly ranks: number;
  readonly stagesPerRank: number;
  readonly microbatches: number;
}

/** Gives a rank's row; `stages` are those of the rank, upward. A schedule of one's own is such a function. */
export type RowMaker = (pipeline: Pipeline & { readonly rank: number; readonly stages: readonly number[] }) => Cell[];

/** A named schedule. */
export interface ScheduleKind {
  readonly name: string;
  /** How its stages lie on ranks. */
  readonly style: Style;
  /** Stages on each rank that it can do with: one, two, or at least two. */
  readonly stagesPerRank: "one" | "two" | "several";
  readonly row: RowMaker;
  /** What else it asks of a pipeline: nothing, or what is wrong, with what was expected. */
  readonly fault?: (pipeline: Pipeline) => string | undefined;
}

const range = (count: number): number[] => Array.from({ length: Math.max(0, count) }, (_, i) => i);
const act = (stage: number, kind: Kind, microbatch: number): Action => ({ stage, kind, microbatch });

/** Appends actions, each on the next microbatch that its stage and kind have not had. */
class RowWriter {
  readonly cells: Cell[] = [];
  readonly #next = new Map<string, number>();
  readonly #weights: Action[] = [];

  /** Appends one; an `I` leaves a `W` pending. */
  add(kind: Kind, stage: number): void {
    const action = this.#take(kind, stage);
    if (kind === "I") this.#weights.push(act(stage, "W", action.microbatch));
    this.cells.push(action);
  }

  /** Appends a forward and a whole backward that may overlap. */
  pair(forward: number, backward: number): void {
    this.cells.push([this.#take("F", forward), this.#take("B", backward)]);
  }

  /** Appends the oldest pending `W`, of `stage` if one is given; nothing if none is pending. */
  weight(stage?: number): void {
    const at = this.#weights.findIndex((w) => stage === undefined || w.stage === stage);
    if (at >= 0) this.cells.push(...this.#weights.splice(at, 1));
  }

  /** Appends what is pending. */
  weights(stage?: number): void {
    while (this.#weights.some((w) => stage === undefined || w.stage === stage)) this.weight(stage);
  }

  /** How many of a kind a stage has had; `B` and `I` count together. */
  count(kind: Kind, stage: number): number {
    return this.#next.get(`${stage}${kind === "I" ? "B" : kind}`) ?? 0;
  }

  #take(kind: Kind, stage: number): Action {
    const microbatch = this.count(kind, stage);
    this.#next.set(`${stage}${kind === "I" ? "B" : kind}`, microbatch + 1);
    return act(stage, kind, microbatch);
  }
}

/** All forwards, then all backwards. Bubble (P-1) / (M+P-1); memory M.
 * Huang et al., "GPipe", arXiv 1811.06965. */
const gpipe: RowMaker = ({ stages: [stage], microbatches }) => [
  ...range(microbatches).map((m) => act(stage, "F", m)),
  ...range(microbatches).map((m) => act(stage, "B", m)),
];

/** As many forwards as ranks follow, and one; then backward and forward in turns; then what is left. Bubble as GPipe,
 * (P-1) / (M+P-1); memory min(M, P-r). Narayanan et al., "PipeDream-Flush" in arXiv 2006.09503. */
const oneForwardOneBackward: RowMaker = ({ stages: [stage], ranks, microbatches, rank }) => {
  const row = new RowWriter(), ahead = Math.min(microbatches, ranks - rank);
  for (const _ of range(ahead)) row.add("F", stage);
  for (const m of range(microbatches)) {
    row.add("B", stage);
    if (m < microbatches - ahead) row.add("F", stage);
  }
  return row.cells;
};

/** Breadth first: stage by stage upward all forwards, then stage by stage downward all backwards, the last microbatch first. Bubble
 * (P-1) / (VM+P-1), for M of at least P; memory VM. Lamy-Poirier, "Breadth-First Pipeline Parallelism", arXiv 2211.05953. */
const loopedBfs: RowMaker = ({ stages, microbatches }) => [
  ...stages.flatMap((stage) => range(microbatches).map((m) => act(stage, "F", m))),
  ...stages.toReversed().flatMap((stage) => range(microbatches).toReversed().map((m) => act(stage, "B", m))),
];

/** Microbatches of one round of an interleaved schedule: they visit a stage before those of the next round do. */
function perRound({ ranks, microbatches }: Pipeline): number {
  return microbatches / Math.max(1, Math.floor(microbatches / ranks));
}

/** The stage whose turn it is, round after round, upward. */
function turn(at: number, { stages, ...pipeline }: Pipeline & { readonly stages: readonly number[] }): number {
  return stages[Math.floor(at / perRound(pipeline)) % stages.length];
}

/** Depth first: rounds of about P microbatches go through a rank's stages, then forward and backward take turns. Bubble
 * (P-1) / (VM+P-1), for M a multiple of P; memory min(VM, (V-1)P + 2(P-1-r) + 1), for the same M. Narayanan et al.,
 * "Efficient Large-Scale Language Model Training", arXiv 2104.04473; rounds as in PyTorch. */
const interleaved: RowMaker = ({ stages, rank, ...pipeline }) => {
  const up = { ...pipeline, stages }, down = { ...pipeline, stages: stages.toReversed() };
  const all = stages.length * pipeline.microbatches, row = new RowWriter();
  const ahead = Math.min(all, (stages.length - 1) * perRound(pipeline) + 2 * (pipeline.ranks - 1 - rank));
  for (const at of range(all + ahead)) {
    if (at < all) row.add("F", turn(at, up));
    if (at >= ahead) row.add("B", turn(at - ahead, down));
  }
  return row.cells;
};

/** As interleaved, with backward cut in two: fewer forwards go ahead, and gradients of weights fill the gaps, each r `I` behind its own.
 * Bubble (P-1) / (3VM+P-1), for M a multiple of P; memory min(VM, VP). It is the schedule ZB1P of Qi et al.,
 * "Zero Bubble Pipeline Parallelism", arXiv 2401.10241, on several stages. */
const interleavedZeroBubble: RowMaker = ({ stages, rank, ...pipeline }) => {
  const up = { ...pipeline, stages }, down = { ...pipeline, stages: stages.toReversed() };
  const all = stages.length * pipeline.microbatches, row = new RowWriter();
  const ahead = Math.min(all, (stages.length - 1) * perRound(pipeline) + pipeline.ranks - 1 - rank);
  for (const at of range(all + ahead)) {
    if (at < all) row.add("F", turn(at, up));
    if (at < ahead) continue;
    row.add("I", turn(at - ahead, down));
    if (at - ahead >= rank) row.weight();
  }
  row.weights();
  return row.cells;
};

/** Two stages on each rank in a V, so that the first rank has the last stage and backward begins there at once. Bubble
 * (P-1) / (6M+P-1), for M of at least 2P-1, and about none where the optimizer does not wait for all ranks; memory 2P, which is what
 * 1F1B keeps of stages twice as large. Section 6 of Qi et al., arXiv 2401.10241. */
const zbv: RowMaker = ({ stages: [near, far], ranks, rank, microbatches }) => {
  const row = new RowWriter(), full = Math.max(2 * ranks - 1, microbatches);
  const forwardAndBack = (stage: number) => {
    row.add("F", stage);
    row.add("I", stage);
    row.weight(stage);
  };
  for (const _ of range(2 * (ranks - rank) - 1)) row.add("F", near);
  for (const _ of range(rank)) {
    row.add("F", far);
    row.add("F", near);
  }
  for (const _ of range(ranks - rank)) forwardAndBack(far);
  while (row.count("F", far) < row.count("F", near) || row.count("F", near) < full) {
    if (row.count("F", near) < full) row.add("F", near);
    row.add("I", near);
    row.weight(near);
    forwardAndBack(far);
  }
  for (const _ of range(rank)) {
    row.add("I", near);
    row.add("I", far);
  }
  for (const _ of range(ranks - rank)) {
    row.add("I", near);
    row.weight(near);
  }
  row.weights(far);
  row.weights(near);
  // The order is that of a pipe that is full; microbatches that there are not drop out.
  return (row.cells as Action[]).filter((action) => action.microbatch < microbatches);
};

/** Two stages on each rank in a V; in the middle of a step forwards and backwards go in pairs, whose exchanges hide behind the other's
 * work. Bubble as ZBV, (P-1) / (6M+P-1), where pairs take what their parts take, and less where they overlap; memory 2P+1.
 * DeepSeek, "DualPipe" (arXiv 2412.19437) cut in half: github.com/deepseek-ai/DualPipe. */
const dualPipeV: RowMaker = ({ stages: [near, far], ranks, rank, microbatches }) => {
  const row = new RowWriter(), behind = ranks - rank - 1;
  for (const _ of range(2 * behind)) row.add("F", near);
  for (const _ of range(rank + 1)) {
    row.add("F", near);
    row.add("F", far);
  }
  for (const _ of range(behind)) {
    row.add("I", far);
    row.weight();
    row.add("F", far);
  }
  for (const i of range(microbatches - 2 * ranks + rank + 1)) {
    // The last rank's first pair would only wait for its own forward.
    if (i === 0 && rank === ranks - 1) {
      row.add("F", near);
      row.add("B", far);
    } else row.pair(near, far);
    row.pair(far, near);
  }
  for (const _ of range(behind)) {
    row.add("B", far);
    row.pair(far, near);
  }
  // From half way on backward is cut in two: on odd ranks with the far stage, on even ones with the near one behind it.
  const half = Math.floor((rank + 1) / 2);
  for (const i of range(rank + 1)) {
    row.add(i > half || i === half && rank % 2 === 1 ? "I" : "B", far);
    row.add(i >= half ? "I" : "B", near);
  }
  for (const _ of range(behind)) {
    row.weight();
    row.add("I", near);
  }
  row.weights();
  return row.cells;
};

const wholeRounds = (pipeline: Pipeline): string | undefined => {
  const { microbatches, ranks } = pipeline;
  if (Number.isInteger(perRound(pipeline))) return undefined;
  const rounds = Math.floor(microbatches / ranks);
  return `${microbatches} microbatches on ${ranks} ranks make ${rounds} rounds; expected a multiple of ${rounds}, ` +
    `such as ${ranks * rounds}`;
};

/** All that have a name, as PyTorch spells it. */
export const SCHEDULES: readonly ScheduleKind[] = [
  { name: "GPipe", style: "loop", stagesPerRank: "one", row: gpipe },
  { name: "1F1B", style: "loop", stagesPerRank: "one", row: oneForwardOneBackward },
  { name: "LoopedBFS", style: "loop", stagesPerRank: "several", row: loopedBfs },
  { name: "Interleaved1F1B", style: "loop", stagesPerRank: "several", row: interleaved, fault: wholeRounds },
  {
    name: "InterleavedZeroBubble",
    style: "loop",
    stagesPerRank: "several",
    row: interleavedZeroBubble,
    fault: wholeRounds,
  },
  { name: "ZBVZeroBubble", style: "v", stagesPerRank: "two", row: zbv },
  {
    name: "DualPipeV",
    style: "v",
    stagesPerRank: "two",
    row: dualPipeV,
    fault: ({ ranks, microbatches }) =>
      microbatches < 2 * ranks
        ? `${microbatches} microbatches are too few; expected one for each of the ${2 * ranks} stages, or more`
        : undefined,
  },
];

/** The kind of a name, whatever its case.
 * @throws {RangeError} when there is none. */
export function scheduleKind(name: string): ScheduleKind {
  const found = SCHEDULES.find((kind) => kind.name.toLowerCase() === name.toLowerCase());
  if (found) return found;
  throw new RangeError(
    `There is no schedule "${name}"; expected one of ${SCHEDULES.map((kind) => kind.name).join(", ")} (in any case)`,
  );
}

/** What keeps a kind from a pipeline, with what was expected; `undefined` if nothing does. */
export function scheduleFault(kind: ScheduleKind, pipeline: Pipeline): string | undefined {
  const { stagesPerRank } = pipeline;
  const wrong = Object.entries(pipeline).find(([, count]) => !Number.isInteger(count) || count < 1);
  if (wrong) return `${wrong[0]} is ${wrong[1]}; expected a whole number from 1 on`;
  const fits = { one: stagesPerRank === 1, two: stagesPerRank === 2, several: stagesPerRank >= 2 }[kind.stagesPerRank];
  if (!fits) {
    const expected = kind.stagesPerRank === "several" ? "at least two" : `exactly ${kind.stagesPerRank}`;
    return `there are ${stagesPerRank} stages on each rank; expected ${expected}`;
  }
  return kind.fault?.(pipeline);
}

/** A named schedule for a pipeline.
 * @throws {RangeError} when there is no such name, or when the schedule cannot do with this pipeline. */
export function namedSchedule(name: string, pipeline: Pipeline): Schedule {
  const kind = scheduleKind(name), fault = scheduleFault(kind, pipeline);
  if (fault) throw new RangeError(`${kind.name} cannot run: ${fault}`);
  return makeSchedule(kind, pipeline);
}

/** The schedule that a function makes, rank by rank; it is for `verifySchedule` to say whether it can run. */
export function makeSchedule(
  { name, style, row }: Pick<ScheduleKind, "name" | "style" | "row">,
  pipeline: Pipeline,
): Schedule {
  const { ranks, stagesPerRank, microbatches } = pipeline;
  const rankOf = placeStages(ranks * stagesPerRank, { ranks, style });
  const rows = range(ranks).map((rank) => {
    const stages = rankOf.flatMap((owner, stage) => owner === rank ? [stage] : []);
    return row({ ...pipeline, rank, stages });
  });
  return { name, microbatches, rankOf, rows };
}

/** Joins each `I` that its own `W` follows at once into a `B`, which takes no longer and often less; the schedule itself where there is
 * none. */
export function joinHalves(schedule: Schedule): Schedule {
  let joined = false;
  const rows = schedule.rows.map((row) => {
    const cells: Cell[] = [];
    for (const cell of row) {
      const before = cells.at(-1);
      if (cell === null) continue;
      if (before && !isPair(before) && !isPair(cell) && before.kind === "I" && isHalf(cell, before)) {
        cells[cells.length - 1] = { ...before, kind: "B" };
        joined = true;
      } else cells.push(cell);
    }
    return cells;
  });
  return joined ? { ...schedule, rows } : schedule;
}

/** Is it the `W` of an `I`? */
function isHalf({ kind, stage, microbatch }: Action, input: Action): boolean {
  return kind === "W" && stage === input.stage && microbatch === input.microbatch;
}
