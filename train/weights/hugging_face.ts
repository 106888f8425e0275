/** Folders of Llama models as Hugging Face's `transformers` writes them: `config.json`, and safetensors files, one or several with
 * an index. Names differ from ours, and the rows of wq and wk lie in another order: there RoPE turns the halves of a head, here pairs
 * of neighbours. Row `2i + j` of a head here is row `j size/2 + i` there.
 * @module */
import type { RopeScaling } from "../../model/attention.ts";
import type { LlamaConfig } from "../../model/llama.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import type { Checkpoint, SavedPiece } from "../checkpoint/manifest.ts";
import { readHeader } from "./safetensors.ts";
import { checkpointOf, isFile, readJson, SizesFile } from "./weight_files.ts";

/** Values of `config.json` that change what a model computes, and the ones that a Llama here has. Not given is as good as the first. */
const ASSUMED: Readonly<Record<string, readonly unknown[]>> = {
  hidden_act: ["silu"],
  attention_bias: [false],
  mlp_bias: [false],
  partial_rotary_factor: [1],
  pretraining_tp: [1],
  sliding_window: [null],
  use_sliding_window: [false],
  num_local_experts: [null, 0, 1],
  quantization_config: [null],
};

/** Sizes that a folder's `config.json` gives.
 * @throws {CheckpointError} when it is missing, is no Llama's, or asks for what a Llama here does not have. */
export function readHuggingFaceConfig(folder: string): LlamaConfig {
  const file = new SizesFile(`${folder}/config.json`), { json } = file;
  if (json.model_type !== "llama") file.refuse(file.shown("model_type"), '"llama"');
  for (const [key, values] of Object.entries(ASSUMED)) {
    if (values.includes(json[key] ?? values[0])) continue;
    file.refuse(file.shown(key), `${values.map((value) => JSON.stringify(value)).join(" or ")}, as in a Llama here`);
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
    ropeScaling: ropeScaling(file, rope),
    tiedEmbeddings: json.tie_word_embeddings === true,
  });
}

function ropeScaling(file: SizesFile, rope: Readonly<Record<string, unknown>>): RopeScaling | null {
  const kind = rope.rope_type ?? rope.type ?? "default", part = rope.partial_rotary_factor ?? 1;
  if (part !== 1) file.refuse(`partial_rotary_factor is ${JSON.stringify(part)}`, "1, as in a Llama here");
  if (kind === "default") return null;
  if (kind !== "llama3") file.refuse(`rope_type is ${JSON.stringify(kind)}`, '"default" or "llama3"');
  return {
    factor: file.number("factor", undefined, rope),
    lowFreqFactor: file.number("low_freq_factor", undefined, rope),
    highFreqFactor: file.number("high_freq_factor", undefined, rope),
    originalContext: file.number("original_max_position_embeddings", undefined, rope),
  };
}

/** The parts of a block, ours and theirs. */
const PARTS: readonly (readonly [ours: string, theirs: string])[] = [
  ["attention.wq", "self_attn.q_proj"],
  ["attention.wk", "self_attn.k_proj"],
  ["attention.wv", "self_attn.v_proj"],
  ["attention.wo", "self_attn.o_proj"],
  ["feed_forward.w1", "mlp.gate_proj"],
  ["feed_forward.w3", "mlp.up_proj"],
  ["feed_forward.w2", "mlp.down_proj"],
  ["attention_norm", "input_layernorm"],
  ["ffn_norm", "post_attention_layernorm"],
];

/** The names of a Llama's parameters there, by ours. */
export function parameterNames({ numLayers, tiedEmbeddings }: LlamaConfig): ReadonlyMap<string, string> {
  const blocks = Array.from(
    { length: numLayers },
    (_, n) =>
      PARTS.map(([ours, theirs]) => [`layers.${n}.${ours}.weight`, `model.layers.${n}.${theirs}.weight`] as const),
  ).flat();
  return new Map([
    ["tok_embeddings.weight", "model.embed_tokens.weight"],
    ...blocks,
    ["norm.weight", "model.norm.weight"],
    ...(tiedEmbeddings ? [] : [["output.weight", "lm_head.weight"]] as const),
  ]);
}

/** A folder as a checkpoint of parameters alone, under our names.
 * @throws {CheckpointError} when a file or a tensor is missing, or is nothing of a Llama. */
export function openHuggingFace(folder: string): Checkpoint {
  const config = readHuggingFaceConfig(folder);
  return checkpointOf({
    folder,
    config,
    files: weightFiles(folder),
    names: parameterNames(config),
    // With tied embeddings some save the one table under both names.
    derived: config.tiedEmbeddings ? /rotary_emb\.inv_freq$|^lm_head\.weight$/ : /rotary_emb\.inv_freq$/,
    piecesOf: (ours, whole, bytes) => {
      const isTurned = whole.sizes.length === 2 && hasTurnedRows(ours);
      return isTurned ? rowsInPairs(whole, config.headDim, bytes) : [whole];
    },
  });
}

/** Are a parameter's rows turned by RoPE? */
export function hasTurnedRows(ours: string): boolean {
  return /\.w[qk]\.weight$/.test(ours);
}

/** Where a row of wq or wk lies there. */
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
