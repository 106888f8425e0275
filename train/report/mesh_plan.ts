/** What a step on a mesh of ranks would take, without running it: the graphs of a rank are compiled up to their memory, and the facts
 * are gathered as plain data. `mesh_plan_text.ts` and `mesh_plan_page.ts` show them.
 * @module */
import { gradientOf, sizeBytes, type State } from "../../graph/ir.ts";
import { type Degrees, localShape, paddedAxes } from "../../graph/layout.ts";
import { encode } from "../../graph/passes/encode.ts";
import { recomputedFlops } from "../../graph/passes/remat.ts";
import { fullPrecision } from "../../graph/passes/precision.ts";
import { scopeText, withoutNumbers } from "../../graph/print.ts";
import type { FamilyModel } from "../../model/family.ts";
import { numParameters } from "../../model/module.ts";
import { type Exchange, exchangesOf } from "../../parallel/exchanges.ts";
import { layoutTextOn, type Mesh } from "../../parallel/mesh.ts";
import { stageName } from "../../parallel/pipeline/cut_stages.ts";
import type { Section } from "../../parallel/pipeline/rank_actions.ts";
import { simulate, type StageTimes, type Timetable } from "../../parallel/pipeline/timetable.ts";
import type { BoundPlan } from "../../parallel/plan.ts";
import { type CheckpointPlan, planCheckpoints } from "../checkpoint/plan.ts";
import { type DeviceFit, deviceFit, graphFlops, type MemoryUse, memoryUse } from "./plan_report.ts";
import { type DeviceSpeeds, type StepTime, stepTime, type TimedSection } from "./step_time.ts";
import { precisionText } from "../precision.ts";
import type { Pipeline } from "../pipeline.ts";
import { dataRankOf, type MeshLayout } from "../ranks.ts";
import { sectionRuns } from "../pipeline.ts";
import { planPlaces, type StepOptions, type StepPlan } from "../step_plan.ts";
import type { StoredType } from "../typed_array.ts";

/** A parameter on the mesh. Layouts are text as `layoutText` writes it. */
export interface ParameterPlan {
  readonly name: string;
  readonly shape: readonly number[];
  /** Shape of what each rank stores, padding included. */
  readonly localShape: readonly number[];
  /** Between steps; moments lie alike. */
  readonly stored: string;
  /** Where a product takes it. */
  readonly used: string;
  /** Its gradient sum. */
  readonly gradient: string;
  /** Is it cut with padding? */
  readonly padded: boolean;
  /** Bytes that each rank stores of it. */
  readonly bytes: number;
}

/** Collectives alike in one place of a step. */
export interface CollectivePlan extends Exchange {
  /** Name of the graph: `microbatch`, or `update`. */
  readonly section: string;
}

/** One graph of a step on a rank. */
export interface SectionPlan {
  readonly name: string;
  /** How often a step runs it. */
  readonly runs: number;
  /** Of one run, recomputation included. */
  readonly flops: number;
  /** Of those, what backward makes again. */
  readonly recomputedFlops: number;
}

/** A step on a mesh, as plain data. Bytes and FLOPs are those of one rank; `collectives` are those of a whole step, all its microbatches
 * included, where `count` is how many, `tensors` and `bytes` what the rank sends in all of them. */
export interface MeshPlan {
  readonly mesh: Degrees;
  readonly ranks: number;
  /** The rank that was planned. */
  readonly rank: number;
  readonly model: {
    readonly name: string;
    readonly parameters: number;
    readonly layers: number;
    readonly dim: number;
  };
  readonly step: {
    readonly seqLen: number;
    /** Sequences of a data-parallel rank in a microbatch. */
    readonly localBatchSize: number;
    readonly globalBatchSize: number;
    readonly microbatches: number;
    readonly tokens: number;
  };
  /** Element types, in words. */
  readonly precision: string;
  readonly parameters: readonly ParameterPlan[];
  readonly collectives: readonly CollectivePlan[];
  readonly memory: MemoryUse;
  /** The device that the memory was compared with; null: none. */
  readonly device: DeviceFit | null;
  /** How long it takes on a device whose speeds are given; null: none are. */
  readonly time: StepTime | null;
  /** The section that needs most memory: its peak is that of `memory`. */
  readonly largestIn: string;
  /** Its largest values. */
  readonly largest: readonly { readonly label: string; readonly bytes: number; readonly kept: boolean }[];
  readonly sections: readonly SectionPlan[];
  /** What the checkpoints of all ranks take. */
  readonly checkpoint: CheckpointPlan;
  /** Stages and their timetable; null where the model is in one piece. */
  readonly pipeline: PipelinePlan | null;
  /** FLOPs of a step. */
  readonly flops: number;
}

/** A pipeline as plain data. */
export interface PipelinePlan {
  /** Name of the schedule. */
  readonly schedule: string;
  /** How often a step runs it. */
  readonly runs: number;
  /** Of one run. */
  readonly microbatches: number;
  readonly stages: readonly { readonly place: number; readonly modules: readonly string[] }[];
  /** By place along `pp`: what a rank there takes, and its FLOPs in a step. */
  readonly places: readonly {
    readonly slots: number;
    readonly slotBytes: number;
    readonly arenaBytes: number;
    readonly flops: number;
  }[];
  /** When each action happens, in FLOPs of a rank. */
  readonly timetable: Timetable;
}

/** What is planned. */
export interface MeshPlanOptions extends Omit<StepOptions, "model" | "ranks"> {
  readonly model: FamilyModel;
  /** The model's name, for people. */
  readonly name: string;
  readonly ranks: Omit<MeshLayout, "rank">;
  /** Bytes of a device, to compare with. */
  readonly deviceMemory?: number;
  /** Speeds of a device, to say how long a step takes. */
  readonly speeds?: DeviceSpeeds;
  /** Element type of parameters that a checkpoint saves alone; default: that of the run. */
  readonly exportDtype?: StoredType;
  /** Bytes a second that all ranks together write into a checkpoint. */
  readonly diskSpeed?: number;
}

/** Plans a step on a mesh, for a rank of the stages that take most memory; the others of its place along `pp` hold the same sizes. Needs no native library and no processes.
 * @throws {RangeError} when the model cannot be cut as the mesh asks.
 * @throws {MemoryBudgetError} when the memory budget cannot be kept. */
export function planMesh(options: MeshPlanOptions): MeshPlan {
  const { model, name, precision, batch, seqLen, accumulation, dtype } = options, { mesh } = options.ranks;
  const places = planPlaces({ ...options, ranks: { ...options.ranks, rank: 0 } });
  const planned = places.reduce((a, b) => b.plan.arenaBytes > a.plan.arenaBytes ? b : a);
  const { spread: { rank }, pipeline } = planned, layouts = planned.layouts!, { dataRanks } = dataRankOf(mesh, rank);
  const { use, largest } = memoryUse(planned.plan), sections = sectionPlans(planned, accumulation);
  const collectives = planned.graphs.flatMap((graph, i) =>
    exchangesOf(graph, { placeOf: (node) => withoutNumbers(scopeText(node)), runs: sections[i].runs })
      .map((exchange): CollectivePlan => ({ ...exchange, axes: mesh.named(exchange.axes), section: graph.name }))
  );
  const stored = new Map(
    places.flatMap(({ plan }) => [...plan.states.values()].map(({ state }) => [state.name, state])),
  );
  const parameters = [...layouts.states.values()].filter((s) => s.kind === "parameter");
  const { numLayers, dim } = model.family.sizes, globalBatchSize = batch * dataRanks * accumulation;
  const onPlaces = pipeline ? pipelinePlan(places, { pipeline, modules: planned.modules! }, accumulation) : null;
  const tokens = globalBatchSize * seqLen, { speeds } = options;
  return {
    mesh: mesh.degrees,
    ranks: mesh.size,
    rank,
    model: { name, parameters: numParameters(model), layers: numLayers, dim },
    step: {
      seqLen,
      localBatchSize: batch,
      globalBatchSize,
      microbatches: accumulation,
      tokens,
    },
    precision: precisionText(precision ?? fullPrecision, dtype),
    parameters: parameters.map((s) => parameterPlan(s, stored.get(s.name)!, layouts, mesh)),
    collectives: collectives.filter(({ count }) => count > 0).toSorted((a, b) => b.bytes - a.bytes),
    memory: use,
    device: deviceFit(use.arena, options.deviceMemory, options.target?.memoryBeside?.(planned.graphs)),
    time: speeds
      ? stepTime({
        speeds,
        sections: timedSections(planned, sections),
        collectives,
        tokens,
        stretch: stretchOf(onPlaces),
      })
      : null,
    largestIn: largest.graph.name,
    largest: largest.allocations.toSorted((a, b) => b.bytes - a.bytes).slice(0, 10)
      .map(({ label, bytes, use }) => ({ label, bytes, kept: use === "kept" })),
    sections,
    checkpoint: planCheckpoints({
      states: [...layouts.states.values()].map((s) => ({ ...s, dtype: stored.get(s.name)?.dtype ?? s.dtype })),
      layoutOf: (s: State) => planned.spread.layoutOf(s),
      mesh,
      exportDtype: options.exportDtype,
      diskSpeed: options.diskSpeed,
    }),
    pipeline: onPlaces,
    flops: stepFlops(sections),
  };
}

const stepFlops = (sections: readonly SectionPlan[]): number => sections.reduce((n, s) => n + s.flops * s.runs, 0);

/** The kernels of a step. */
function timedSections({ plan }: StepPlan, sections: readonly SectionPlan[]): TimedSection[] {
  const { sections: encoded } = encode(plan);
  return sections.map(({ runs }, i) => ({ runs, instructions: encoded[i].instructions }));
}

/** How much longer the timetable is than its busiest rank works. */
function stretchOf(pipeline: PipelinePlan | null): number {
  if (!pipeline) return 1;
  const { makespan, idle } = pipeline.timetable;
  return makespan / (makespan - Math.min(...idle));
}

function sectionPlans({ graphs, pipeline }: StepPlan, accumulation: number): SectionPlan[] {
  const runs = sectionRuns(pipeline, accumulation);
  return graphs.map((graph) => ({
    name: graph.name,
    runs: runs.get(graph.name) ?? 0,
    flops: graphFlops(graph),
    recomputedFlops: recomputedFlops(graph).recomputed,
  }));
}

function pipelinePlan(
  all: readonly StepPlan[],
  { pipeline, modules }: { readonly pipeline: Pipeline; readonly modules: readonly (readonly string[])[] },
  accumulation: number,
): PipelinePlan {
  const { schedule, runs } = pipeline, { rankOf, microbatches } = schedule;
  const flops = new Map(all.flatMap(({ graphs }) => graphs.map((g) => [g.name, graphFlops(g)] as const)));
  const times = rankOf.map((_, stage): StageTimes => {
    // A time is never 0.
    const of = (section: Section) => Math.max(1, flops.get(`${section} of ${stageName("microbatch", stage)}`) ?? 0);
    if (pipeline.halves) return { forward: of("forward"), input: of("backward_input"), weight: of("backward_weight") };
    const backward = of("backward");
    return { forward: of("forward"), input: backward / 2, weight: backward / 2, backward };
  });
  return {
    schedule: schedule.name,
    runs,
    microbatches,
    stages: rankOf.map((place, stage) => ({ place, modules: modules[stage] })),
    places: all.map((step) => ({
      slots: step.plan.slots.count,
      slotBytes: step.plan.slots.bytes,
      arenaBytes: step.plan.arenaBytes,
      flops: stepFlops(sectionPlans(step, accumulation)),
    })),
    timetable: simulate(schedule, { times }),
  };
}

function parameterPlan(whole: State, local: State, layouts: BoundPlan, mesh: Mesh): ParameterPlan {
  const { name, shape } = whole, layout = layouts.state(whole);
  return {
    name,
    shape,
    localShape: localShape(shape, layout, mesh.factors, name),
    stored: layoutTextOn(mesh, layout),
    used: layoutTextOn(mesh, layouts.used(whole)),
    gradient: layoutTextOn(mesh, layouts.state(gradientOf(whole))),
    padded: shape.some((_, d) => paddedAxes(layout, d).length > 0),
    bytes: sizeBytes(local),
  };
}

/** Parameters that lie alike in every layer. */
export interface ParameterGroup extends ParameterPlan {
  readonly names: readonly string[];
}

/** Parameters by layout: those of all layers that differ in the layer's number alone are one group, named with `*`. `bytes` are of
 * all of them. */
export function parameterGroups(parameters: readonly ParameterPlan[]): ParameterGroup[] {
  const groups = new Map<string, ParameterGroup>();
  for (const p of parameters) {
    const { shape, stored, used, gradient } = p, place = withoutNumbers(p.name);
    const key = JSON.stringify([place, shape, stored, used, gradient]), known = groups.get(key);
    if (!known) groups.set(key, { ...p, names: [p.name] });
    else {
      groups.set(key, { ...known, name: place, names: [...known.names, p.name], bytes: known.bytes + p.bytes });
    }
  }
  return [...groups.values()];
}

/** Collectives of a step by kind and group of ranks, over all places, most bytes first. */
export function collectiveTotals(collectives: readonly CollectivePlan[]): Omit<CollectivePlan, "where" | "section">[] {
  const totals = new Map<string, Omit<CollectivePlan, "where" | "section">>();
  for (const { op, axes, size, dtype, count, tensors, bytes } of collectives) {
    const key = `${op} ${axes} ${dtype}`, known = totals.get(key) ?? { count: 0, tensors: 0, bytes: 0 };
    const sum = { count: known.count + count, tensors: known.tensors + tensors, bytes: known.bytes + bytes };
    totals.set(key, { op, axes, size, dtype, ...sum });
  }
  return [...totals.values()].toSorted((a, b) => b.bytes - a.bytes);
}
