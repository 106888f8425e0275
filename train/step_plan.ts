/** What a step is made of, before there is a program: its graphs traced, cut into stages and shared out among ranks, compiled, and the
 * memory that they take.
 * @module */
import { prefetchBytes } from "../data/prefetch.ts";
import { type Graph, inBackward, type State, type StateKind } from "../graph/ir.ts";
import { type Layout, type Placement, replicated } from "../graph/layout.ts";
import type { MemoryPlan } from "../graph/passes/memory.ts";
import type { Precision } from "../graph/passes/precision.ts";
import type { RematPolicy } from "../graph/passes/remat.ts";
import { MemoryBudgetError, type RematBudget } from "../graph/passes/remat_search.ts";
import type { Target } from "../graph/target/target.ts";
import { type GenerativeModel, isGenerative } from "../model/cache.ts";
import type { TrainableModel } from "../model/loss.ts";
import { Mesh } from "../parallel/mesh.ts";
import type { Stages } from "../parallel/pipeline/stages.ts";
import type { StageTimes } from "../parallel/pipeline/timetable.ts";
import type { BoundPlan } from "../parallel/plan.ts";
import { lastingKinds } from "./checkpoint/manifest.ts";
import { pieceBytes, shareOf } from "./checkpoint/pieces.ts";
import { type CheckpointOptions, policyOf } from "./checkpoint/policy.ts";
import { stagingBytesOf } from "./checkpoint/staging.ts";
import { type Compiled, compileGraphs, type CompileOptions, planGraphs, type Planned } from "./compile.ts";
import { generationGraphs } from "./generate/graphs.ts";
import { type OptimizerOptions, traceInitialize, traceUpdate } from "./optimizer.ts";
import {
  type CutGraphs,
  cutGraphs,
  type Pipeline,
  pipelineOf,
  sectionRuns,
  stageGraphs,
  stagesFor,
  stageTimes,
} from "./pipeline.ts";
import { bindRanks, dataRankOf, type MeshLayout } from "./ranks.ts";
import { type RealType, traceEvaluate, traceEvaluateResult, traceMicrobatch } from "./step.ts";

/** What decides the program of a step. */
export interface StepOptions {
  readonly model: TrainableModel;
  readonly optimizer: OptimizerOptions;
  readonly dtype: RealType;
  /** What is multiplied and stored in bf16; default: nothing. */
  readonly precision?: Precision;
  /** Sequences of a microbatch, on each data rank. */
  readonly batch: number;
  /** Tokens of a sequence, over all its ranks. */
  readonly seqLen: number;
  /** Microbatches of a step. */
  readonly accumulation: number;
  /** Does attention stay inside of a document? Default: it sees the whole row. */
  readonly documents?: boolean;
  /** Sizes of an evaluation's batches, on each data rank; without them there is no evaluation. */
  readonly evaluate?: { readonly batch: number; readonly seqLen: number };
  /** How many batches loaders hold ready beside the one in use. */
  readonly dataloader?: { readonly ahead?: number };
  /** What backward makes again; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
  /** The device that is compiled for; default: `cpu`. */
  readonly target?: Target;
  /** Threads that the program runs on. */
  readonly threads: number;
  /** The ranks that share the step; default: one has everything. */
  readonly ranks?: MeshLayout;
  /** What it generates between steps; default: nothing. The model is then a {@linkcode GenerativeModel}. */
  readonly generate?: DecoderSizes;
  /** Is the run saved, and how? Default: it is not. */
  readonly checkpoint?: CheckpointOptions;
}

/** What a decoder has room for. */
export interface DecoderSizes {
  /** Sequences side by side. */
  readonly sequences: number;
  /** Tokens of a sequence that there is room for. */
  readonly maxLength: number;
}

/** The graphs of a step as they are traced: over whole values, before any pass. */
export function stepGraphs(
  options: Omit<StepOptions, "precision" | "remat" | "threads"> & {
    readonly precision?: Partial<Precision>;
    readonly stages?: Stages;
  },
): Graph[] {
  const { model, optimizer, dtype, seqLen, accumulation, documents, ranks, generate, precision, stages } = options;
  const { dataRanks } = ranks ? dataRankOf(ranks.mesh, ranks.rank) : { dataRanks: 1 };
  const whole = <T extends { readonly batch: number }>(sizes: T): T => ({ ...sizes, batch: sizes.batch * dataRanks });
  const { batch } = whole(options), evaluate = options.evaluate && whole(options.evaluate);
  const globalTokens = batch * seqLen * accumulation;
  return [
    traceInitialize(model, dtype),
    traceMicrobatch(model, { batch, seqLen, dtype, documents, globalTokens, stages }),
    traceUpdate(model, { ...optimizer, dtype, globalTokens }),
    ...(evaluate ? [traceEvaluate(model, { ...evaluate, dtype, documents, stages }), traceEvaluateResult(dtype)] : []),
    ...(generate
      ? generationGraphs(generative(model), {
        ...{ ...generate, dtype, stages },
        cache: precision?.param === "bf16" ? "bf16" : dtype,
      })
      : []),
  ];
}

/** @throws {TypeError} when the model cannot generate. */
function generative(model: TrainableModel): TrainableModel & GenerativeModel {
  if (isGenerative(model)) return model;
  throw new TypeError(
    `Cannot generate with ${model.constructor.name}: it has no method next\n  expected: a model with ` +
      `next(tokens) and vocabSize\n  fix: write them, or generate nothing`,
  );
}

/** Compiles the graphs of a step; needs no native library. Sections are named by their graphs.
 * @throws {LayoutError} when the model cannot be cut as the mesh asks.
 * @throws {MemoryBudgetError} when the memory budget cannot be kept. */
export function compileStep(options: StepOptions): CompiledStep {
  const { graphs, passes, ...others } = bound(options);
  const compiled = withinBudget(options, () => compileGraphs(graphs, passes));
  return { ...compiled, ...hostMemory(compiled.plan, others, options), ...others };
}

/** All of {@linkcode compileStep} but the program: enough to know what a step takes. */
export function planStep(options: StepOptions): StepPlan {
  return planTraced(options, traced(options));
}

/** A plan for each place along `pp`: that of the first rank there, as all others there take as much. */
export function planPlaces(options: StepOptions & { readonly ranks: MeshLayout }): StepPlan[] {
  const { ranks } = options, shared = { ...traced(options), partitioned: new Map<Graph, Graph>() };
  return ranks.mesh.group(0, ranks.mesh.factorsOf("pp"))
    .map((rank) => planTraced({ ...options, ranks: { ...ranks, rank } }, shared));
}

function planTraced(options: StepOptions, shared: Traced): StepPlan {
  const { graphs, passes, ...others } = bound(options, shared);
  const planned = withinBudget(options, () => planGraphs(graphs, { ...passes, partitioned: shared.partitioned }));
  return { ...planned, ...hostMemory(planned.plan, others, options), ...others };
}

/** A budget is one for all ranks: where a place along `pp` cannot keep it, what is told is the least that all places can keep.
 * @throws {MemoryBudgetError} when it cannot be kept. */
function withinBudget<T>(options: StepOptions, plan: () => T): T {
  try {
    return plan();
  } catch (error) {
    const { ranks } = options;
    if (!(error instanceof MemoryBudgetError) || !ranks || ranks.mesh.degrees.pp === 1) throw error;
    const places = planPlaces({ ...options, ranks, remat: { mode: "memory_budget", fraction: 0 } });
    const least = places.map(({ search, plan }) => search?.range().least ?? plan.arenaBytes);
    throw new MemoryBudgetError(error.budgetBytes, Math.max(...least));
  }
}

/** What all ranks share. */
interface Traced {
  readonly graphs: readonly Graph[];
  readonly stages: Stages | undefined;
  readonly cut: CutGraphs;
  /** How long stages take, by their FLOPs. */
  readonly times: readonly StageTimes[] | undefined;
  /** What has become of graphs where ranks do not differ yet. */
  readonly partitioned?: Map<Graph, Graph>;
}

function traced(options: StepOptions): Traced {
  const { model, ranks } = options,
    stages = ranks && stagesFor(model, ranks),
    graphs = stepGraphs({ ...options, stages });
  if (!stages) return { graphs, stages, cut: graphs, times: undefined };
  const microbatch = graphs.find((graph) => graph.nodes.some(inBackward))!;
  return { graphs, stages, cut: cutGraphs(graphs, stages.count), times: stageTimes(microbatch, stages.count) };
}

/** The graphs of a step, and how passes turn them into a program. */
function bound(options: StepOptions, shared = traced(options)): {
  graphs: readonly Graph[];
  passes: CompileOptions;
  spread: StateLayouts;
  layouts: BoundPlan | undefined;
  pipeline: Pipeline | undefined;
  modules?: StepPlan["modules"];
} {
  const { model, precision, remat, target, threads, accumulation } = options;
  const pipeline = options.ranks && pipelineOf(model, options.ranks, accumulation, shared.times);
  const ranks = options.ranks && bindRanks(model, shared.graphs, options.ranks, accumulation);
  const states = new Map(shared.graphs.flatMap((g) => g.states).map((s) => [s.name, s]));
  const { mesh, rank } = options.ranks ?? { mesh: new Mesh({}, 1), rank: 0 };
  const inStage = (state: State) => ranks?.layouts.state(state) ?? replicated;
  const passes = { precision, remat, target, threads, ranks }, layouts = ranks?.layouts;
  if (!pipeline) {
    return { graphs: shared.graphs, passes, spread: { mesh, rank, states, layoutOf: inStage }, layouts, pipeline };
  }
  const parameters = [...states.values()].filter((s) => s.kind === "parameter");
  const { graphs, holders, holdStates, modules } = stageGraphs(shared.cut, pipeline, {
    ...{ mesh, rank, parameters, layoutOf: inStage },
  });
  const held = (state: State): Layout => {
    const places = holders(state);
    const on = mesh.factorsOf("pp").map((factor): [string, Placement] => [factor, { kind: "held", places }]);
    return new Map([...inStage(state), ...on]);
  };
  const { slots, halves } = pipeline;
  return {
    graphs,
    passes: { ...passes, ranks: { ...ranks!, holdStates }, slots, halves },
    spread: { mesh, rank, states, layoutOf: held },
    layouts,
    pipeline,
    modules,
  };
}

/** A step that is ready to be loaded. */
export type CompiledStep = Compiled & StepPlan;

/** A step that is planned. */
export type StepPlan = Planned & HostMemory & {
  readonly spread: StateLayouts;
  /** The layouts of all, where ranks share the step. */
  readonly layouts?: BoundPlan;
  /** Where the model is cut into stages. */
  readonly pipeline?: Pipeline;
  /** By stage, the blocks and modules whose parameters it reads. */
  readonly modules?: readonly (readonly string[])[];
};

/** How the states of a step are spread over ranks. */
export interface StateLayouts {
  readonly mesh: Mesh;
  readonly rank: number;
  /** Whole states, by name. */
  readonly states: ReadonlyMap<string, State>;
  /** What each rank stores of one. */
  layoutOf(state: State): Layout;
}

/** Bytes that the host holds of a step's batches and results. */
export interface HostMemory {
  readonly host: {
    /** Packed inputs of a run: all microbatches of a step, or a batch of an evaluation. */
    readonly inputBytes: number;
    /** Packed results of a run. */
    readonly outputBytes: number;
    /** Batches that loaders hold ready. */
    readonly prefetchBytes: number;
    /** What this rank writes of a whole checkpoint; 0 where nothing is saved. */
    readonly shareBytes: number;
    /** What it copies of that ahead of the disk. */
    readonly stagingBytes: number;
  };
}

function hostMemory(
  plan: MemoryPlan,
  { spread, pipeline }: Pick<StepPlan, "spread" | "pipeline">,
  options: StepOptions,
): HostMemory {
  const { batch, seqLen, accumulation, evaluate, dataloader } = options, { sections } = plan;
  // All sections that work on microbatches have the same inputs.
  const steps = sectionRuns(pipeline, accumulation);
  const update = sections.find((s) => s.graph.name === "update")!,
    microbatch = sections.find(({ graph, inputs }) =>
      steps.has(graph.name) && graph.name !== "update" && inputs.length > 0
    )!;
  const step = {
    inputBytes: accumulation * microbatch.inputBytes + update.inputBytes,
    outputBytes: microbatch.outputBytes + update.outputBytes,
  };
  // All but steps run one section at a time.
  const most = (bytes: "inputBytes" | "outputBytes") => Math.max(step[bytes], ...sections.map((s) => s[bytes]));
  return {
    host: {
      inputBytes: most("inputBytes"),
      outputBytes: most("outputBytes"),
      prefetchBytes: prefetchBytes(batch, seqLen, dataloader?.ahead) +
        (evaluate ? prefetchBytes(evaluate.batch, evaluate.seqLen) : 0),
      ...checkpointMemory(plan, spread, options.checkpoint),
    },
  };
}

function checkpointMemory(
  plan: MemoryPlan,
  spread: StateLayouts,
  options: CheckpointOptions | undefined,
): Pick<HostMemory["host"], "shareBytes" | "stagingBytes"> {
  if (!options || options.loadOnly) return { shareBytes: 0, stagingBytes: 0 };
  const states = lastingStates(plan, spread, lastingKinds);
  const share = shareOf(spread.rank, states, (state) => spread.layoutOf(state), spread.mesh);
  const shareBytes = share.reduce((sum, piece) => sum + pieceBytes(piece), 0);
  return { shareBytes, stagingBytes: stagingBytesOf(shareBytes, policyOf(options)) };
}

/** Whole states of some kinds, in the element types in which they are stored: bf16 since a pass, perhaps. */
export function lastingStates(plan: MemoryPlan, { states }: StateLayouts, kinds: readonly StateKind[]): State[] {
  // Those of other stages are stored as those of the same kind here.
  const dtypes = new Map([...plan.states.values()].map(({ state: { kind, dtype } }) => [kind, dtype]));
  return [...states.values()].filter((s) => kinds.includes(s.kind))
    .map((s) => ({ ...s, dtype: plan.states.get(s.name)?.state.dtype ?? dtypes.get(s.kind)! }));
}
