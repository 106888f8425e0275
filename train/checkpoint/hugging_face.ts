/** Folders of Llama models as Hugging Face's `transformers` writes them: `config.json`, and safetensors files, one or several with
 * an index. Names differ from ours, and the rows of wq and wk lie in another order: there RoPE turns the halves of a head, here pairs
 * of neighbours. Row `2i + j` of a head here is row `j size/2 + i` there.
 * @module */
import type { LlamaConfig } from "../../model/llama.ts";
import { CheckpointError } from "./error.ts";
import type { Checkpoint, Manifest, SavedFile, SavedPiece, SavedTensor } from "./manifest.ts";
import { elementBytes, type Header, readHeader, typesOfFormat } from "./safetensors.ts";

/** Sizes that a folder's `config.json` gives.
 * @throws {CheckpointError} when it is missing, is no Llama's, or asks for what a Llama here does not have. */
export function readHuggingFaceConfig(folder: string): LlamaConfig {
  const path = `${folder}/config.json`, json = readJson(path);
  const refuse = (what: string, expected: string): never => {
    throw new CheckpointError(`Cannot use ${path}: ${what}`, expected, "choose a model that is built like a Llama");
  };
  const number = (key: string, fallback?: number): number => {
    const value = json[key] ?? fallback;
    return typeof value === "number" && value > 0
      ? value
      : refuse(`${key} is ${JSON.stringify(json[key])}`, "a number above 0");
  };
  if (json.model_type !== "llama") refuse(`model_type is ${JSON.stringify(json.model_type)}`, '"llama"');
  for (const key of ["attention_bias", "mlp_bias"]) if (json[key]) refuse(`${key} is true`, "products without biases");
  const activation = json.hidden_act ?? "silu";
  if (activation !== "silu") refuse(`hidden_act is ${JSON.stringify(activation)}`, '"silu"');
  const dim = number("hidden_size"), numHeads = number("num_attention_heads");
  const headSize = number("head_dim", dim / numHeads);
  if (headSize !== dim / numHeads) {
    refuse(
      `head_dim is ${headSize}`,
      `hidden_size / num_attention_heads = ${dim / numHeads}: heads of another size come later`,
    );
  }
  // Since version 5 of transformers both lie in `rope_parameters`.
  const rope = (json.rope_parameters ?? json.rope_scaling ?? {}) as Record<string, unknown>;
  const kind = rope.rope_type ?? rope.type ?? "default";
  if (kind !== "default" && kind !== "llama3") refuse(`rope_type is ${JSON.stringify(kind)}`, '"default" or "llama3"');
  return {
    dim,
    numHeads,
    numLayers: number("num_hidden_layers"),
    numKvHeads: number("num_key_value_heads", numHeads),
    vocabSize: number("vocab_size"),
    ffnHiddenDim: number("intermediate_size"),
    normEps: number("rms_norm_eps", 1e-6),
    ropeTheta: (rope.rope_theta as number | undefined) ?? number("rope_theta", 10000),
    ropeScaling: kind === "default" ? null : {
      factor: rope.factor as number,
      lowFreqFactor: rope.low_freq_factor as number,
      highFreqFactor: rope.high_freq_factor as number,
      originalContext: rope.original_max_position_embeddings as number,
    },
    tiedEmbeddings: json.tie_word_embeddings === true,
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

/** A folder as a checkpoint of parameters alone, under our names. Its files have no hashes to compare with.
 * @throws {CheckpointError} when a file or a tensor is missing, or has another shape than `config.json` says. */
export function openHuggingFace(folder: string): Checkpoint {
  const config = readHuggingFaceConfig(folder), files = weightFiles(folder);
  const headers = new Map([...new Set(files.values())].map((file) => [file, readHeader(`${folder}/${file}`)]));
  const tensors = [...parameterNames(config)].map(([ours, theirs]): [string, SavedTensor] => {
    const file = files.get(theirs), header = file === undefined ? undefined : headers.get(file);
    if (!header?.tensors.has(theirs)) {
      throw new CheckpointError(
        `Cannot use ${folder}: no file has the tensor "${theirs}"`,
        `all tensors of a Llama of ${config.numLayers} layers${
          config.tiedEmbeddings ? "" : ", and lm_head.weight, as tie_word_embeddings is not true"
        }`,
        "fetch the folder again, with all its safetensors files",
      );
    }
    return [ours, savedTensor(ours, theirs, file!, header, config, `${folder}/${file}`)];
  });
  const saved = [...headers].map((
    [name, { fileBytes }],
  ): [string, SavedFile] => [name, { bytes: fileBytes, sha256: [] }]);
  const manifest: Manifest = {
    ...{ version: 1, step: 0, content: "model" },
    files: Object.fromEntries(saved),
    tensors: Object.fromEntries(tensors),
  };
  return { path: folder, manifest };
}

function savedTensor(
  ours: string,
  theirs: string,
  file: string,
  { tensors }: Header,
  config: LlamaConfig,
  path: string,
): SavedTensor {
  const { dtype: type, shape, begin } = tensors.get(theirs)!, dtype = typesOfFormat[type];
  const refuse = (what: string, expected: string): never => {
    throw new CheckpointError(
      `Cannot use "${theirs}" of ${path}: ${what}`,
      expected,
      "save the model again in one of these types",
    );
  };
  if (!dtype || dtype === "i32") refuse(`its type is ${type}`, "F32, F64, F16 or BF16");
  if (begin % elementBytes[type] !== 0) refuse(`it begins at byte ${begin}`, `a multiple of ${elementBytes[type]}`);
  const whole: SavedPiece = { file, begin, starts: shape.map(() => 0), sizes: shape };
  const heads = headsOf(ours, config);
  const pieces = heads > 0 && shape.length === 2
    ? rowsInPairs(whole, config.dim / config.numHeads, elementBytes[type])
    : [whole];
  return { kind: "parameter", dtype, shape, pieces };
}

/** Heads of a parameter whose rows are turned by RoPE; 0 where none are. */
export function headsOf(ours: string, { numHeads, numKvHeads }: LlamaConfig): number {
  return ours.endsWith("wq.weight") ? numHeads : ours.endsWith("wk.weight") ? numKvHeads : 0;
}

/** Where a row of wq or wk lies there. */
export function rowThere(row: number, headSize: number): number {
  const within = row % headSize;
  return row - within + within % 2 * headSize / 2 + Math.floor(within / 2);
}

/** The rows of heads, each by itself. */
function rowsInPairs({ file, begin, sizes: [rows, width] }: SavedPiece, headSize: number, bytes: number): SavedPiece[] {
  return Array.from({ length: rows }, (_, row) => ({
    file,
    begin: begin + rowThere(row, headSize) * width * bytes,
    starts: [row, 0],
    sizes: [1, width],
  }));
}

/** Which file of a folder has which tensor. */
function weightFiles(folder: string): Map<string, string> {
  const index = `${folder}/model.safetensors.index.json`, single = "model.safetensors";
  if (exists(index)) return new Map(Object.entries(readJson(index).weight_map as Record<string, string>));
  if (exists(`${folder}/${single}`)) {
    return new Map([...readHeader(`${folder}/${single}`).tensors.keys()].map((name) => [name, single]));
  }
  const pickled = exists(`${folder}/pytorch_model.bin`) || exists(`${folder}/pytorch_model.bin.index.json`);
  throw new CheckpointError(
    `Cannot use ${folder}: there is no ${single}, and no index of several`,
    `weights in safetensors${pickled ? ": pytorch_model.bin is a pickle, which runs whatever code it holds" : ""}`,
    "fetch the model's safetensors files, or save it by save_pretrained",
  );
}

function readJson(path: string): Record<string, unknown> {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    throw new CheckpointError(
      `Cannot read ${path}: ${(error as Error).message}`,
      "a folder of a model as transformers saves it: config.json and safetensors files",
      "correct checkpoint.initial_load_path",
    );
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
