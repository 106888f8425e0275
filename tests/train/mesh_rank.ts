/** What one rank does in the matrix of meshes: `mpirun -n N deno run -A mesh_rank.ts CASES FILE`, where CASES is JSON. For each case, all ranks
 * train some steps on a mesh, twice; then the first rank trains the same alone and compares. It writes what it found into FILE. Where TITAN_DEVICE says
 * `cuda`, ranks train on a GPU each, and the first one, alone, on the CPU.
 * @module */
import { Comm } from "../../ffi/comm.ts";
import { Device } from "../../ffi/device.ts";
import { arr, forEachIndex, stridesOf } from "../../graph/array.ts";
import { numel, type State } from "../../graph/ir.ts";
import { boxOf, isHeld, type Layout, localShape, placementOn } from "../../graph/layout.ts";
import { fullPrecision, type Precision } from "../../graph/passes/precision.ts";
import { targetOf } from "../../graph/target/cuda.ts";
import { worldOf } from "../../launch/world.ts";
import type { RematPolicy } from "../../graph/passes/remat.ts";
import type { RematBudget } from "../../graph/passes/remat_search.ts";
import { makeBatch } from "../../data/batch.ts";
import type { LlamaOptions } from "../../model/llama.ts";
import { exchangesOf } from "../../parallel/exchanges.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { Mesh, type MeshOptions } from "../../parallel/mesh.ts";
import { BatchPart } from "../../train/batch_part.ts";
import { type Float8Options, float8ProductsOf } from "../../train/float8.ts";
import { dataRankOf, type MeshChoices, type MeshLayout } from "../../train/ranks.ts";
import { sectionRuns } from "../../train/pipeline.ts";
import type { UpdateRule } from "../../train/optimizer.ts";
import { type CompiledStep, compileStep, type StepOptions } from "../../train/step_plan.ts";
import { StepProgram } from "../../train/step_program.ts";
import type { TypedArray } from "../../train/typed_array.ts";
import { arenaOf, mappingsOf } from "../../tools/process_memory.ts";
import { SmallExperts } from "../model/experts.ts";
import { KIND } from "../native/native.ts";
import { someRows, tinyLlama } from "../model/tiny.ts";

/** A run on a mesh. */
export interface MeshCase {
  readonly mesh: MeshOptions;
  readonly choices?: MeshChoices;
  readonly model?: LlamaOptions;
  /** Is it a mixture of experts that is trained, instead of a Llama? */
  readonly experts?: boolean;
  readonly dtype?: "f32" | "f64";
  readonly precision?: Partial<Precision>;
  /** Linear layers in float8, but for the output layer. */
  readonly float8?: Float8Options;
  readonly accumulation?: number;
  /** Rows of a microbatch of all ranks, 24 unless given, and steps, 10. */
  readonly globalBatch?: number;
  readonly steps?: number;
  readonly remat?: RematPolicy | RematBudget;
  readonly documents?: boolean;
  /** Do parameters move by a rule that asks for sums over all of a parameter, instead of by AdamW? */
  readonly rule?: boolean;
}

/** How a run on a mesh compares to one process. */
export interface MeshResult {
  /** Are all initial parameters, bit for bit, those of one process? */
  readonly sameStart: boolean;
  /** Largest difference of first gradients, over the largest gradient. */
  readonly gradient: number;
  /** Largest difference of losses of all steps. */
  readonly loss: number;
  /** Of those of the first three. */
  readonly firstLosses: number;
  /** Are two runs bit for bit the same, and the same on all ranks? */
  readonly repeats: boolean;
  /** Loss of the last step. */
  readonly last: number;
  /** Bytes of the first rank's arena: as planned, and as the system has it after the last step. */
  readonly arena: { readonly planned: number; readonly mapped: number; readonly resident: number };
  /** Collectives of the second step and bytes that the first rank sent in them, by kind: as planned, and as the runtime counted. */
  readonly traffic: {
    readonly planned: Readonly<Record<string, Sent>>;
    readonly counted: Readonly<Record<string, Sent>>;
  };
}

interface Sent {
  readonly collectives: number;
  readonly bytes: number;
}

const SEQ_LEN = 16;
const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** Momentum, which moves a parameter as far as its own length says. */
const byLength: UpdateRule = ({ parameter, gradient, moments: [momentum, unused], lr }) => {
  const moved = momentum.mul(0.9).add(gradient), length = (x: Tensor) => x.square().sum().add(1e-8).sqrt();
  const rate = length(parameter).div(length(moved)).mul(lr);
  return { parameter: parameter.sub(moved.mul(rate)), moments: [moved, unused] };
};

const optionsOf = (run: MeshCase, ranks?: MeshLayout): StepOptions => {
  const { dataRanks } = ranks ? dataRankOf(ranks.mesh, ranks.rank) : { dataRanks: 1 };
  const { accumulation = 1, globalBatch = 24, dtype = "f64", remat, documents } = run;
  const model = run.experts ? new SmallExperts() : tinyLlama({ vocabSize: 64, ...run.model });
  const float8 = run.float8 && float8ProductsOf(model, { filter: ["output"], ...run.float8 });
  return {
    model,
    optimizer: run.rule ? { ...optimizer, rule: byLength } : optimizer,
    dtype,
    precision: run.precision || float8 ? { ...fullPrecision, ...run.precision, float8 } : undefined,
    batch: globalBatch / dataRanks,
    seqLen: SEQ_LEN,
    accumulation,
    remat,
    documents,
    threads: 1,
    ranks,
    target: ranks ? targetOf({ kind: KIND }) : undefined,
  };
};

/** Losses, first values of all parameters, and gradients of the first step. */
interface Run {
  readonly losses: readonly number[];
  readonly start: ReadonlyMap<string, TypedArray>;
  readonly gradients: ReadonlyMap<string, TypedArray>;
  readonly arena: MeshResult["arena"];
  readonly traffic: MeshResult["traffic"];
}

/** What the graphs of a step say that ranks exchange. */
function plannedTraffic({ graphs, pipeline }: CompiledStep, accumulation: number): Record<string, Sent> {
  const found: Record<string, Sent> = {};
  for (const [name, runs] of sectionRuns(pipeline, accumulation)) {
    for (const { op, count, bytes } of exchangesOf(graphs.find((g) => g.name === name)!, { runs })) {
      const before = found[op] ?? { collectives: 0, bytes: 0 };
      found[op] = { collectives: before.collectives + count, bytes: before.bytes + bytes };
    }
  }
  return rounded(found);
}

/** What three ranks send of a scalar is no whole number: sums of such differ in their last bits. */
function rounded(sent: Record<string, Sent>): Record<string, Sent> {
  const entries = Object.entries(sent).map(([op, s]): [string, Sent] => [op, { ...s, bytes: Math.round(s.bytes) }]);
  return Object.fromEntries(entries);
}

/** What the runtime has counted so far. */
function countedTraffic(comm: Comm | undefined): Record<string, Sent> {
  const kinds = Object.entries(comm?.sent() ?? {}).filter(([, { collectives }]) => collectives > 0);
  return Object.fromEntries(kinds.map(([op, { collectives, sentBytes }]) => [op, { collectives, bytes: sentBytes }]));
}

function difference(after: Record<string, Sent>, before: Record<string, Sent>): Record<string, Sent> {
  const none = { collectives: 0, bytes: 0 };
  const entries = Object.entries(after).map(([op, { collectives, bytes }]): [string, Sent] => {
    const from = before[op] ?? none;
    return [op, { collectives: collectives - from.collectives, bytes: bytes - from.bytes }];
  });
  return rounded(Object.fromEntries(entries.filter(([, { collectives }]) => collectives > 0)));
}

/** Trains on rows that a formula makes. */
async function train(
  device: Device,
  options: StepOptions,
  compiled: CompiledStep,
  steps = 10,
  comm?: Comm,
): Promise<Run> {
  const { ranks, accumulation, batch, model } = options;
  const { dataRank, dataRanks } = ranks ? dataRankOf(ranks.mesh, ranks.rank) : { dataRank: 0, dataRanks: 1 };
  const globalBatch = batch * dataRanks;
  using program = await StepProgram.load(device, compiled, accumulation);
  const part = new BatchPart(SEQ_LEN, ranks), own = makeBatch(batch, SEQ_LEN);
  const read = async (kind: string) => {
    const { states } = program.compiled.plan;
    const names = [...states.values()].filter((s) => s.state.kind === kind).map((s) => s.state.name);
    const found = new Map<string, TypedArray>();
    for (const name of names) {
      // Stages of one rank that share a parameter have a sum of its gradient each.
      const { of } = states.get(name)!.state,
        data = await program.readState(name),
        key = kind === "gradient" ? `gradient/${of}` : name;
      const before = found.get(key);
      found.set(key, before ? data.map((x, i) => x + before[i]) : data);
    }
    return found;
  };
  await program.initialize(42);
  const start = await read("parameter"), losses: number[] = [];
  let gradients: ReadonlyMap<string, TypedArray> = new Map(), counted: Record<string, Sent> = {};
  for (let step = 1; step <= steps; step++) {
    program.microbatches.forEach((views, k) => {
      const rows = someRows(globalBatch * steps * accumulation, SEQ_LEN, model.vocabSize!);
      const from = (((step - 1) * accumulation + k) * globalBatch + dataRank * batch) * SEQ_LEN;
      const cut = (list: readonly number[]) => list.slice(from, from + own.tokens.length);
      own.tokens.set(cut(rows.tokens));
      own.targets.set(cut(rows.targets));
      own.documents.set(cut(rows.tokens).map((_, i) => Math.floor((i % SEQ_LEN) / 5)));
      part.put(views, own);
    });
    const before = countedTraffic(comm), { loss } = await program.step(step, 0.02);
    if (step === 2) counted = difference(countedTraffic(comm), before);
    losses.push(loss);
    if (step === 1) gradients = await read("gradient");
  }
  const planned = program.compiled.plan.arenaBytes;
  const arena = options.target?.name === "cuda" ? undefined : arenaOf(await mappingsOf(Deno.pid), planned);
  return {
    losses,
    start,
    gradients,
    arena: { planned, mapped: arena?.bytes ?? 0, resident: arena?.residentBytes ?? 0 },
    traffic: { planned: plannedTraffic(compiled, accumulation), counted },
  };
}

/** A whole value of what each rank holds; copies have to be the same, bit for bit. */
function whole(state: State, layout: Layout, mesh: Mesh, parts: readonly Float64Array[]): Float64Array {
  // Stages that share a parameter each have a summand of its gradient, and copies of all else.
  const isCopy = (axis: string) => {
    const { kind } = placementOn(layout, axis);
    return kind === "replicate" || kind === "held" && state.kind !== "gradient";
  };
  const kept = Object.keys(mesh.factors).filter(isCopy), copies = new Map<string, Float64Array>();
  parts.forEach((data, rank) => {
    if (!isHeld(layout, mesh.coordinates(rank))) return;
    const at = mesh.coordinates(rank), key = kept.map((axis) => at[axis]).join();
    if (!copies.has(key)) copies.set(key, arr(state.shape).data);
    const copy = copies.get(key)!, { starts, sizes } = boxOf(state.shape, layout, mesh.factors, at);
    const strides = [stridesOf(state.shape), stridesOf(localShape(state.shape, layout, mesh.factors))];
    const begin = starts.reduce((sum, s, d) => sum + s * strides[0][d], 0);
    forEachIndex(sizes, strides, ([i, j]) => copy[begin + i] += data[j]);
  });
  const [first, ...others] = copies.values();
  if (others.some((copy) => copy.some((x, i) => !Object.is(x, first[i])))) {
    throw new Error(`copies of ${state.name} differ`);
  }
  return first;
}

async function compare(device: Device, comm: Comm, run: MeshCase): Promise<MeshResult> {
  const { rank, size } = comm.info, mesh = new Mesh(run.mesh, size), ranks = { ...run.choices, mesh, rank };
  const options = optionsOf(run, ranks), compiled = compileStep(options);
  const first = await train(device, options, compiled, run.steps, comm);
  const second = await train(device, options, compiled, run.steps);
  const { layoutOf, states } = compiled.spread;
  const gathered = async (state: State, data: TypedArray | undefined): Promise<Float64Array> => {
    // Behind a step, sums over copies of the data have been reduced.
    const layout = new Map([...layoutOf(state)].filter(([, p]) => p.kind !== "partial"));
    const size = numel(localShape(state.shape, layout, mesh.factors)), isHere = isHeld(layout, mesh.coordinates(rank));
    if ((data?.length ?? size) !== size || isHere !== (data !== undefined)) {
      throw new Error(`${state.name} has another size`);
    }
    const own = data ? Float64Array.from(data) : new Float64Array(size);
    const all = await comm.gather(new Uint8Array(own.buffer));
    return whole(state, layout, mesh, all.map((bytes) => new Float64Array(bytes.buffer)));
  };
  const bits = (r: Run) =>
    new Uint8Array(Float64Array.from([...r.losses, ...[...r.gradients.values()].flatMap((g) => [...g])]).buffer);
  const [a, b] = [bits(first), bits(second)];
  const losses = await comm.gather(new Uint8Array(Float64Array.from(first.losses).buffer));
  const own = a.every((x, i) => x === b[i]) && losses.every((l) => l.every((x, i) => x === losses[0][i]));
  const repeats = (await comm.gather(Uint8Array.of(own ? 1 : 0))).every(([same]) => same === 1);
  // On a device of its own, which has joined nobody.
  const alone = optionsOf(run);
  const single = rank === 0 ? await train(new Device({ threads: 1 }), alone, compileStep(alone), run.steps) : undefined;
  let [sameStart, difference, largest] = [true, 0, 0];
  for (const state of states.values()) {
    if (state.kind === "parameter") {
      const value = await gathered(state, first.start.get(state.name)), own = single?.start.get(state.name);
      sameStart &&= own?.every((x, i) => Object.is(x, value[i])) ?? true;
    } else if (state.kind === "gradient") {
      const value = await gathered(state, first.gradients.get(state.name));
      single?.gradients.get(state.name)?.forEach((x, i) => {
        largest = Math.max(largest, Math.abs(x));
        difference = Math.max(difference, Math.abs(x - value[i]));
      });
    }
  }
  const off = first.losses.map((x, i) => Math.abs(x - (single ?? first).losses[i]));
  return {
    sameStart,
    gradient: difference / (largest || 1),
    loss: Math.max(...off),
    firstLosses: Math.max(...off.slice(0, 3)),
    repeats,
    last: first.losses.at(-1)!,
    arena: first.arena,
    traffic: first.traffic,
  };
}

const device = new Device({ kind: KIND, ordinal: KIND === "cuda" ? worldOf()?.hostRank : 0, threads: 1 });
try {
  const comm = await Comm.open(device, { startTimeoutMs: 60_000, timeoutMs: 60_000 }), found: MeshResult[] = [];
  for (const [i, run] of (JSON.parse(Deno.args[0]) as MeshCase[]).entries()) {
    try {
      found.push(await compare(device, comm, run));
    } catch (error) {
      throw new Error(`case ${i}: ${(error as Error).message}`, { cause: error });
    }
  }
  await comm.close();
  // Long lines of several processes would be torn.
  if (comm.info.rank === 0) Deno.writeTextFileSync(Deno.args[1], JSON.stringify(found));
  console.log(JSON.stringify({ rank: comm.info.rank }));
} catch (error) {
  console.error(error);
  Deno.exit(1);
}
