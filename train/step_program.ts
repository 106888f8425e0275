/** A training step as one native program: its graphs compiled, its host buffers laid out, its lists of actions made once. A step,
 * an initialisation and an evaluation are different lists over the same sections, and each is one native call.
 * @module */
import { type Action, Actions, Struct } from "../ffi/buffer.ts";
import type { Device } from "../ffi/device.ts";
import { TitanError } from "../ffi/error.ts";
import { Program, type ProgramMemory } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import { prefetchBytes } from "../data/prefetch.ts";
import { type Graph, numel, type State, type StateKind } from "../graph/ir.ts";
import { lastingKinds } from "./checkpoint/manifest.ts";
import { pieceBytes, shareOf } from "./checkpoint/pieces.ts";
import { type CheckpointOptions, policyOf } from "./checkpoint/policy.ts";
import type { Wanted } from "./checkpoint/read.ts";
import type { SpreadStates } from "./checkpoint/save.ts";
import { stagingBytesOf } from "./checkpoint/staging.ts";
import type { LocalState } from "./checkpoint/write.ts";
import type { EncodedSection } from "../graph/passes/encode.ts";
import type { RematPolicy } from "../graph/passes/remat.ts";
import type { RematBudget } from "../graph/passes/remat_search.ts";
import type { HostSlot, MemoryPlan } from "../graph/passes/memory.ts";
import type { Precision } from "../graph/passes/precision.ts";
import { scopeInWords } from "../graph/print.ts";
import { type GenerativeModel, isGenerative } from "../model/cache.ts";
import type { TrainableModel } from "../model/loss.ts";
import { type Compiled, compileGraphs, type CompileOptions, planGraphs, type Planned } from "./compile.ts";
import { boxOf, type Layout, localShape, replicated } from "../graph/layout.ts";
import { Mesh } from "../parallel/mesh.ts";
import { type Decoder, ProgramDecoder } from "./generate/decoder.ts";
import { generationGraphs } from "./generate/graphs.ts";
import { bindRanks, dataRankOf, type MeshLayout } from "./ranks.ts";
import { newArray, numbersOf, setNumbers, type TypedArray, typedArray } from "./typed_array.ts";
import type { InstructionTime } from "./report/profile.ts";
import { type OptimizerOptions, traceInitialize, traceUpdate } from "./optimizer.ts";
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
  /** What backward makes again; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
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

/** Token ids and the like of one microbatch, row-major `[batch, seqLen]`, in the program's input buffer; where ranks share sequences,
 * this rank's part of each. */
export interface BatchViews {
  readonly tokens: TypedArray;
  readonly targets: TypedArray;
  readonly positions: TypedArray;
  /** Where attention stays inside of a document. */
  readonly documents?: TypedArray;
}

/** Results of a step. */
export interface StepNumbers {
  /** Mean loss over the valid tokens. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Number of valid tokens. */
  readonly tokenCount: number;
}

/** A step whose loss or gradient is not a number. Parameters and moments are as they were before it. */
export class DivergedError extends Error {
  /** Always this. */
  override readonly name = "DivergedError";
  /** The step, from 1. */
  readonly step: number;
  /** What the first op that made such a number was told by. */
  readonly origin: TitanError | undefined;

  /** @ignore */
  constructor(step: number, origin: TitanError | undefined, numbers: StepNumbers) {
    const place = origin?.scope === undefined ? "the step" : scopeInWords(origin.scope);
    const where = origin
      ? `first made by "${origin.kernel}" of ${place}`
      : "which the same step run again did not show";
    super(
      `Step ${step} diverged: loss ${numbers.loss}, gradient norm ${numbers.gradNorm}, ${where}
  expected: finite numbers; the parameters are still those of step ${step - 1}
  fix: lower optimizer.lr, lengthen lr_scheduler.warmup_steps, or look at the data of this step   (diverged)`,
    );
    this.step = step;
    this.origin = origin;
  }
}

/** The graphs of a step as they are traced: over whole values, before any pass. */
export function stepGraphs(
  options: Omit<StepOptions, "precision" | "remat" | "threads"> & { readonly precision?: Partial<Precision> },
): Graph[] {
  const { model, optimizer, dtype, seqLen, accumulation, documents, ranks, generate, precision } = options;
  const { dataRanks } = ranks ? dataRankOf(ranks.mesh, ranks.rank) : { dataRanks: 1 };
  const whole = <T extends { readonly batch: number }>(sizes: T): T => ({ ...sizes, batch: sizes.batch * dataRanks });
  const { batch } = whole(options), evaluate = options.evaluate && whole(options.evaluate);
  const globalTokens = batch * seqLen * accumulation;
  return [
    traceInitialize(model, dtype),
    traceMicrobatch(model, { batch, seqLen, dtype, documents, globalTokens }),
    traceUpdate(model, { ...optimizer, dtype, globalTokens }),
    ...(evaluate ? [traceEvaluate(model, { ...evaluate, dtype, documents }), traceEvaluateResult(dtype)] : []),
    ...(generate
      ? generationGraphs(generative(model), { ...generate, dtype, cache: precision?.param === "bf16" ? "bf16" : dtype })
      : []),
  ];
}

/** @throws {TypeError} when the model cannot generate. */
function generative(model: TrainableModel): TrainableModel & GenerativeModel {
  if (isGenerative(model)) return model;
  throw new TypeError(
    `Cannot generate with ${model.constructor.name}: it has no method next\n  expected: a Llama, or a model with ` +
      `next(tokens) and vocabSize\n  fix: write them, or generate nothing`,
  );
}

/** Compiles the graphs of a step; needs no native library. Sections are named by their graphs.
 * @throws {LayoutError} when the model cannot be cut as the mesh asks. */
export function compileStep(options: StepOptions): CompiledStep {
  const { graphs, passes, spread } = bound(options), compiled = compileGraphs(graphs, passes);
  return { ...compiled, ...hostMemory(compiled.plan, spread, options), spread };
}

/** All of {@linkcode compileStep} but the program: enough to know what a step takes. */
export function planStep(options: StepOptions): Planned & HostMemory {
  const { graphs, passes, spread } = bound(options), planned = planGraphs(graphs, passes);
  return { ...planned, ...hostMemory(planned.plan, spread, options) };
}

/** The graphs of a step, and how passes turn them into a program. */
function bound(options: StepOptions): { graphs: Graph[]; passes: CompileOptions; spread: StateLayouts } {
  const { model, precision, remat, threads } = options, graphs = stepGraphs(options);
  const ranks = options.ranks && bindRanks(model, graphs, options.ranks);
  const states = new Map(graphs.flatMap((g) => g.states).map((s) => [s.name, s]));
  const { mesh, rank } = options.ranks ?? { mesh: new Mesh({}, 1), rank: 0 };
  const layoutOf = (state: State) => ranks?.layouts.state(state) ?? replicated;
  return { graphs, passes: { precision, remat, threads, ranks }, spread: { mesh, rank, states, layoutOf } };
}

/** A step that is ready to be loaded. */
export type CompiledStep = Compiled & HostMemory & { readonly spread: StateLayouts };

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

function hostMemory(plan: MemoryPlan, spread: StateLayouts, options: StepOptions): HostMemory {
  const { batch, seqLen, accumulation, evaluate } = options, { sections } = plan;
  const [microbatch, update] = ["microbatch", "update"].map((name) => sections.find((s) => s.graph.name === name));
  const step = {
    inputBytes: accumulation * microbatch!.inputBytes + update!.inputBytes,
    outputBytes: microbatch!.outputBytes + update!.outputBytes,
  };
  // All but steps run one section at a time.
  const most = (bytes: "inputBytes" | "outputBytes") => Math.max(step[bytes], ...sections.map((s) => s[bytes]));
  return {
    host: {
      inputBytes: most("inputBytes"),
      outputBytes: most("outputBytes"),
      prefetchBytes: prefetchBytes(batch, seqLen) + (evaluate ? prefetchBytes(evaluate.batch, evaluate.seqLen) : 0),
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
function lastingStates(plan: MemoryPlan, { states }: StateLayouts, kinds: readonly StateKind[]): State[] {
  return [...states.values()].filter((s) => kinds.includes(s.kind))
    .map((s) => ({ ...s, dtype: plan.states.get(s.name)!.state.dtype }));
}

/** A compiled step in native memory. */
export class StepProgram implements Disposable {
  readonly compiled: CompiledStep;
  /** Where to put each microbatch of a step. */
  readonly microbatches: readonly BatchViews[];
  /** Where to put the next batch of an evaluation. */
  readonly evaluation: BatchViews | undefined;
  readonly #program: Program;
  /** `microbatch` and `update`. */
  readonly #stepSections: readonly EncodedSection[];
  readonly #seed: TypedArray;
  readonly #lr: TypedArray;
  readonly #step: TypedArray;
  readonly #numbers: readonly TypedArray[];
  readonly #evaluated: readonly TypedArray[];
  /** A rank's own loss and number of valid tokens. */
  readonly #sums: readonly { readonly offset: number; readonly data: TypedArray }[];
  #records: Struct<"titan_profile_record"> | undefined;
  readonly #actions: {
    readonly initialize: Actions;
    readonly step: Actions;
    readonly microbatches: Actions;
    readonly update: Actions;
    readonly check: Actions;
    readonly evaluateFirst: Actions;
    readonly evaluateNext: Actions;
    readonly evaluateResult: Actions;
  };

  private constructor(compiled: CompiledStep, program: Program, accumulation: number) {
    this.compiled = compiled;
    this.#program = program;
    const section = (name: string) => compiled.program.sections.find((s) => s.name === name);
    const [initialize, microbatch, update] = ["initialize", "microbatch", "update"].map((n) => section(n)!);
    const [evaluate, result] = [section("evaluate"), section("evaluate_result")];
    const { input, output } = program;
    const view = (buffer: ArrayBuffer, base: number, slots: readonly HostSlot[], name: string): TypedArray => {
      const { value, offset } = slots.find((s) => s.name === name)!;
      return typedArray(value.dtype, buffer, base + offset, numel(value.shape));
    };
    const batchViews = (s: EncodedSection, base: number): BatchViews => {
      const [tokens, targets, positions] = ["tokens", "targets", "positions"].map((n) =>
        view(input.buffer, base, s.inputs, n)
      );
      const masked = s.inputs.some((i) => i.name === "documents");
      return {
        tokens,
        targets,
        positions,
        ...(masked ? { documents: view(input.buffer, base, s.inputs, "documents") } : {}),
      };
    };
    const bases = Array.from({ length: accumulation }, (_, k) => k * microbatch.inputBytes);
    const last = accumulation * microbatch.inputBytes;
    this.#stepSections = [microbatch, update];
    this.microbatches = bases.map((base) => batchViews(microbatch, base));
    this.evaluation = evaluate && batchViews(evaluate, 0);
    this.#seed = view(input.buffer, 0, initialize.inputs, "seed");
    [this.#lr, this.#step] = ["lr", "step"].map((n) => view(input.buffer, last, update.inputs, n));
    const after = microbatch.outputBytes;
    this.#numbers = ["loss", "grad_norm", "token_count"].map((n) => view(output.buffer, after, update.outputs, n));
    this.#sums = ["loss_sum", "token_count"].map((name) => {
      const { state, offset } = compiled.plan.states.get(name)!;
      return { offset, data: newArray(state) };
    });
    this.#evaluated = result ? ["loss", "token_count"].map((n) => view(output.buffer, 0, result.outputs, n)) : [];
    const step = (flags: number): Action[] => [
      ...bases.map((inputBase, k) => ({
        section: microbatch.index,
        flags: flags | (k === 0 ? Flag.FIRST : 0) | (k === accumulation - 1 ? Flag.LAST : 0),
        inputBase,
      })),
      { section: update.index, flags, inputBase: last, outputBase: after },
    ];
    const one = (s: EncodedSection | undefined, flags: number) => new Actions(s ? [{ section: s.index, flags }] : []);
    this.#actions = {
      initialize: one(initialize, Flag.FIRST),
      step: new Actions(step(0)),
      microbatches: new Actions(step(0).slice(0, -1)),
      update: new Actions(step(0).slice(-1)),
      check: new Actions(step(Flag.CHECK_FINITE)),
      evaluateFirst: one(evaluate, Flag.FIRST),
      evaluateNext: one(evaluate, 0),
      evaluateResult: one(result, 0),
    };
  }

  /** Loads a compiled step.
   * @param accumulation as it was compiled with. @throws {TitanError} when the device refuses it or memory is short. */
  static async load(device: Device, compiled: CompiledStep, accumulation: number): Promise<StepProgram> {
    const { program: { bytes }, host } = compiled;
    const program = await Program.create(device, bytes, host);
    return new StepProgram(compiled, program, accumulation);
  }

  /** What it holds. */
  get memory(): ProgramMemory {
    return this.#program.memory;
  }

  /** Gives all parameters their first values. */
  async initialize(seed: number): Promise<void> {
    this.#seed[0] = seed | 0;
    this.#seed[1] = Math.floor(seed / 2 ** 32) | 0;
    await this.#program.run(this.#actions.initialize);
  }

  /** One optimizer step on what lies in `microbatches`.
   * @param step from 1. @param lr learning rate.
   * @param options `optimizerStep`: steps since the moments began, this one included, default `step`; `beforeUpdate` is waited for before
   * parameters and moments change: a step without it is one native call.
   * @throws {DivergedError} when loss or gradient norm is not finite. */
  async step(
    step: number,
    lr: number,
    { optimizerStep = step, beforeUpdate }: {
      readonly optimizerStep?: number;
      readonly beforeUpdate?: () => Promise<void>;
    } = {},
  ): Promise<StepNumbers> {
    this.#lr[0] = lr;
    this.#step[0] = optimizerStep;
    if (beforeUpdate) {
      await this.#program.run(this.#actions.microbatches);
      await beforeUpdate();
      await this.#program.run(this.#actions.update);
    } else await this.#program.run(this.#actions.step);
    const numbers = { loss: this.#numbers[0][0], gradNorm: this.#numbers[1][0], tokenCount: this.#numbers[2][0] };
    if (!Number.isFinite(numbers.loss) || !Number.isFinite(numbers.gradNorm)) await this.#explain(step, numbers);
    return numbers;
  }

  /** Mean loss over the valid tokens that this rank alone has seen in the last step; not a number where there were none. */
  async ownLoss(): Promise<number> {
    for (const { offset, data } of this.#sums) await this.#program.read(offset, data);
    return this.#sums[0].data[0] / this.#sums[1].data[0];
  }

  /** Has the next step's instructions recorded. */
  async recordNext(): Promise<void> {
    const [microbatch, update] = this.#stepSections.map((s) => s.instructions.length);
    this.#records ??= new Struct("titan_profile_record", this.microbatches.length * microbatch + update);
    await this.#program.profile(this.#records);
  }

  /** When each instruction of the step ran that was recorded last. */
  recorded(): InstructionTime[] {
    const records = this.#records, { sections } = this.compiled.program;
    const known = sections.flatMap(({ name, instructions }) => instructions.map((i) => ({ ...i, section: name })));
    return Array.from({ length: records?.count ?? 0 }, (_, i): InstructionTime => ({
      ...known[records!.get("instruction", i)],
      action: records!.get("action", i),
      stream: records!.get("stream", i),
      beginNs: records!.get("begin_ns", i),
      endNs: records!.get("end_ns", i),
    }));
  }

  /** Runs the step again, looking at what each instruction makes: the update has left the parameters as they were. */
  async #explain(step: number, numbers: StepNumbers): Promise<never> {
    let origin: TitanError | undefined;
    try {
      await this.#program.run(this.#actions.check);
    } catch (error) {
      if (!(error instanceof TitanError)) throw error;
      origin = error;
    }
    throw new DivergedError(step, origin, numbers);
  }

  /** Adds the batch in `evaluation` to the evaluation; the first one starts it. */
  async evaluate(first: boolean): Promise<void> {
    await this.#program.run(first ? this.#actions.evaluateFirst : this.#actions.evaluateNext);
  }

  /** Mean loss and number of valid tokens of the evaluation. */
  async evaluated(): Promise<{ readonly loss: number; readonly tokenCount: number }> {
    await this.#program.run(this.#actions.evaluateResult);
    return { loss: this.#evaluated[0][0], tokenCount: this.#evaluated[1][0] };
  }

  /** A decoder over the parameters as they stand between steps. It may run whenever no other section does, and need not be disposed of.
   * @param sizes as they were compiled. */
  decoder(sizes: DecoderSizes & Pick<GenerativeModel, "vocabSize">): Decoder {
    const { plan: { categories: { cache: cacheBytes } }, program: { sections } } = this.compiled;
    return new ProgramDecoder(this.#program, sections, { ...sizes, cacheBytes });
  }

  #place(name: string): { readonly state: State; readonly offset: number } {
    const place = this.compiled.plan.states.get(name);
    if (!place) {
      throw new RangeError(
        `Cannot find state "${name}": expected one of ${[...this.compiled.plan.states.keys()].join(", ")}`,
      );
    }
    return place;
  }

  /** A copy of a state: a parameter by its FQN, `gradient/FQN`, `moment1/FQN`, ... */
  async readState(name: string): Promise<TypedArray> {
    const { state, offset } = this.#place(name), data = newArray(state);
    await this.#program.read(offset, data);
    return numbersOf(data, state.dtype);
  }

  /** Replaces a state.
   * @throws {TypeError} when the number of elements differs. */
  async writeState(name: string, values: ArrayLike<number>): Promise<void> {
    const { state, offset } = this.#place(name), data = newArray(state);
    if (values.length !== data.length) {
      throw new TypeError(
        `Cannot write state "${name}": expected ${data.length} numbers for [${state.shape}], got ${values.length}`,
      );
    }
    setNumbers(data, state.dtype, values);
    await this.#program.write(offset, data);
  }

  /** The states that outlive a run: {@linkcode lastingKinds} unless `kinds` says otherwise. */
  lasting(kinds: readonly StateKind[] = lastingKinds): SpreadStates & { readonly wanted: readonly Wanted[] } {
    const { spread: { mesh, rank, states: all, layoutOf }, plan } = this.compiled, at = mesh.coordinates(rank);
    const states = lastingStates(plan, this.compiled.spread, kinds);
    const localOf = (name: string): LocalState => {
      const state = all.get(name)!, layout = layoutOf(state), { starts } = boxOf(state.shape, layout, mesh.factors, at);
      const { offset, state: { dtype } } = plan.states.get(name)!;
      return {
        offset,
        dtype,
        box: { starts, sizes: localShape(state.shape, layout, mesh.factors) },
      };
    };
    return {
      mesh,
      rank,
      states,
      layoutOf,
      localOf,
      memory: this.#program,
      wanted: states.map((state) => ({ state, ...localOf(state.name) })),
    };
  }

  /** Frees the native memory. */
  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}
