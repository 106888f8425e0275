/** What text is generated from: weights with their tokenizer, of a checkpoint, a folder, a file of GGUF, or a run under way.
 * @module */
import { SAMPLE } from "../../data/dataset.ts";
import { chatTemplateOf } from "../../data/chat_template.ts";
import { Tokenizer, tokenizerName, tokenizerPath } from "../../data/tokenizer.ts";
import { type GenerativeModel, isGenerative } from "../../model/cache.ts";
import type { TrainableModel } from "../../model/loss.ts";
import { load } from "../checkpoint/load.ts";
import type { ParameterValues } from "../parameters.ts";
import { type ModelSource, openModel } from "../weights/model_source.ts";
import { endIdsOf } from "../weights/tokenizer_files.ts";
import type { ModelWeights } from "./decoder.ts";
import { GenerateError } from "./error.ts";

/** A run between two steps, as `Trainer` is. */
export interface RunUnderWay {
  /** What it was opened with. */
  readonly options: {
    /** What is trained. */
    readonly model: TrainableModel;
    /** Folder of the tokenizer; undefined: the one that comes along. */
    readonly tokenizer?: string | URL;
    /** Tokens of a sequence. */
    readonly seqLen: number;
  };
  /** Its parameters as they stand; on a mesh, all ranks call it at once. */
  parameters(): AsyncIterable<ParameterValues>;
}

/** What text is generated from. */
export interface TextSource extends Omit<ModelSource, "checkpoint" | "family"> {
  readonly weights: ModelWeights;
  /** The model, where the weights do not say it. */
  readonly model?: GenerativeModel;
}

/** Opens weights and tokenizer.
 * @throws {CheckpointError} about weights. @throws {DataError} about the tokenizer. @throws {GenerateError} when the model of a run cannot
 * generate. */
export async function openSource(
  from: string | RunUnderWay,
  options: { readonly tokenizer?: string } = {},
): Promise<TextSource> {
  if (typeof from !== "string") return await sourceOfRun(from, options.tokenizer);
  const { checkpoint: _c, family: _f, ...model } = await openModel(from, options);
  return { ...model, weights: load(from) };
}

async function sourceOfRun(run: RunUnderWay, tokenizer?: string): Promise<TextSource> {
  return { ...await describeRun(run, tokenizer), weights: await weightsOfRun(run) };
}

/** All that text needs of a run but its parameters, which stays as it is while it goes on.
 * @throws {GenerateError} when its model cannot generate. @throws {DataError} about the tokenizer. */
export async function describeRun(
  { options }: Pick<RunUnderWay, "options">,
  other?: string,
): Promise<Omit<TextSource, "weights">> {
  const { model, seqLen } = options, given = other ?? options.tokenizer ?? SAMPLE;
  if (!isGenerative(model)) {
    throw new GenerateError(
      `A ${model.constructor.name} says nothing of the token that comes next`,
      "a model with next(tokens) and vocabSize",
      "give it that method, or train a model that has it",
    );
  }
  const path = tokenizerPath(tokenizerName(given));
  const tokenizer = await Tokenizer.open(given), { eosId, bosId } = tokenizer;
  return {
    ...{ tokenizer, tokenizerPath: path, model },
    chatTemplate: chatTemplateOf(path, tokenizer.files.config),
    addsBos: bosId !== null && (tokenizer.addsBos ?? true),
    endIds: [...new Set([...await endIdsOf(path), ...(eosId === null ? [] : [eosId])])],
    contextLength: seqLen,
  };
}

/** A copy of a run's parameters as they stand; on a mesh, all ranks call it at once. */
export async function weightsOfRun(run: RunUnderWay): Promise<ModelWeights> {
  const values = new Map((await Array.fromAsync(run.parameters())).map((p) => [p.name, p]));
  return {
    path: "the run",
    family: undefined, // the model is there
    tensors: values,
    read: (name) => Promise.resolve(values.get(name)!.values),
  };
}
