/** A training step as one native program: its host buffers laid out, its lists of actions made once. A step,
 * an initialisation and an evaluation are different lists over the same sections, and each is one native call.
 * @module */
import { type Action, Actions, Struct } from "../ffi/buffer.ts";
import type { Device } from "../ffi/device.ts";
import { TitanError } from "../ffi/error.ts";
import { Program, type ProgramMemory } from "../ffi/program.ts";
import { Flag } from "../ffi/symbols.ts";
import { numel, type State, type StateKind } from "../graph/ir.ts";
import { boxOf, isHeld, localShape } from "../graph/layout.ts";
import type { EncodedSection } from "../graph/passes/encode.ts";
import type { HostSlot } from "../graph/passes/memory.ts";
import { scopeInWords } from "../graph/print.ts";
import type { GenerativeModel } from "../model/cache.ts";
import { lastingKinds } from "./checkpoint/manifest.ts";
import type { Wanted } from "./checkpoint/read.ts";
import type { SpreadStates } from "./checkpoint/save.ts";
import type { LocalState } from "./checkpoint/write.ts";
import { type Decoder, ProgramDecoder } from "./generate/decoder.ts";
import { evaluationActions, microbatchActions, type SectionRun } from "./pipeline.ts";
import type { InstructionTime } from "./report/profile.ts";
import { type CompiledStep, type DecoderSizes, lastingStates } from "./step_plan.ts";
import { newArray, numbersOf, setNumbers, type TypedArray, typedArray } from "./typed_array.ts";

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

function actionOf(
  { slot, source, first, last }: SectionRun,
  section: number,
  flags: number,
  inputBase: number,
): Action {
  return { section, slot, source, inputBase, flags: flags | (first ? Flag.FIRST : 0) | (last ? Flag.LAST : 0) };
}

/** A compiled step in native memory. */
export class StepProgram implements Disposable {
  readonly compiled: CompiledStep;
  /** Where to put each microbatch of a step. */
  readonly microbatches: readonly BatchViews[];
  /** Where to put the next batch of an evaluation. */
  readonly evaluation: BatchViews | undefined;
  readonly #program: Program;
  /** The sections of a step, in the order in which it runs them. */
  readonly #stepSections: readonly EncodedSection[];
  /** Which microbatches these are for; the last is the update. */
  readonly #stepMicrobatches: readonly number[];
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
    const [initialize, update] = ["initialize", "update"].map((n) => section(n)!), result = section("evaluate_result");
    const { pipeline } = compiled, microbatches = microbatchActions(pipeline, accumulation);
    const sectionsOf = (list: readonly SectionRun[]) => list.map((run) => section(run.section)!);
    // Where there are stages, nothing may have to be handed over between two of them.
    const runs = microbatches.filter((run) => section(run.section) !== undefined);
    const ofEvaluation = evaluationActions(pipeline).filter((run) => section(run.section) !== undefined);
    const withInputs = (list: readonly EncodedSection[]) => list.find((s) => s.inputs.length > 0);
    const microbatch = withInputs(sectionsOf(runs))!, evaluate = withInputs(sectionsOf(ofEvaluation));
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
    this.#stepSections = [...sectionsOf(runs), update];
    this.#stepMicrobatches = runs.map((run) => run.microbatch);
    this.microbatches = bases.map((base) => batchViews(microbatch, base));
    this.evaluation = evaluate && batchViews(evaluate, 0);
    this.#seed = view(input.buffer, 0, initialize.inputs, "seed");
    [this.#lr, this.#step] = ["lr", "step"].map((n) => view(input.buffer, last, update.inputs, n));
    const after = Math.max(...sectionsOf(runs).map((s) => s.outputBytes));
    this.#numbers = ["loss", "grad_norm", "token_count"].map((n) => view(output.buffer, after, update.outputs, n));
    this.#sums = ["loss_sum", "token_count"].flatMap((name) => {
      const place = compiled.plan.states.get(name); // only where the last stage is
      return place ? [{ offset: place.offset, data: newArray(place.state) }] : [];
    });
    this.#evaluated = result ? ["loss", "token_count"].map((n) => view(output.buffer, 0, result.outputs, n)) : [];
    const step = (flags: number): Action[] => [
      ...runs.map((run) => actionOf(run, section(run.section)!.index, flags, bases[run.microbatch])),
      { section: update.index, flags, inputBase: last, outputBase: after },
    ];
    const one = (s: EncodedSection | undefined, flags: number) => new Actions(s ? [{ section: s.index, flags }] : []);
    const evaluation = (first: number) =>
      new Actions(
        ofEvaluation.map((run) =>
          actionOf({ ...run, first: run.first && first > 0 }, section(run.section)!.index, 0, 0)
        ),
      );
    this.#actions = {
      initialize: one(initialize, Flag.FIRST),
      step: new Actions(step(0)),
      microbatches: new Actions(step(0).slice(0, -1)),
      update: new Actions(step(0).slice(-1)),
      check: new Actions(step(Flag.CHECK_FINITE)),
      evaluateFirst: evaluation(1),
      evaluateNext: evaluation(0),
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

  /** Mean loss over the valid tokens that this rank alone has seen in the last step; not a number where there were none, or where the rank
   * has not the last stage. */
  async ownLoss(): Promise<number> {
    if (this.#sums.length === 0) return NaN;
    for (const { offset, data } of this.#sums) await this.#program.read(offset, data);
    return this.#sums[0].data[0] / this.#sums[1].data[0];
  }

  /** Has the next step's instructions recorded. */
  async recordNext(): Promise<void> {
    const instructions = this.#stepSections.reduce((n, s) => n + s.instructions.length, 0);
    this.#records ??= new Struct("titan_profile_record", instructions);
    await this.#program.profile(this.#records);
  }

  /** When each instruction of the step ran that was recorded last. */
  recorded(): InstructionTime[] {
    const records = this.#records, { sections } = this.compiled.program;
    const known = sections.flatMap(({ name, instructions }) => instructions.map((i) => ({ ...i, section: name })));
    return Array.from({ length: records?.count ?? 0 }, (_, i): InstructionTime => ({
      ...known[records!.get("instruction", i)],
      action: records!.get("action", i),
      microbatch: this.#stepMicrobatches[records!.get("action", i)],
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
    const { plan: { categories: { cache: cacheBytes } }, program: { sections }, pipeline } = this.compiled;
    return new ProgramDecoder(this.#program, sections, { ...sizes, cacheBytes, pipeline });
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
      wanted: states.filter((state) => isHeld(layoutOf(state), at)).map((state) => ({ state, ...localOf(state.name) })),
    };
  }

  /** Frees the native memory. */
  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}
