/** Weights to begin from that another program has made: of Hugging Face's form where a folder has `config.json`, under Meta's names where
 * it has `params.json`; or a file of GGUF.
 * @module */
import { isGgufName } from "../../data/gguf.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { openHuggingFace, readHuggingFaceConfig } from "./hugging_face.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { openGguf, readGgufConfig } from "./gguf.ts";
import { openMeta, PARAMS_FILE, readMetaParams } from "./meta.ts";
import { isFile } from "./weight_files.ts";

const isMeta = (folder: string): boolean => !isFile(`${folder}/config.json`) && isFile(`${folder}/${PARAMS_FILE}`);

const isGguf = (path: string): boolean => isGgufName(path) && isFile(path);

/** Does a folder, or a file, say the sizes of a model in one of these forms? */
export function hasWeights(path: string): boolean {
  return isGguf(path) || isFile(`${path}/config.json`) || isMeta(path);
}

/** Family and sizes of the model in a folder or a file.
 * @throws {CheckpointError} when it says none, or asks for what models here do not have. */
export function readWeightsConfig(path: string): Family<TransformerSizes> {
  if (isGguf(path)) return readGgufConfig(path);
  return isMeta(path) ? readMetaParams(path) : readHuggingFaceConfig(path);
}

/** A folder or a file as a checkpoint of parameters alone, under our names.
 * @throws {CheckpointError} when a file or a tensor is missing, or is nothing of the family. */
export function openWeights(path: string): Checkpoint {
  if (isGguf(path)) return openGguf(path);
  return isMeta(path) ? openMeta(path) : openHuggingFace(path);
}
