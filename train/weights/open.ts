/** Weights to begin from that another program has made: of Hugging Face's form where a folder has `config.json`, under Meta's names where
 * it has `params.json`.
 * @module */
import type { LlamaConfig } from "../../model/llama.ts";
import { openHuggingFace, readHuggingFaceConfig } from "./hugging_face.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { openMeta, PARAMS_FILE, readMetaParams } from "./meta.ts";
import { isFile } from "./weight_files.ts";

const isMeta = (folder: string): boolean => !isFile(`${folder}/config.json`) && isFile(`${folder}/${PARAMS_FILE}`);

/** Does a folder say the sizes of a model in one of these forms? */
export function hasWeights(folder: string): boolean {
  return isFile(`${folder}/config.json`) || isMeta(folder);
}

/** Sizes of the Llama in a folder.
 * @throws {CheckpointError} when it says none, or asks for what a Llama here does not have. */
export function readWeightsConfig(folder: string): LlamaConfig {
  return isMeta(folder) ? readMetaParams(folder) : readHuggingFaceConfig(folder);
}

/** A folder as a checkpoint of parameters alone, under our names.
 * @throws {CheckpointError} when a file or a tensor is missing, or is nothing of a Llama. */
export function openWeights(folder: string): Checkpoint {
  return isMeta(folder) ? openMeta(folder) : openHuggingFace(folder);
}
