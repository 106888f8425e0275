/** A step in stages: which stages a rank has, what its program runs for them, and in which order.
 * @module */
import { opOf } from "../graph/builder.ts";
import { type Graph, inBackward, type State } from "../graph/ir.ts";
import { flopsOf } from "../graph/op.ts";
import { type Layout, LayoutError, localShape } from "../graph/layout.ts";
import { type Module, parameterStates } from "../model/module.ts";
import type { Mesh } from "../parallel/mesh.ts";
import type { Schedule } from "../parallel/pipeline/actions.ts";
import { type Boundary, type CutGraph, cutStages, separateSums, stageName } from "../parallel/pipeline/cut_stages.ts";
import { holdStates } from "../parallel/pipeline/hold_states.ts";
import {
  actionsByRank,
  forwardActions,
  hasHalves,
  isTransfer,
  type RankAction,
  type RankActions,
  rankActions,
  type Section,
  type TransferAction,
} from "../parallel/pipeline/rank_actions.ts";
import { exchangeRows, type Message, type MessageSchedule } from "../parallel/pipeline/messages.ts";
import { ranksInText, readSchedule } from "../parallel/pipeline/schedule_csv.ts";
import { namedSchedule, scheduleKind } from "../parallel/pipeline/schedules.ts";
import { moduleOf, stageCount, type Stages, stagesOf } from "../parallel/pipeline/stages.ts";
import { autoSchedule } from "../parallel/pipeline/auto_schedule.ts";
import type { StageTimes } from "../parallel/pipeline/timetable.ts";
import {
  exchangeGraph,
  passGraph,
  resultGraph,
  resultName,
  transferName,
} from "../parallel/pipeline/transfer_graphs.ts";
import { verifySchedule } from "../parallel/pipeline/verify_schedule.ts";

/** How a model is cut into stages, and in which order ranks work on them. */
export interface PipelineChoices {
  /** A schedule by its name, or `Auto`, a search for the one with the least idle time; default `1F1B`. */
  readonly schedule?: string;
  /** The text of a schedule as a CSV file, in place of a named one. */
  readonly csv?: string;
  /** Microbatches that go through the pipeline in one run of the schedule; a step runs it as often as its microbatches need. Default: all
   * of the step's. */
  readonly microbatches?: number;
  /** Blocks of a stage; default: one stage on each rank, or two where the schedule has several. */
  readonly layersPerStage?: number;
  /** Blocks that what comes before the first one counts for; default 1. */
  readonly firstLess?: number;
  /** Blocks that what comes behind the last one counts for; default 1. */
  readonly lastLess?: number;
  /** By stage, the paths of its modules, in place of an even cut. */
  readonly modules?: readonly (readonly string[])[];
}

/** A pipeline, and the place of a rank in it. */
export interface Pipeline {
  readonly stages: Stages;
  readonly schedule: Schedule;
  /** Runs of the schedule in a step. */
  readonly runs: number;
  /** The stages of the rank, upward. */
  readonly own: readonly number[];
  /** What its program does in one run of the schedule. */
  readonly train: RankActions;
  /** What it does for what goes through all stages forward and no further: a batch of an evaluation, tokens of a text. */
  readonly forward: RankActions;
  /** Is every backward two sections? */
  readonly halves: boolean;
  /** Slots that the program needs. */
  readonly slots: number;
}

/** The pipeline of a mesh with several ranks along `pp`; `undefined` where there is one.
 * @param accumulation microbatches of a step. @param times of its stages, which the schedule `Auto` goes by; default: all are alike.
 * @throws {LayoutError} when the model cannot be cut so, or the schedule does not fit. */
export function pipelineOf(
  model: Module,
  { mesh, rank, pipeline: choices = {} }: {
    readonly mesh: Mesh;
    readonly rank: number;
    readonly pipeline?: PipelineChoices;
  },
  accumulation: number,
  times?: readonly StageTimes[],
): Pipeline | undefined {
  const ranks = mesh.degrees.pp, stages = stagesFor(model, { mesh, pipeline: choices });
  if (!stages) return undefined;
  const microbatches = choices.microbatches ?? accumulation, runs = accumulation / microbatches;
  if (!Number.isInteger(runs)) {
    throw new LayoutError(
      `A step has ${accumulation} microbatches: expected a multiple of ${microbatches}, which go through the pipeline ` +
        `together; change accumulation, or pipeline.microbatches`,
    );
  }
  const { schedule, messages } = scheduleWith(choices, { ranks, stages: stages.count, microbatches, times });
  const at = mesh.placeOn("pp", rank), halves = hasHalves(schedule);
  const train = messages
    ? actionsByRank(exchangeRows(messages), schedule.rankOf, halves)[at]
    : rankActions(schedule, isAuto(choices) ? { times } : {})[at];
  const forward = forwardActions(schedule.rankOf, at, 1);
  return {
    stages,
    schedule,
    runs,
    own: schedule.rankOf.flatMap((owner, stage) => owner === at ? [stage] : []),
    train,
    forward,
    halves,
    slots: Math.max(train.slots, forward.slots),
  };
}

/** Is the schedule to be searched for? */
const isAuto = ({ schedule, csv }: PipelineChoices): boolean => csv === undefined && schedule?.toLowerCase() === "auto";

/** The stages of a model on a mesh with several ranks along `pp`; `undefined` where there is one.
 * @throws {LayoutError} when it cannot be cut so. */
export function stagesFor(
  model: Module,
  { mesh: { degrees: { pp: ranks } }, pipeline: choices = {} }: {
    readonly mesh: Pick<Mesh, "degrees">;
    readonly pipeline?: PipelineChoices;
  },
): Stages | undefined {
  if (ranks === 1) return undefined;
  const { schedule = "1F1B", csv, layersPerStage: perStage, firstLess = 1, lastLess = 1, modules } = choices;
  const parameters = parameterStates(model, "f32"), blocks = new Set(parameters.flatMap((s) => s.block ?? [])).size;
  const sizes = { firstLess, lastLess }, all = blocks + firstLess + lastLess;
  // A search has two stages on each rank where there are enough blocks, or as many as are asked for.
  const wanted = modules?.length ??
    (perStage === undefined ? Math.min(2, Math.floor(all / ranks)) * ranks : Math.ceil(all / perStage));
  const several = isAuto(choices)
    ? wanted > ranks
    : csv === undefined && fitting(() => scheduleKind(schedule)).stagesPerRank !== "one";
  const count = csv === undefined
    ? stageCount({ ranks, several, blocks, perStage, modules: modules?.length, ...sizes })
    : ranksInText(csv).length;
  return stagesOf(parameters, { count, modules, ...sizes });
}

/** How long the stages of a graph take for one microbatch, by their FLOPs: half of backward is for inputs. */
export function stageTimes(graph: Graph, count: number): StageTimes[] {
  const flops = Array.from({ length: count }, () => ({ forward: 0, backward: 0 }));
  for (const node of graph.nodes) {
    if (node.stage !== undefined) {
      flops[node.stage][inBackward(node) ? "backward" : "forward"] += flopsOf(opOf(node.op), node);
    }
  }
  // A time is never 0.
  return flops.map(({ forward, backward }) => {
    const half = Math.max(1, backward / 2);
    return { forward: Math.max(1, forward), input: half, weight: half };
  });
}

function scheduleWith(
  choices: PipelineChoices,
  { ranks, stages, microbatches, times }: {
    readonly ranks: number;
    readonly stages: number;
    readonly microbatches: number;
    readonly times?: readonly StageTimes[];
  },
): { readonly schedule: Schedule; readonly messages?: MessageSchedule } {
  const { schedule: name = "1F1B", csv } = choices, stagesPerRank = stages / ranks;
  const pipeline = { ranks, stagesPerRank, microbatches };
  return fitting(() => {
    // A search keeps no more than twice what 1F1B does.
    if (isAuto(choices)) {
      return { schedule: autoSchedule(pipeline, { times, slots: 2 * ranks * stagesPerRank }).timetable.schedule };
    }
    const read = csv === undefined
      ? { schedule: namedSchedule(name, pipeline) }
      : readSchedule(csv, { name, rankOf: ranksInText(csv), microbatches });
    if (read.schedule.rows.length !== ranks) {
      const { length } = read.schedule.rows;
      throw new RangeError(`"${name}" has ${length} lines; expected ${ranks}, one for each rank of pp`);
    }
    verifySchedule(read.schedule);
    return read;
  });
}

/** Runs what asks for a schedule; that there is none which fits is the configuration's fault.
 * @throws {LayoutError} in place of a RangeError. */
function fitting<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof RangeError) || error instanceof LayoutError) throw error;
    throw new LayoutError(
      `${error.message}; change parallelism.pipeline_parallel_schedule (or name a file in ` +
        `parallelism.pipeline_parallel_schedule_csv), training.local_batch_size or ` +
        `parallelism.pipeline_parallel_microbatch_size`,
      { cause: error },
    );
  }
}

/** The graphs of a rank of a pipeline. */
export interface StageGraphs {
  /** In place of those that the model decides: those of its stages, and what hands over between stages, and to the host. */
  readonly graphs: readonly Graph[];
  /** What the ranks at its place along `pp` keep of a graph about parameters and sums. */
  holdStates(graph: Graph): Graph;
  /** Places along `pp` of the ranks that have a state. */
  holders(state: State): readonly number[];
  /** By stage, the blocks and modules whose parameters it reads, in the order of the model. */
  readonly modules: readonly (readonly string[])[];
}

/** The graphs of a step, those that the model decides in stages. */
export type CutGraphs = readonly (Graph | CutGraph)[];

/** Cuts the graphs of a step.
 * @param graphs those that the model decides, with stages, and all others. @param count number of stages. */
export function cutGraphs(graphs: readonly Graph[], count: number): CutGraphs {
  return graphs.map((graph) => graph.nodes.some((n) => n.stage !== undefined) ? cutStages(graph, count) : graph);
}

/** What a rank has of graphs in stages.
 * @param options `layoutOf`: of a state, but for `pp`. */
export function stageGraphs(
  all: CutGraphs,
  { own, train, forward, schedule: { rankOf } }: Pipeline,
  { mesh, rank, parameters, layoutOf }: {
    readonly mesh: Mesh;
    readonly rank: number;
    /** Of the model, in its order. */
    readonly parameters: readonly State[];
    readonly layoutOf: (state: State) => Layout;
  },
): StageGraphs {
  const at = mesh.placeOn("pp", rank), places = new Map<string, Set<number>>();
  const modules = rankOf.map(() => new Set<string>());
  const local = (state: State): State => ({ ...state, shape: localShape(state.shape, layoutOf(state), mesh.factors) });
  const axes = mesh.factorsOf("pp"), peer = (stage: number) => mesh.group(rank, axes)[rankOf[stage]];
  const results = ({ name, results }: CutGraph): Graph[] => {
    const own = results.map((result) => ({ ...result, state: local(result.state) })), ranks = mesh.group(rank, axes);
    return own.length > 0 ? [resultGraph(name, own, { ranks, from: peer(rankOf.length - 1), rank, axes })] : [];
  };
  const parts: State[] = [],
    known = new Set(all.flatMap((g) => "up" in g ? g.graphs : [g]).flatMap((g) => g.states.map((s) => s.name)));
  const cut = all.flatMap((stages): Graph[] => {
    if (!("up" in stages)) return [stages];
    for (const [stage, { states }] of stages.graphs.entries()) {
      for (const state of states.filter((s) => s.kind === "parameter" || s.kind === "cache")) {
        places.set(state.name, (places.get(state.name) ?? new Set()).add(rankOf[stage]));
        if (state.kind === "parameter") modules[stage].add(moduleOf(state));
      }
    }
    const isTrained = stages.graphs.some((graph) => graph.nodes.some((n) => n.phase !== "forward"));
    const { actions } = isTrained ? train : forward;
    const staged = separateSums(own.map((stage) => stages.graphs[stage]));
    parts.push(
      ...staged.flatMap((g) => g.states).filter((s) => s.kind === "gradient" && !known.has(s.name)).map(local),
    );
    return [
      ...staged,
      ...transfers(actions, stages, { local, peer, axes }),
      ...results(stages),
    ];
  });
  const order = new Set(parameters.map(moduleOf)), last = rankOf.at(-1)!;
  const everywhere = Array.from({ length: mesh.degrees.pp }, (_, i) => i);
  const holders = ({ kind, name, of }: State): readonly number[] =>
    kind === "sum" ? [last] : everywhere.filter((place) => places.get(of ?? name)?.has(place));
  return {
    graphs: cut,
    holders,
    modules: modules.map((own) => [...order].filter((name) => own.has(name))),
    holdStates: (graph) => holdStates(graph, { holders, at, size: everywhere.length, axes, parts }),
  };
}

/** A graph for each kind of transfer that a rank's actions have, in an order that both sides share. */
function transfers(
  actions: readonly RankAction[],
  { up, down }: CutGraph,
  { local, peer, axes }: {
    readonly local: (state: State) => State;
    readonly peer: (stage: number) => number;
    readonly axes: readonly string[];
  },
): Graph[] {
  const kinds = new Map<string, { order: number; make: () => Graph | undefined }>();
  for (const action of actions) {
    if (!isTransfer(action)) continue;
    const { way, message: { what, from, to } } = action, whole = what === "activation" ? up[from] : down[from]!;
    const boundary: Boundary = { sent: whole.sent.map(local), received: whole.received.map(local) };
    kinds.set(`${way} ${what} ${from}`, {
      order: 2 * Math.min(from, to) + (what === "activation" ? 0 : 1),
      make: () =>
        whole.sent.length === 0
          ? undefined
          : way === "pass"
          ? passGraph(what, boundary)
          : exchangeGraph(way, what, { boundary, ranks: [peer(from), peer(to)], axes }),
    });
  }
  return [...kinds.values()].sort((a, b) => a.order - b.order).flatMap(({ make }) => make() ?? []);
}

/** The section of a program that an action runs. */
export function sectionName(graph: string, action: RankAction): string {
  if (!isTransfer(action)) return `${action.section} of ${stageName(graph, action.stage)}`;
  const { way, message } = action, stage = way === "send" ? message.from : message.to;
  return transferName(way, message, stageName(graph, stage));
}

/** What a section of a stage is, by its name in `microbatch`; `undefined` for sections of no stage. */
export function partOfSection(
  name: string,
):
  | { readonly section: Section; readonly stage: number }
  | { readonly way: TransferAction["way"]; readonly what: Message["what"]; readonly stage: number }
  | undefined {
  const [, section, way, what, stage] =
    /^(?:(forward|backward(?:_input|_weight)?)|(send|receive|pass) (activation|gradient)) of microbatch\.(\d+)$/.exec(
      name,
    ) ??
      [];
  if (stage === undefined) return undefined;
  if (section !== undefined) return { section: section as Section, stage: Number(stage) };
  return { way: way as TransferAction["way"], what: what as Message["what"], stage: Number(stage) };
}

/** One run of a section, by its name. */
export interface SectionRun {
  readonly section: string;
  /** Of the step. */
  readonly microbatch: number;
  readonly slot?: number;
  readonly source?: number;
  readonly first: boolean;
  readonly last: boolean;
}

/** What a step does before its update. */
export function microbatchActions(pipeline: Pipeline | undefined, accumulation: number): SectionRun[] {
  if (!pipeline) {
    return Array.from({ length: accumulation }, (_, microbatch) => ({
      ...{ section: "microbatch", microbatch, first: microbatch === 0, last: microbatch === accumulation - 1 },
    }));
  }
  const { train, runs } = pipeline, each = accumulation / runs;
  return Array.from({ length: runs }, (_, run) =>
    runsOf("microbatch", train).map((action) => ({
      ...action,
      microbatch: run * each + action.microbatch,
      first: action.first && run === 0,
      last: action.last && run === runs - 1,
    }))).flat();
}

/** How often a step runs each section, by name. */
export function sectionRuns(pipeline: Pipeline | undefined, accumulation: number): Map<string, number> {
  const runs = new Map([["update", 1]]);
  for (const { section } of microbatchActions(pipeline, accumulation)) runs.set(section, (runs.get(section) ?? 0) + 1);
  return runs;
}

/** What is done with a batch of an evaluation. */
export function evaluationActions(pipeline: Pipeline | undefined): SectionRun[] {
  if (pipeline) return runsOf("evaluate", pipeline.forward);
  return [{ section: "evaluate", microbatch: 0, first: true, last: false }];
}

/** What is done to read tokens with a graph of generation: they go through all stages, and then all ranks have what is said of them. */
export function generationActions(pipeline: Pipeline | undefined, graph: string): SectionRun[] {
  const alone = { microbatch: 0, first: false, last: false };
  if (!pipeline) return [{ section: graph, ...alone }];
  const { forward, own, stages: { count } } = pipeline, slot = Math.max(0, own.indexOf(count - 1));
  return [...runsOf(graph, forward), { section: resultName(graph), slot, ...alone }];
}

function runsOf(graph: string, { actions }: RankActions): SectionRun[] {
  return actions.map((action) => {
    const section = sectionName(graph, action), { slot } = action;
    if (!isTransfer(action)) {
      return { section, microbatch: action.microbatch, slot, first: action.first, last: action.last };
    }
    return { section, microbatch: action.message.microbatch, slot, source: action.source, first: false, last: false };
  });
}
