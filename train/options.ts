/** What a run is asked for, with its defaults, and what its steps and evaluations have to tell.
 * @module */
import type { ChatOptions } from "../data/chat.ts";
import { type DatasetSpec, isChat, isOwnText, sourcesOf } from "../data/dataset.ts";
import { DataError } from "../data/error.ts";
import type { Packing } from "../data/packing.ts";
import type { CommOptions } from "../ffi/comm.ts";
import type { Precision } from "../graph/passes/precision.ts";
import type { RematPolicy } from "../graph/passes/remat.ts";
import type { RematBudget } from "../graph/passes/remat_search.ts";
import type { TrainableModel } from "../model/loss.ts";
import { degreeOf } from "../graph/layout.ts";
import { BATCH_AXES, type Mesh, type MeshOptions } from "../parallel/mesh.ts";
import type { Saved } from "./checkpoint/checkpoints.ts";
import type { CheckpointOptions } from "./checkpoint/policy.ts";
import type { LrScheduleOptions } from "./lr_schedule.ts";
import type { OptimizerOptions } from "./optimizer.ts";
import type { StepProfile } from "./report/profile.ts";
import type { MeshChoices } from "./ranks.ts";
import type { RealType } from "./step.ts";
import type { DecoderSizes } from "./step_plan.ts";
import type { StepNumbers } from "./step_program.ts";

/** What to train, on what, and how. Everything but model, data and steps has a default. */
export interface TrainOptions {
  /** What is trained: any module with a loss. */
  readonly model: TrainableModel;
  /** What it is trained on. */
  readonly data: DatasetSpec;
  /** Optimizer steps. */
  readonly steps: number;
  /** Folder of the tokenizer, or `bytes`, which needs none; default: the sample's, of 2,048 tokens. */
  readonly tokenizer?: string | URL;
  /** Sequences of a microbatch, on each data rank; default 8. */
  readonly batch?: number;
  /** Microbatches of a step, whose gradients are added; default 1. */
  readonly accumulation?: number;
  /** Tokens of a sequence; default 256. */
  readonly seqLen?: number;
  /** Peak learning rate; default 2e-3. */
  readonly lr?: number;
  /** Shape of the learning rate over the run; default: a tenth of it warm-up, then linear decay over the last half. */
  readonly lrSchedule?: LrScheduleOptions;
  /** AdamW, or a rule of one's own, and clipping; defaults: betas 0.9 and 0.95, eps 1e-8, weight decay 0.1, norm 1. */
  readonly optimizer?: Partial<OptimizerOptions>;
  /** Element type of parameters and activations; default `f32`. */
  readonly dtype?: RealType;
  /** What is multiplied and stored in bf16; default: products take bf16 where the device multiplies it faster than f32. */
  readonly precision?: Partial<Precision>;
  /** What backward makes again to save memory; default: what is nearly free. */
  readonly remat?: RematPolicy | RematBudget;
  /** Does attention stay inside of a document? Default: where positions restart with each (`dataloader.packing`); else it sees the whole
   * row, across documents. */
  readonly documents?: boolean;
  /** Independent streams of documents. Default: 8, or on several data ranks the next multiple of the rows of a microbatch of them all; fewer where
   * text files of one's own are not enough for as many. */
  readonly lanes?: number;
  /** Are documents read in another order in each epoch? Default: yes, but for C4, which is in no order; no: as they lie. */
  readonly shuffle?: boolean;
  /** How data is read. */
  readonly dataloader?: DataloaderOptions;
  /** Seed of the initial values, and of the order of documents; default 0. */
  readonly seed?: number;
  /** What it computes on: `cpu`, the default, `cuda`, a GPU, or `auto`: a GPU where one is found. */
  readonly device?: "auto" | "cpu" | "cuda";
  /** CPU threads; default 0: one per core, as far as the CPU quota keeps them busy, in equal shares for the ranks of a host. */
  readonly threads?: number;
  /** Degrees of the mesh, for processes that `mpirun` started: an absent axis is 1, an absent `dp_shard` what the others leave. */
  readonly mesh?: MeshOptions;
  /** How the model is spread over the mesh. */
  readonly parallelism?: MeshChoices;
  /** How ranks find each other, and how long they wait. */
  readonly comm?: CommOptions;
  /** What ranks compare before they train together, as JSON; default: all of these options that are plain data. */
  readonly agreed?: Readonly<Record<string, unknown>>;
  /** Where the run is saved, and goes on from. Default: nowhere. */
  readonly checkpoint?: CheckpointOptions;
  /** Held-out text for `evaluate`. */
  readonly validation?: ValidationOptions;
  /** Room for text that the model generates between steps, by the trainer's `decoder`. Default: none. */
  readonly generate?: DecoderSizes;
  /** Is this step, counted from 1, to be recorded? It then comes with its `profile`. Default: none is, which costs nothing. */
  readonly profile?: (step: number) => boolean;
  /** Receives what is worth knowing while the run goes on: that the text is read again. Default: it is printed. */
  readonly notice?: (text: string) => void;
}

/** How data is read. */
export interface DataloaderOptions {
  /** Threads that read and tokenise on each rank, each lanes of its own; default 1. */
  readonly workers?: number;
  /** Batches that are ready beside the one in use; default 3. */
  readonly ahead?: number;
  /** Documents of a shard that are shuffled together; default: 0 of C4, of which nothing is shuffled then, and 1,024 of files. */
  readonly shuffleWindow?: number;
  /** The largest document, in bytes of text; default 256 MiB. */
  readonly maxDocumentBytes?: number;
  /** Are documents that cannot be used counted and left out? Default: they are an error. */
  readonly skipBad?: boolean;
  /** How documents become rows; default: `windows`, but of conversations `best-fit`. */
  readonly packing?: Packing;
  /** How conversations are read. */
  readonly chat?: ChatOptions;
}

/** What `evaluate` runs on. */
export interface ValidationOptions {
  /** The text. Default, for text files: a share of their documents that is not trained on then, the same one whatever the seed. */
  readonly data?: DatasetSpec;
  /** Sequences of a batch, on each data rank. */
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
  /** Largest of the ranks' mean losses, each over the valid tokens that the rank alone has seen. */
  readonly maxLoss: number;
  /** Learning rate of the step. */
  readonly lr: number;
  /** Tokens seen since the start. */
  readonly tokensSeen: number;
  /** How often the text has been read: of the streams of documents, the slowest counts. Of text files with a fraction, else only how
   * often all of it has. */
  readonly epoch: number;
  /** The same of each source of a mixture, by its name. */
  readonly epochs: Readonly<Record<string, number>>;
  /** Documents that were left out since the run was opened, as they could not be used, on all ranks. */
  readonly skippedDocuments: number;
  /** Conversations that were cut since the run was opened, as they were longer than a row, on all ranks. */
  readonly cutDocuments: number;
  /** Share of the step's places that no document takes. */
  readonly padding: number;
  /** Wait for the data, in milliseconds. */
  readonly loadingMs: number;
  /** Time in the native call, in milliseconds. */
  readonly nativeMs: number;
  /** Where the time went, if the step was to be recorded. */
  readonly profile?: StepProfile;
  /** The checkpoints that were completed since the step before, or failed. */
  readonly saved: readonly Saved[];
}

/** What an evaluation has to tell. */
export interface Evaluation {
  /** Mean loss over the tokens, in nats. */
  readonly loss: number;
  /** Number of those tokens. */
  readonly tokens: number;
  /** Bytes of their text; 0 where that is not known. */
  readonly bytes: number;
  /** Entropy of the same tokens' frequencies, in nats: what a model reaches that knows nothing but them. */
  readonly unigramEntropy: number;
  /** How long it took. */
  readonly ms: number;
}

const defaultOptimizer: OptimizerOptions = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };

/** Options with nothing left open. */
export type CompleteOptions =
  & TrainOptions
  & Required<
    Omit<
      TrainOptions,
      "tokenizer" | "lanes" | "validation" | "generate" | "profile" | "notice" | "agreed" | "checkpoint"
    >
  >
  & {
    readonly optimizer: OptimizerOptions;
    readonly validation?: ValidationOptions & { readonly data: DatasetSpec };
  };

/** Fills in defaults.
 * @throws {DataError} when there is no text to validate with. */
export function complete(options: TrainOptions): CompleteOptions {
  const { steps } = options, apart = tellsApart(options);
  if (apart && options.documents === false) {
    throw new DataError({
      code: "bad_option",
      what: "Cannot let attention see across documents whose positions restart",
      expected: "documents: true where packing is documents or best-fit, as it is of conversations",
      fix: "leave documents out",
    });
  }
  return {
    ...options,
    ...heldOut(options),
    batch: options.batch ?? 8,
    accumulation: options.accumulation ?? 1,
    documents: options.documents ?? apart,
    seqLen: options.seqLen ?? 256,
    lr: options.lr ?? 2e-3,
    lrSchedule: options.lrSchedule ??
      { warmupSteps: Math.ceil(steps / 10), totalSteps: steps, decayRatio: 0.5, decayType: "linear", minLrFactor: 0 },
    optimizer: { ...defaultOptimizer, ...options.optimizer },
    dtype: options.dtype ?? "f32",
    precision: options.precision ?? {},
    remat: options.remat ?? { mode: "none" },
    shuffle: options.shuffle ?? true,
    dataloader: options.dataloader ?? {},
    seed: options.seed ?? 0,
    device: options.device ?? "cpu",
    threads: options.threads ?? 0,
    mesh: options.mesh ?? {},
    parallelism: options.parallelism ?? {},
    comm: options.comm ?? {},
  };
}

/** Do positions restart with each document? */
function tellsApart({ data, dataloader: { packing } = {} }: TrainOptions): boolean {
  return packing === undefined ? sourcesOf(data).some((source) => isChat(source.data)) : packing !== "windows";
}

/** What is trained on, and what is held out: where no other text is named for that, a share of one's own. */
function heldOut(
  { data, validation }: TrainOptions,
): { data: DatasetSpec; validation: CompleteOptions["validation"] } {
  if (!validation) return { data, validation };
  if (validation.data) return { data, validation: { ...validation, data: validation.data } };
  if (isOwnText(data)) {
    return { data: { ...data, part: "training" }, validation: { ...validation, data: { ...data, part: "held-out" } } };
  }
  throw new DataError({
    code: "bad_option",
    what: "Cannot validate: no text is named for it",
    expected: "validation.data, or text files to train on, of which a share is held out",
    fix: 'give it, such as { name: "c4_validation" }',
  });
}

/** Tokens of a whole step, over all ranks of a mesh. */
export function tokensPerStep({ batch, accumulation, seqLen }: CompleteOptions, mesh?: Mesh): number {
  return batch * accumulation * seqLen * (mesh ? degreeOf(BATCH_AXES, mesh.degrees) : 1);
}
