/** Trains a model: batches from the loader, one native call a step, results as they come. The command line and one-file
 * experiments run on this one class.
 * @module */
import { DataError } from "../data/error.ts";
import { type DatasetSpec, Unigrams } from "../data/dataset.ts";
import type { Batch } from "../data/loader.ts";
import { prefetch, type Prefetcher } from "../data/prefetch.ts";
import { Device, type DeviceInfo } from "../ffi/device.ts";
import type { Precision } from "../graph/passes/precision.ts";
import type { RematPolicy } from "../graph/passes/remat.ts";
import type { RematBudget } from "../graph/passes/remat_search.ts";
import type { TrainableModel } from "../model/loss.ts";
import { lrFactor, type LrScheduleOptions } from "./lr_schedule.ts";
import { checkMemory, machineMemory } from "./machine_memory.ts";
import type { OptimizerOptions } from "./optimizer.ts";
import type { StepProfile } from "./profile.ts";
import { precisionOf } from "./precision.ts";
import type { RealType } from "./step.ts";
import { type BatchViews, compileStep, type StepNumbers, StepProgram } from "./step_program.ts";

/** What to train, on what, and how. Everything but model, data and steps has a default. */
export interface TrainOptions {
  /** What is trained: a `Llama`, or any module with a loss. */
  readonly model: TrainableModel;
  /** What it is trained on. */
  readonly data: DatasetSpec;
  /** Optimizer steps. */
  readonly steps: number;
  /** Folder of the tokenizer; default: the sample's, of 2,048 tokens. */
  readonly tokenizer?: string | URL;
  /** Sequences of a microbatch; default 8. */
  readonly batch?: number;
  /** Microbatches of a step, whose gradients are added; default 1. */
  readonly accumulation?: number;
  /** Tokens of a sequence; default 256. */
  readonly seqLen?: number;
  /** Peak learning rate; default 2e-3. */
  readonly lr?: number;
  /** Shape of the learning rate over the run; default: a tenth of it warm-up, then linear decay over the last half. */
  readonly lrSchedule?: LrScheduleOptions;
  /** AdamW and clipping; defaults: betas 0.9 and 0.95, eps 1e-8, weight decay 0.1, norm 1. */
  readonly optimizer?: Partial<OptimizerOptions>;
  /** Element type of parameters and activations; default `f32`. */
  readonly dtype?: RealType;
  /** What is multiplied and stored in bf16; default: products take bf16 where the device multiplies it itself. */
  readonly precision?: Partial<Precision>;
  /** What backward makes again to save memory; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
  /** Does attention stay inside of a document? Default: it sees the whole row, across documents. */
  readonly documents?: boolean;
  /** Independent streams of documents. */
  readonly lanes?: number;
  /** Seed of the initial values; default 0. */
  readonly seed?: number;
  /** CPU threads; default 0: all. */
  readonly threads?: number;
  /** Held-out text for `evaluate`. */
  readonly validation?: ValidationOptions;
  /** Is this step, counted from 1, to be recorded? It then comes with its `profile`. Default: none is, which costs nothing. */
  readonly profile?: (step: number) => boolean;
}

/** What `evaluate` runs on. */
export interface ValidationOptions {
  /** The text. */
  readonly data: DatasetSpec;
  /** Sequences of a batch. */
  readonly batch: number;
  /** Tokens of a sequence. */
  readonly seqLen: number;
  /** Batches; -1: all of the data. */
  readonly steps: number;
}

/** What a step has to tell. */
export interface TrainStep extends StepNumbers {
  /** From 1. */
  readonly step: number;
  /** Learning rate of the step. */
  readonly lr: number;
  /** Tokens seen since the start. */
  readonly tokensSeen: number;
  /** Wait for the data, in milliseconds. */
  readonly loadingMs: number;
  /** Time in the native call, in milliseconds. */
  readonly nativeMs: number;
  /** Where the time went, if the step was to be recorded. */
  readonly profile?: StepProfile;
}

/** What an evaluation has to tell. */
export interface Evaluation {
  /** Mean loss over the tokens, in nats. */
  readonly loss: number;
  /** Number of those tokens. */
  readonly tokens: number;
  /** Entropy of the same tokens' frequencies, in nats: what a model reaches that knows nothing but them. */
  readonly unigramEntropy: number;
  /** How long it took. */
  readonly ms: number;
}

const defaultOptimizer: OptimizerOptions = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** Options with nothing left open. */
export type CompleteOptions =
  & TrainOptions
  & Required<Omit<TrainOptions, "tokenizer" | "lanes" | "validation" | "profile">>
  & {
    readonly optimizer: OptimizerOptions;
  };

/** Fills in defaults. */
export function complete(options: TrainOptions): CompleteOptions {
  const { steps } = options;
  return {
    ...options,
    batch: options.batch ?? 8,
    accumulation: options.accumulation ?? 1,
    documents: options.documents ?? false,
    seqLen: options.seqLen ?? 256,
    lr: options.lr ?? 2e-3,
    lrSchedule: options.lrSchedule ??
      { warmupSteps: Math.ceil(steps / 10), totalSteps: steps, decayRatio: 0.5, decayType: "linear", minLrFactor: 0 },
    optimizer: { ...defaultOptimizer, ...options.optimizer },
    dtype: options.dtype ?? "f32",
    precision: options.precision ?? {},
    remat: options.remat ?? { mode: "none" },
    seed: options.seed ?? 0,
    threads: options.threads ?? 0,
  };
}

/** A run in progress. Iterate over it for its steps; dispose of it with `await using`. */
export class Trainer implements AsyncDisposable {
  /** What the run was opened with, and the defaults of the rest. */
  readonly options: CompleteOptions;
  /** What it runs on. */
  readonly device: DeviceInfo;
  /** The native program: parameters and other states are read and written through it.
   * @internal */
  readonly program: StepProgram;
  /** Where the training data comes from, for people. */
  readonly dataDescription: string;
  readonly #native: Device;
  readonly #loader: Prefetcher;
  readonly #owned: AsyncDisposable;
  #step = 0;
  #tokensSeen = 0;
  #stopped = false;

  private constructor(
    options: CompleteOptions,
    { native, program, loader, owned }: {
      native: Device;
      program: StepProgram;
      loader: Prefetcher;
      owned: AsyncDisposable;
    },
  ) {
    this.options = options;
    this.device = native.info;
    this.program = program;
    this.dataDescription = loader.description;
    this.#native = native;
    this.#loader = loader;
    this.#owned = owned;
  }

  /** Opens data and device, compiles the step while the loader's worker reads, and draws the initial values.
   * @throws {DataError} about data and tokenizer. @throws {LibraryError} when there is no usable library.
   * @throws {MemoryError} when the run does not fit into memory; nothing was allocated for it then. */
  static async open(options: TrainOptions): Promise<Trainer> {
    const full = complete(options), { model, optimizer, dtype, batch, seqLen, accumulation, documents } = full;
    const { validation, lanes, remat } = full;
    await using stack = new AsyncDisposableStack();
    const opening = prefetch({ dataset: full.data, tokenizer: full.tokenizer, batchSize: batch, seqLen, lanes });
    const compiling = attempt(() => {
      const native = stack.use(new Device({ threads: full.threads }));
      const { threads } = native.info, precision = precisionOf(full.precision, dtype, native.info);
      const compiled = compileStep({
        model,
        optimizer,
        dtype,
        batch,
        seqLen,
        accumulation,
        documents,
        evaluate: validation,
        precision,
        remat,
        threads,
      });
      return { native, precision, compiled };
    });
    const loader = stack.use(await opening); // its worker has read and tokenised meanwhile
    checkVocabulary(model, loader.vocabSize);
    const { native, precision, compiled } = compiling();
    checkMemory(compiled, machineMemory());
    const program = stack.use(await StepProgram.load(native, compiled, accumulation));
    await program.initialize(full.seed);
    return new Trainer({ ...full, precision }, { native, program, loader, owned: stack.move() });
  }

  /** The last step that was made. */
  get step(): number {
    return this.#step;
  }

  /** Speed of a large matrix product on this device, of the type that the run multiplies in, in GFLOP/s. */
  measure(): Promise<number> {
    return this.#native.measure({ dtype: precisionOf(this.options.precision, this.options.dtype).param });
  }

  /** Memory bandwidth of this device, in GB/s. */
  measureBandwidth(): Promise<number> {
    return this.#native.measureBandwidth();
  }

  /** Ends the iteration after the step that is under way. */
  stop(): void {
    this.#stopped = true;
  }

  /** The remaining steps, one after another.
   * @throws {DivergedError} when a loss or gradient is not a number. @throws {DataError} when the data cannot be read. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrainStep, void> {
    const { steps, lr: peak, lrSchedule } = this.options;
    while (this.#step < steps && !this.#stopped) {
      const step = this.#step + 1, lr = peak * lrFactor(this.#step, lrSchedule);
      const recorded = this.options.profile?.(step) ?? false;
      if (recorded) await this.program.recordNext();
      const start = performance.now();
      for (const views of this.program.microbatches) await this.#load(views);
      const loaded = performance.now();
      const numbers = await this.program.step(step, lr);
      this.#step = step;
      this.#tokensSeen += numbers.tokenCount;
      const ended = performance.now();
      yield {
        step,
        lr,
        ...numbers,
        tokensSeen: this.#tokensSeen,
        loadingMs: loaded - start,
        nativeMs: ended - loaded,
        ...(recorded ? { profile: this.#profile(step, [start, loaded, ended]) } : {}),
      };
    }
  }

  #profile(step: number, [startMs, calledMs, endMs]: readonly number[]): StepProfile {
    return { step, startMs, calledMs, endMs, instructions: this.program.recorded() };
  }

  async #load(views: BatchViews): Promise<void> {
    put(views, (await this.#loader.next())!);
  }

  /** Loss on the held-out text.
   * @throws {RangeError} when the run was opened without `validation`. */
  async evaluate(): Promise<Evaluation> {
    const { validation, tokenizer } = this.options, views = this.program.evaluation;
    if (!validation || !views) {
      throw new RangeError("Cannot evaluate: the run has no validation data; give the option `validation`");
    }
    const start = performance.now();
    const { data: dataset, batch: batchSize, seqLen, steps } = validation;
    await using loader = await prefetch({ dataset, tokenizer, batchSize, seqLen, infinite: false });
    checkVocabulary(this.options.model, loader.vocabSize);
    const unigrams = new Unigrams(loader.vocabSize);
    let batches = 0;
    for (let batch; batches !== steps && (batch = await loader.next()); batches++) {
      put(views, batch);
      unigrams.add(batch.targets);
      await this.program.evaluate(batches === 0);
    }
    const { loss, tokenCount } = await this.program.evaluated();
    return { loss, tokens: tokenCount, unigramEntropy: unigrams.entropy(), ms: performance.now() - start };
  }

  /** Frees native memory, and ends the loader's worker. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned[Symbol.asyncDispose]();
  }
}

/** Does `make` now, and returns what gives its result or throws what it threw: an error that comes first may be of less use. */
function attempt<T>(make: () => T): () => T {
  try {
    const made = make();
    return () => made;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}

/** Copies a batch to where the program reads it. */
function put(views: BatchViews, batch: Batch): void {
  views.tokens.set(batch.tokens);
  views.targets.set(batch.targets);
  views.positions.set(batch.positions);
  views.documents?.set(batch.documents);
}

/** Ids beyond the embedding's rows must not reach the kernels. */
function checkVocabulary(model: TrainableModel, tokens: number): void {
  const { vocabSize } = model;
  if (vocabSize === undefined || tokens <= vocabSize) return;
  throw new DataError({
    code: "bad_tokenizer",
    what: `The tokenizer has ${tokens} tokens, the model only ${vocabSize}`,
    expected: `a model with a vocabulary of at least ${tokens}`,
    fix: `set model.vocab_size (option vocabSize) to ${tokens}, or choose another tokenizer`,
  });
}

/** Trains: `for await (const { step, loss } of train({ model, data, steps })) ...`. The run is closed when the loop ends.
 * @example
 * ```ts ignore
 * const run = train({ model: llama("debug", { dim: 128, numHeads: 8 }), data: texts("notes/*.md"), steps: 200 });
 * for await (const { step, loss } of run) console.log(step, loss);
 * ``` */
export async function* train(options: TrainOptions): AsyncGenerator<TrainStep, void> {
  await using trainer = await Trainer.open(options);
  yield* trainer;
}
