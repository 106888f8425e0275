/** Trains a model: batches from the loader, one native call a step, results as they come. The command line and one-file
 * experiments run on this one class.
 * @module */
import { DataError } from "../data/error.ts";
import { SAMPLE, Unigrams } from "../data/dataset.ts";
import { makeBatch } from "../data/batch.ts";
import { NO_DOCUMENT } from "../data/packing.ts";
import { mergeStates } from "../data/loader_state.ts";
import { prefetch, type Prefetcher, type PrefetchListener } from "../data/prefetch.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { Device, type DeviceInfo, type DeviceOptions, type ProcessMemory } from "../ffi/device.ts";
import { library } from "../ffi/library.ts";
import { ABI_VERSION } from "../ffi/symbols.ts";
import type { DType } from "../graph/ir.ts";
import { LayoutError } from "../graph/layout.ts";
import { targetOf } from "../graph/target/cuda.ts";
import type { TrainableModel } from "../model/loss.ts";
import { isLaunched, worldOf } from "../launch/world.ts";
import { BATCH_AXES, Mesh, stepProblems } from "../parallel/mesh.ts";
import { agree } from "./agreement.ts";
import { BatchPart } from "./batch_part.ts";
import { type BeginOptions, Checkpoints, runState, type Saved, type Start } from "./checkpoint/checkpoints.ts";
import { saveCheckpoint, type Saving } from "./checkpoint/save.ts";
import { Staging } from "./checkpoint/staging.ts";
import type { Decoder } from "./generate/decoder.ts";
import { lrFactor } from "./lr_schedule.ts";
import { checkMemory, withStagingThatFits } from "./machine_memory.ts";
import {
  complete,
  type CompleteOptions,
  type Evaluation,
  tokensPerStep,
  type TrainOptions,
  type TrainStep,
} from "./options.ts";
import type { StepProfile } from "./report/profile.ts";
import { type ParameterValues, readWhole } from "./parameters.ts";
import { precisionOf } from "./precision.ts";
import { ProcessGroup } from "./process_group.ts";
import { dataRankOf, type MeshLayout } from "./ranks.ts";
import { compileStep } from "./step_plan.ts";
import { StepProgram } from "./step_program.ts";

/** What a trainer is made of. */
interface Opened {
  readonly native: Device;
  readonly program: StepProgram;
  readonly loader: Prefetcher;
  readonly ranks: MeshLayout | undefined;
  readonly group: ProcessGroup | undefined;
  readonly checkpoints: Checkpoints | undefined;
  readonly owned: AsyncDisposable;
}

/** What ranks have told each other behind a step. */
interface Told {
  readonly maxLoss: number;
  readonly epochs: readonly number[];
  readonly counts: Counts;
}

/** What a rank counts of its data: documents left out, those cut, and places of padding in a step. */
type Counts = readonly [skipped: number, cut: number, padding: number];

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
  /** Number of documents of one's own text, of which steps tell the epoch with a fraction; undefined: it is not known. */
  readonly documents: number | undefined;
  /** Mesh and rank; `undefined` for a process alone. */
  readonly ranks: MeshLayout | undefined;
  /** The processes of the run; `undefined` for one alone.
   * @internal */
  readonly group: ProcessGroup | undefined;
  readonly #checkpoints: Checkpoints | undefined;
  readonly #native: Device;
  readonly #loader: Prefetcher;
  readonly #part: BatchPart;
  #staging: Staging | undefined;
  #decoder: Decoder | undefined;
  #tokenizer: Tokenizer | undefined;
  readonly #owned: AsyncDisposable;
  #step = 0;
  #tokensSeen = 0;
  /** Complete passes over each source. */
  #epochs: readonly number[];
  #unsaved: unknown;
  #stopping = false;
  #stopped = false;

  private constructor(options: CompleteOptions, opened: Opened) {
    const { native, program, loader, ranks, group, checkpoints, owned } = opened;
    this.options = options;
    this.device = native.info;
    this.program = program;
    this.dataDescription = loader.description;
    this.documents = loader.documents;
    this.ranks = ranks;
    this.group = group;
    this.#checkpoints = checkpoints;
    [this.#step, this.#tokensSeen] = [this.start?.step ?? 0, this.start?.tokensSeen ?? 0];
    this.#native = native;
    this.#loader = loader;
    this.#epochs = loader.sources.map((_, source) =>
      Math.min(...this.start?.loader?.lanes.map(({ cursors }) => cursors[source].epoch) ?? [0])
    );
    this.#part = new BatchPart(options.seqLen, ranks);
    this.#owned = owned;
  }

  /** Opens data and device, joins the other ranks, compiles the step while the loader's worker reads, and draws the initial values.
   * @throws {DataError} about data and tokenizer. @throws {LibraryError} when there is no usable library.
   * @throws {RangeError} when mesh, ranks, sizes and model do not fit together. @throws {AgreementError} when ranks were not started alike.
   * @throws {MemoryError} when the run does not fit into memory; nothing was allocated for it then. */
  static async open(options: TrainOptions): Promise<Trainer> {
    const full = complete(options), { dtype, batch, seqLen, accumulation, lanes } = full, ranks = ranksOf(full);
    const share = ranks && dataRankOf(ranks.mesh, ranks.rank);
    const checkpoints = full.checkpoint && new Checkpoints(full.checkpoint, {
      rank: ranks?.rank,
      tell: full.notice,
      tokenizer: full.tokenizer,
    });
    const start = checkpoints?.start;
    let group: ProcessGroup | undefined;
    await using stack = new AsyncDisposableStack();
    try {
      const data = {
        dataset: full.data,
        tokenizer: full.tokenizer,
        batchSize: batch,
        seqLen,
        lanes,
        ...full.dataloader,
      };
      const shuffle = full.shuffle ? full.seed : undefined, listener = { notice: full.notice ?? console.log };
      const opening = prefetch({ ...data, ...share, shuffle, state: start?.loader }, listener),
        checking = checkValidation(full);
      const checked = checking.catch(() => {}); // it is awaited below, behind what is of more use
      stack.defer(() => checked);
      const compiling = attempt(() => {
        const native = stack.use(new Device(deviceOptions(full)));
        const joining = ranks && ProcessGroup.open(native, { rank: ranks.rank, size: ranks.mesh.size }, full.comm);
        joining?.catch(() => {}); // awaited below, behind what may fail before
        const { threads } = native.info, precision = precisionOf(full.precision, dtype, native.info);
        const target = targetOf(native.info, precision), on = { precision, threads, ranks, target };
        const compiled = compileStep({ ...full, ...on, evaluate: full.validation });
        return { native, joining, precision, compiled };
      });
      const loader = stack.use(
        await opening.catch((error) => {
          // What the worker had no memory for, the run has none for either, and can say so better.
          if (!(error instanceof DataError)) {
            const { native, compiled } = compiling();
            checkMemory(compiled, native.memory());
          }
          throw error;
        }),
      ); // its worker has read and tokenised meanwhile
      if (loader.lanesCost !== undefined && (ranks?.rank ?? 0) === 0) listener.notice(loader.lanesCost);
      checkVocabulary(full.model, loader.vocabSize);
      await checking;
      const { native, joining, precision, compiled: planned } = compiling();
      group = stack.use(await joining);
      if (group) {
        await agree(group, { ...factsOf(full), "device.kind": native.info.kind, checkpoint: start?.path ?? "none" });
      }
      const memory = native.memory(), compiled = withStagingThatFits(planned, memory);
      checkMemory(compiled, memory);
      const program = stack.use(await StepProgram.load(native, compiled, accumulation));
      await program.initialize(full.seed);
      await checkpoints?.load((kinds) => program.lasting(kinds));
      if (checkpoints) stack.use(checkpoints);
      const opened = { native, program, loader, ranks, group, checkpoints, owned: stack.move() };
      return new Trainer({ ...full, precision }, opened);
    } catch (error) {
      group?.fail(error);
      throw error;
    }
  }

  /** The checkpoint that the run goes on from; `undefined` where it begins anew. */
  get start(): Start | undefined {
    return this.#checkpoints?.start;
  }

  /** The checkpoint that this run completed last. */
  get saved(): Saved | undefined {
    return this.#checkpoints?.saved;
  }

  /** All checkpoints of this run that were completed, or failed, in their order. */
  get saves(): readonly Saved[] {
    return this.#checkpoints?.saves ?? [];
  }

  /** The last step that was made. */
  get step(): number {
    return this.#step;
  }

  /** Has the iteration ended, or is it about to, since a rank asked for it? */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Reads tokens and tells what may come next, with the parameters as they stand between two steps. What it keeps of tokens is of the
   * parameters that read them: truncate to 0 after a step. With other ranks, all of them make the same calls.
   * @throws {RangeError} when the run was opened without `generate`. */
  get decoder(): Decoder {
    const { generate, model } = this.options;
    if (!generate) {
      throw new RangeError(
        "Cannot generate: the run has no room for it\n  expected: generate: { sequences, maxLength }\n  fix: open it with that",
      );
    }
    return this.#decoder ??= this.program.decoder({ ...generate, vocabSize: model.vocabSize! });
  }

  /** Speed of a large matrix product on this device, of the type that the run multiplies in, in GFLOP/s. */
  measure(): Promise<number> {
    return this.#native.measure({ dtype: precisionOf(this.options.precision, this.options.dtype).param });
  }

  /** Memory that there is for this process now. */
  memory(): ProcessMemory {
    return this.#native.memory();
  }

  /** Memory bandwidth of this device, in GB/s. */
  measureBandwidth(): Promise<number> {
    return this.#native.measureBandwidth();
  }

  /** Ends the iteration after the step that is under way, or the next one, as the ranks agree: any of them may ask for it. */
  stop(): void {
    this.#stopping = true;
    if (!this.group) this.#stopped = true;
  }

  /** The remaining steps, one after another.
   * @throws {DivergedError} when a loss or gradient is not a number. @throws {DataError} when the data cannot be read. */
  async *[Symbol.asyncIterator](): AsyncGenerator<TrainStep, void> {
    while (this.#step < this.options.steps && !this.#stopped) {
      yield await this.#guarded(() => this.#next());
      if (this.#unsaved) await this.#guarded(() => Promise.reject(this.#unsaved)); // behind what the step has to tell
    }
    if (this.#stopped) await this.#guarded(() => this.#saveIfDue(true));
  }

  async #next(): Promise<TrainStep> {
    const { lr: peak, lrSchedule } = this.options;
    const step = this.#step + 1, lr = peak * lrFactor(this.#step - (this.start?.scheduleFrom ?? 0), lrSchedule);
    const recorded = this.options.profile?.(step) ?? false;
    if (recorded) {
      await this.#checkpoints?.beforeUpdate?.(); // a step that is recorded is one native call
      await this.program.recordNext();
    }
    const start = performance.now();
    let [read, skipped, cut, padding] = [this.#epochs, 0, 0, 0];
    for (const views of this.program.microbatches) {
      const batch = (await this.#loader.next())!;
      this.#part.put(views, batch);
      [read, skipped, cut] = [batch.epochs, batch.skipped, batch.cut];
      for (const document of batch.documents) if (document === NO_DOCUMENT) padding++;
    }
    const loaded = performance.now();
    const numbers = await this.program.step(step, lr, {
      optimizerStep: step - (this.start?.optimizerFrom ?? 0),
      beforeUpdate: this.#checkpoints?.beforeUpdate,
    });
    this.#step = step;
    this.#tokensSeen += numbers.tokenCount;
    const ended = performance.now(), told = await this.#agree(numbers.loss, read, [skipped, cut, padding]);
    this.#count(told.epochs);
    const before = this.saves.length;
    await this.#saveIfDue(false).catch((error) => this.#unsaved = error);
    return {
      step,
      lr,
      ...numbers,
      maxLoss: told.maxLoss,
      tokensSeen: this.#tokensSeen,
      epoch: Math.min(...told.epochs),
      epochs: Object.fromEntries(this.#loader.sources.map((name, source) => [name, told.epochs[source]])),
      skippedDocuments: told.counts[0],
      cutDocuments: told.counts[1],
      padding: told.counts[2] / tokensPerStep(this.options, this.ranks?.mesh),
      loadingMs: loaded - start,
      nativeMs: ended - loaded,
      ...(recorded ? { profile: this.#profile(step, [start, loaded, ended]) } : {}),
      saved: this.saves.slice(before),
    };
  }

  /** Saves the run as it stands behind the last step, and waits for it; with other ranks, all of them call it.
   * @param path folder of the checkpoint; an older one there is replaced. @param content parameters alone, or all; default all.
   * @param dtype element type of what is written; default: that of each value, without which a run does not go on bit for bit.
   * @throws {CheckpointError} when it cannot be written; the run may go on. */
  async save(path: string, content: Saved["content"] = "full", dtype?: DType | "f16"): Promise<Saved> {
    await this.#checkpoints?.finish();
    const begun = performance.now(), { done } = await this.#begin(path, { content, dtype }), bytes = await done;
    const ms = performance.now() - begun;
    return { path, content, bytes, ms, stallMs: ms };
  }

  /** The model's parameters as they stand between two steps, whole, one after another; with other ranks, all of them call it.
   * @example
   * ```ts ignore
   * for await (const { name, shape, values } of trainer.parameters()) console.log(name, shape, values[0]);
   * ``` */
  parameters(): AsyncGenerator<ParameterValues> {
    const { group, program } = this;
    return readWhole(program.lasting(["parameter"]), group && ((mine) => group.comm.gather(mine)));
  }

  async #begin(path: string, what: BeginOptions): Promise<Saving> {
    const { group } = this, kinds = what.content === "model" ? ["parameter"] as const : undefined;
    const own = this.#loader.state(), loader = mergeStates(group ? await group.exchangeJson(own) : [own]);
    const { options, ranks, program, start } = this, step = this.#step;
    const state = runState({ ...options, step, tokensSeen: this.#tokensSeen, loader, ranks, start });
    this.#staging ??= new Staging(program.compiled.host.stagingBytes || undefined);
    const staging = this.#staging;
    return await saveCheckpoint(path, program.lasting(kinds), { ...what, step, state, staging, group });
  }

  async #saveIfDue(stopping: boolean): Promise<void> {
    const place = { step: this.#step, last: this.#step === this.options.steps, stopping };
    await this.#checkpoints?.after(place, (...what) => this.#begin(...what), this.group);
  }

  /** Tells once a pass that the text, or that of a source, is read again, on the first rank. */
  #count(read: readonly number[]): void {
    const { notice = console.log } = this.options, { sources } = this.#loader;
    read.forEach((passes, source) => {
      const epoch = Math.floor(passes), what = sources.length === 1 ? "the text" : sources[source];
      if (epoch > this.#epochs[source] && (this.ranks?.rank ?? 0) === 0) {
        notice(`epoch ${epoch + 1}: all of ${what} has been read by step ${this.#step}, and is read again`);
      }
    });
    this.#epochs = read.map(Math.floor);
  }

  /** What ranks tell each other behind a step: whether to stop, their own losses, of which it returns the largest, the passes that they
   * have made over each source, of which it returns the fewest, and what they have counted of the data, of which it returns the sums.
   * What is saved meanwhile goes on when all ranks have come as far. */
  async #agree(loss: number, epochs: readonly number[], own: Counts): Promise<Told> {
    if (!this.group || !this.ranks) return { maxLoss: loss, epochs, counts: own };
    const isReady = this.#checkpoints?.isReady ?? false, { mesh, rank } = this.ranks;
    const counts = mesh.group(rank, BATCH_AXES.flatMap((axis) => mesh.factorsOf(axis))).includes(0); // others read the same
    const mine = [
      this.#stopping ? 1 : 0,
      await this.program.ownLoss(),
      isReady ? 1 : 0,
      ...own.map((count) => counts ? count : 0),
      ...epochs,
    ];
    const all = await this.group.exchange(mine), fewest = epochs.map(() => Infinity);
    const sums: [number, number, number] = [0, 0, 0];
    let [maxLoss, ready] = [-Infinity, true];
    for (let i = 0; i < all.length; i += mine.length) {
      this.#stopped ||= all[i] > 0;
      if (all[i + 1] > maxLoss) maxLoss = all[i + 1]; // not a number where all of a rank's tokens are ignored
      ready &&= all[i + 2] > 0;
      sums.forEach((_, n) => sums[n] += all[i + 3 + n]);
      fewest.forEach((few, source) => fewest[source] = Math.min(few, all[i + 3 + sums.length + source]));
    }
    if (ready) await this.#checkpoints?.hold();
    return { maxLoss, epochs: fewest, counts: sums };
  }

  /** Does what ranks do together; one that fails does not wait for the others when it is disposed of. */
  async #guarded<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      this.group?.fail(error);
      throw error;
    }
  }

  #profile(step: number, [startMs, calledMs, endMs]: readonly number[]): StepProfile {
    return { step, startMs, calledMs, endMs, instructions: this.program.recorded() };
  }

  /** Loss on the held-out text.
   * @throws {RangeError} when the run was opened without `validation`. */
  evaluate(): Promise<Evaluation> {
    return this.#guarded(() => this.#evaluate());
  }

  async #evaluate(): Promise<Evaluation> {
    const { validation } = this.options, views = this.program.evaluation;
    if (!validation || !views) {
      throw new RangeError("Cannot evaluate: the run has no validation data; give the option `validation`");
    }
    const start = performance.now(), { seqLen, steps } = validation, part = new BatchPart(seqLen, this.ranks);
    const share = this.ranks && dataRankOf(this.ranks.mesh, this.ranks.rank);
    await using loader = await prefetch(
      { ...wholeText({ ...this.options, validation }), ...share },
      ofValidation(this.options),
    );
    const unigrams = new Unigrams(loader.vocabSize), nothing = makeBatch(validation.batch, seqLen);
    let batches = 0;
    for (; batches !== steps; batches++) {
      const batch = await loader.next();
      if (!await this.#hasAny(batch !== undefined)) break;
      part.put(views, batch ?? nothing); // others may have more
      unigrams.add((batch ?? nothing).targets);
      await this.program.evaluate(batches === 0);
    }
    const { loss, tokenCount } = await this.program.evaluated();
    await this.#addUnigrams(unigrams);
    this.#tokenizer ??= await Tokenizer.open(this.options.tokenizer ?? SAMPLE);
    const isItsText = this.#tokenizer.vocabSize === loader.vocabSize; // files of tokens may come without their tokenizer
    const bytes = isItsText ? this.#tokenizer.textBytes(unigrams.counts) : 0;
    return { loss, tokens: tokenCount, bytes, unigramEntropy: unigrams.entropy(), ms: performance.now() - start };
  }

  /** Does any rank have a batch? */
  async #hasAny(mine: boolean): Promise<boolean> {
    return this.group ? (await this.group.exchange([mine ? 1 : 0])).some((has) => has > 0) : mine;
  }

  /** Adds what the other data ranks have counted. */
  async #addUnigrams(unigrams: Unigrams): Promise<void> {
    if (!this.group || !this.ranks) return;
    const { mesh, rank } = this.ranks, { length } = unigrams.counts, all = await this.group.exchange(unigrams.counts);
    for (
      const other of mesh.group(rank, BATCH_AXES.flatMap((axis) => mesh.factorsOf(axis))).filter((r) => r !== rank)
    ) {
      unigrams.addCounts(all.subarray(other * length, (other + 1) * length));
    }
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

/** The mesh of a run and this process's rank in it; `undefined` for one process alone.
 * @throws {RangeError} when degrees, processes and sizes do not fit together. */
function ranksOf({ mesh: degrees, parallelism, batch, seqLen, validation }: CompleteOptions): MeshLayout | undefined {
  const place = worldOf(), mesh = new Mesh(degrees, place?.size ?? 1);
  if (!place || place.size === 1) return;
  const problems = [seqLen, ...(validation ? [validation.seqLen] : [])].flatMap((tokens) =>
    stepProblems(mesh, { seqLen: tokens, localBatchSize: batch, globalBatchSize: -1 })
  );
  if (problems.length > 0) throw new LayoutError(problems.join("\n"));
  return { ...parallelism, mesh, rank: place.rank };
}

/** What this process's device takes of a machine that it may share with other ranks, to each of which their launcher may have given
 * processors of its own. Of a machine's GPUs each rank has one. */
export function deviceOptions({ device: kind, threads }: Pick<TrainOptions, "device" | "threads">): DeviceOptions {
  const world = worldOf();
  return { kind, ordinal: world?.hostRank, threads, hostSize: world?.hostSize, placed: !isLaunched() };
}

/** What has to be the same on all ranks of a run. */
function factsOf({ model: _, comm: _comm, agreed, ...options }: CompleteOptions): Record<string, unknown> {
  return { library: `${library().version}, ABI version ${ABI_VERSION}`, ...agreed ?? options };
}

type Validation = NonNullable<CompleteOptions["validation"]>;

/** The held-out text once, from its beginning. */
function wholeText({ validation, tokenizer, dataloader }: CompleteOptions & { validation: Validation }) {
  const { data: dataset, batch: batchSize, seqLen } = validation,
    { maxDocumentBytes, skipBad, packing, chat } = dataloader;
  return { dataset, tokenizer, batchSize, seqLen, infinite: false, maxDocumentBytes, skipBad, packing, chat };
}

/** Tells, of the held-out text, what it is that is waited for. */
function ofValidation({ notice = console.log }: CompleteOptions): PrefetchListener {
  return { waiting: (text) => notice(`validation: ${text}`) };
}

/** Reads the first row of the held-out text, so that what is wrong with it is told before the first step. */
async function checkValidation(options: CompleteOptions): Promise<void> {
  if (!options.validation) return;
  const validation = { ...options.validation, batch: 1 };
  try {
    await using _loader = await prefetch({ ...wholeText({ ...options, validation }), ahead: 1 }, ofValidation(options));
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    const { what, ...problem } = error.problem;
    throw new DataError({ ...problem, what: `Validation: ${what}` }, { cause: error });
  }
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
