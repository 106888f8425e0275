/** A model with all that is needed to write or continue text: weights, sizes, tokenizer, and how long its texts may be.
 * @module */
import { SAMPLE } from "../../data/dataset.ts";
import { isGgufName, readGguf } from "../../data/gguf.ts";
import { chatTemplateOf } from "../../data/chat_template.ts";
import { Tokenizer, tokenizerPath } from "../../data/tokenizer.ts";
import type { Family } from "../../model/loss.ts";
import { familyNames } from "../../model/families.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { familyOf, openFolder } from "../checkpoint/load.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { readSmall } from "../checkpoint/read.ts";
import { STATE_FILE } from "../checkpoint/save.ts";
import { endIdsOf, hasTokenizer } from "./tokenizer_files.ts";
import { ARCHITECTURE } from "./gguf.ts";
import { isFile, readJson } from "./weight_files.ts";

/** A model, and what belongs to it. */
export interface ModelSource {
  readonly checkpoint: Checkpoint;
  readonly family: Family<TransformerSizes>;
  readonly tokenizer: Tokenizer;
  /** Folder of the tokenizer's files, a file of GGUF that has one, or `bytes`. */
  readonly tokenizerPath: string;
  /** The template of its chats, in Jinja; null where there is none. */
  readonly chatTemplate: string | null;
  /** Does its text begin with the token that begins a document? Where the tokenizer does not say: a model that was trained here does. */
  readonly addsBos: boolean;
  /** Tokens that end what it says. */
  readonly endIds: readonly number[];
  /** Tokens of the texts that it was made for; undefined where nothing says so. */
  readonly contextLength: number | undefined;
}

/** Opens a checkpoint, a folder of weights, or a file of GGUF. No tensor is read yet.
 * @param options.tokenizer its folder, in place of the one that belongs to the model.
 * @throws {CheckpointError} about weights. @throws {DataError} about the tokenizer. */
export async function openModel(path: string, options: { readonly tokenizer?: string } = {}): Promise<ModelSource> {
  const checkpoint = openFolder(path), family = familyOf(checkpoint);
  const refuse = (what: string, expected: string, fix: string): never => {
    throw new CheckpointError(`Cannot use ${path}: ${what}`, expected, fix);
  };
  if (!family) return refuse("its model is of no known family", familyNames, "choose a checkpoint of one");
  const place = options.tokenizer ?? tokenizerOf(checkpoint) ??
    refuse("it has no tokenizer, and does not say which it was trained with", "a folder with tokenizer.json", HOW);
  const tokenizer = await Tokenizer.open(place), { vocabSize } = tokenizer;
  if (vocabSize > family.sizes.vocabSize) {
    refuse(
      `the tokenizer ${place} has ${vocabSize} tokens`,
      `no more than the model's ${family.sizes.vocabSize}`,
      HOW,
    );
  }
  const { eosId } = tokenizer, endIds = await endIdsOf(place);
  return {
    ...{ checkpoint, family, tokenizer, tokenizerPath: place },
    chatTemplate: chatTemplateOf(place, tokenizer.files.config),
    addsBos: tokenizer.bosId !== null && (tokenizer.addsBos ?? isOurs(checkpoint)),
    endIds: [...new Set([...endIds, ...(eosId === null ? [] : [eosId])])],
    contextLength: contextLengthOf(checkpoint),
  };
}

const HOW = "name the folder of the model's tokenizer: --tokenizer FOLDER";

/** What is asked of `state.json`. */
interface State {
  readonly seqLen?: number;
  readonly tokenizer?: string | null;
}

function tokenizerOf(checkpoint: Checkpoint): string | undefined {
  const { path } = checkpoint;
  if (!isOurs(checkpoint)) return hasTokenizer(path) ? path : undefined;
  const { tokenizer } = stateOf(checkpoint);
  if (tokenizer === undefined) return undefined; // saved before checkpoints said so
  return tokenizerPath(tokenizer ?? SAMPLE.href);
}

/** Tokens of the texts that a model was made for; undefined where nothing says so. */
export function contextLengthOf(checkpoint: Checkpoint): number | undefined {
  const { path } = checkpoint,
    said = isOurs(checkpoint)
      ? stateOf(checkpoint).seqLen
      : isGgufName(path)
      ? contextLengthOfGguf(path)
      : isFile(`${path}/config.json`)
      ? readJson(`${path}/config.json`).max_position_embeddings
      : undefined;
  return typeof said === "number" && said > 0 ? said : undefined;
}

function contextLengthOfGguf(path: string): unknown {
  const { metadata } = readGguf(path);
  return metadata.get(`${metadata.get(ARCHITECTURE)}.context_length`);
}

const isOurs = ({ manifest }: Checkpoint): boolean => STATE_FILE in manifest.files;

const stateOf = (checkpoint: Checkpoint): State => JSON.parse(readSmall(checkpoint, STATE_FILE));
