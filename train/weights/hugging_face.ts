/** Folders of models as Hugging Face's `transformers` writes them: `config.json`, and safetensors files, one or several with
 * an index. Names differ from ours, and rows that RoPE turns lie in another order: there it turns the halves of a head, here pairs
 * of neighbours. Row `2i + j` of a head here is row `j size/2 + i` there.
 * @module */
import type { RopeScaling } from "../../model/attention.ts";
import { families, familyNamed } from "../../model/families.ts";
import type { ModelFamily } from "../../model/family.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import type { Checkpoint, SavedPiece } from "../checkpoint/manifest.ts";
import { readHeader } from "./safetensors.ts";
import { checkpointOf, isFile, readJson, SizesFile } from "./weight_files.ts";

/** Family and sizes that a folder's `config.json` gives.
 * @throws {CheckpointError} when it is missing, is of no known family, or asks for what models here do not have. */
export function readHuggingFaceConfig(folder: string): Family<TransformerSizes> {
  const file = new SizesFile(`${folder}/config.json`), family = familyOf(file);
  return { name: family.name, sizes: sizesOf(file, family) };
}

function familyOf(file: SizesFile): ModelFamily {
  const family = families.find((f) => f.huggingFace.name === file.json.model_type);
  const known = families.map((f) => JSON.stringify(f.huggingFace.name)).join(" or ");
  return family ?? file.refuse(file.shown("model_type"), known);
}

function sizesOf(file: SizesFile, { huggingFace }: ModelFamily): TransformerSizes {
  const { json } = file;
  for (const [key, values] of Object.entries(huggingFace.assumed)) {
    if (values.includes(json[key] ?? values[0])) continue;
    file.refuse(file.shown(key), `${values.map((value) => JSON.stringify(value)).join(" or ")}, as in models here`);
  }
  // Since version 5 of transformers both lie in `rope_parameters`.
  const rope = (json.rope_parameters ?? json.rope_scaling ?? {}) as Record<string, unknown>;
  const dim = file.count("hidden_size"), numHeads = file.count("num_attention_heads");
  return file.checked({
    dim,
    numHeads,
    numLayers: file.count("num_hidden_layers"),
    numKvHeads: file.count("num_key_value_heads", numHeads),
    headDim: file.number("head_dim", dim / numHeads),
    vocabSize: file.count("vocab_size"),
    ffnHiddenDim: file.count("intermediate_size"),
    normEps: file.number("rms_norm_eps", 1e-6),
    ropeTheta: file.number("rope_theta", file.number("rope_theta", 10000), rope),
    ropeScaling: ropeScaling(file, rope, huggingFace.ropeScaling),
    tiedEmbeddings: json.tie_word_embeddings === true,
  });
}

function ropeScaling(
  file: SizesFile,
  rope: Readonly<Record<string, unknown>>,
  known: string,
): RopeScaling | null {
  const kind = rope.rope_type ?? rope.type ?? "default", part = rope.partial_rotary_factor ?? 1;
  if (part !== 1) file.refuse(`partial_rotary_factor is ${JSON.stringify(part)}`, "1, as in models here");
  if (kind === "default") return null;
  if (kind !== known) file.refuse(`rope_type is ${JSON.stringify(kind)}`, `"default" or ${JSON.stringify(known)}`);
  return {
    factor: file.number("factor", undefined, rope),
    lowFreqFactor: file.number("low_freq_factor", undefined, rope),
    highFreqFactor: file.number("high_freq_factor", undefined, rope),
    originalContext: file.number("original_max_position_embeddings", undefined, rope),
  };
}

/** A folder as a checkpoint of parameters alone, under our names.
 * @throws {CheckpointError} when a file or a tensor is missing, or is nothing of the family. */
export function openHuggingFace(folder: string): Checkpoint {
  const { name, sizes } = readHuggingFaceConfig(folder), family = familyNamed(name);
  return checkpointOf({
    folder,
    sizes,
    files: weightFiles(folder),
    names: family.huggingFace.names(sizes),
    // With tied embeddings some save the one table under both names.
    derived: sizes.tiedEmbeddings ? /rotary_emb\.inv_freq$|^lm_head\.weight$/ : /rotary_emb\.inv_freq$/,
    piecesOf: (ours, whole, bytes) => {
      const isTurned = whole.sizes.length === 2 && family.hasTurnedRows(ours);
      return isTurned ? rowsInPairs(whole, sizes.headDim, bytes) : [whole];
    },
  });
}

/** Where a row that RoPE turns lies there. */
export function rowThere(row: number, headDim: number): number {
  const within = row % headDim;
  return row - within + within % 2 * headDim / 2 + Math.floor(within / 2);
}

/** The rows of heads, each by itself. */
function rowsInPairs(whole: SavedPiece, headDim: number, bytes: number): SavedPiece[] {
  const { begin, sizes: [rows, width] } = whole;
  return Array.from({ length: rows }, (_, row) => ({
    ...whole,
    begin: begin + rowThere(row, headDim) * width * bytes,
    starts: [row, 0],
    sizes: [1, width],
  }));
}

/** Which file of a folder has which tensor. */
function weightFiles(folder: string): Map<string, string> {
  const index = `${folder}/model.safetensors.index.json`, single = "model.safetensors";
  if (isFile(index)) {
    const { weight_map: files } = readJson(index);
    if (typeof files === "object" && files !== null) return new Map(Object.entries(files));
    throw new CheckpointError(
      `Cannot use ${index}: weight_map is ${JSON.stringify(files)}`,
      "the file of each tensor",
      "fetch the folder again",
    );
  }
  if (isFile(`${folder}/${single}`)) {
    return new Map([...readHeader(`${folder}/${single}`).tensors.keys()].map((name) => [name, single]));
  }
  const pickled = isFile(`${folder}/pytorch_model.bin`) || isFile(`${folder}/pytorch_model.bin.index.json`);
  throw new CheckpointError(
    `Cannot use ${folder}: there is no ${single}, and no index of several`,
    `weights in safetensors${pickled ? ": pytorch_model.bin is a pickle, which runs whatever code it holds" : ""}`,
    "fetch the model's safetensors files, or save it by save_pretrained",
  );
}
