/** Writing a checkpoint's parameters as a folder that `transformers` opens: its names and its order of rows, in files of 5 GB at most,
 * with `config.json`. One tensor at a time is in memory.
 * @module */
import { dtypeBytes, numel } from "../../graph/ir.ts";
import type { LlamaConfig } from "../../model/llama.ts";
import { converted } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { HashingWriter, makeEmptyFolder, syncFolder, writeLasting } from "./files.ts";
import { hasTurnedRows, parameterNames, rowThere } from "./hugging_face.ts";
import { readTensor } from "./inspect.ts";
import type { Checkpoint } from "./manifest.ts";
import { encodeHeader, type NewTensor } from "./safetensors.ts";

/** As many bytes of tensors does a file have at most, unless one tensor is larger. */
const FILE_BYTES = 5e9;

/** Files beside the weights that are copied where there are some. */
const TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];

/** How to export. */
export interface ExportOptions {
  /** Element type of what is written; default `f32`. */
  readonly dtype?: "f32" | "bf16";
  /** Folder of the tokenizer, whose files are copied. */
  readonly tokenizer?: string;
}

interface Exported extends NewTensor {
  /** Our name. */
  readonly ours: string;
}

/** Writes a folder; it gets its name when all of it is written.
 * @param config of the Llama whose checkpoint it is. @param folder must not be there yet.
 * @throws {CheckpointError} when it is, or a tensor is missing or damaged. */
export async function exportHuggingFace(
  checkpoint: Checkpoint,
  config: LlamaConfig,
  folder: string,
  { dtype = "f32", tokenizer }: ExportOptions = {},
): Promise<void> {
  const refuse = (what: string, expected: string, fix: string): never => {
    throw new CheckpointError(`Cannot export ${checkpoint.path}: ${what}`, expected, fix);
  };
  if (exists(folder)) refuse(`${folder} is there already`, "a folder that is to be made", "name another, or remove it");
  const tensors = [...parameterNames(config)].map(([ours, name]): Exported => {
    const saved = checkpoint.manifest.tensors[ours];
    if (!saved) refuse(`it has no tensor "${ours}"`, "all parameters of a Llama", "export a checkpoint of a Llama");
    return { ours, name, dtype, shape: saved.shape, bytes: numel(saved.shape) * dtypeBytes[dtype] };
  });
  const unfinished = `${folder}.tmp`, files = filesOf(tensors), number = (n: number) => String(n).padStart(5, "0");
  await makeEmptyFolder(unfinished);
  const weights: Record<string, string> = {};
  for (const [i, own] of files.entries()) {
    const file = files.length === 1
      ? "model.safetensors"
      : `model-${number(i + 1)}-of-${number(files.length)}.safetensors`;
    using writer = new HashingWriter(`${unfinished}/${file}`);
    writer.write(encodeHeader(own, { format: "pt" }).bytes);
    for (const tensor of own) {
      writer.write(await bytesOf(checkpoint, tensor, config, dtype));
      weights[tensor.name] = file;
    }
    writer.finish();
  }
  if (files.length > 1) {
    const metadata = { total_size: tensors.reduce((sum, t) => sum + t.bytes, 0) };
    await writeLasting(`${unfinished}/model.safetensors.index.json`, json({ metadata, weight_map: weights }));
  }
  await writeLasting(`${unfinished}/config.json`, json(configJson(config, dtype)));
  for (const file of TOKENIZER_FILES) {
    if (tokenizer !== undefined && exists(`${tokenizer}/${file}`)) {
      Deno.copyFileSync(`${tokenizer}/${file}`, `${unfinished}/${file}`);
    }
  }
  await syncFolder(unfinished);
  Deno.renameSync(unfinished, folder);
}

/** Tensors in files, in order. */
function filesOf(tensors: readonly Exported[]): Exported[][] {
  const files: Exported[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + tensor.bytes > FILE_BYTES) {
      files.push([]);
      bytes = 0;
    }
    files.at(-1)!.push(tensor);
    bytes += tensor.bytes;
  }
  return files;
}

/** A tensor's bytes, with the rows of heads in the order of there. */
async function bytesOf(
  checkpoint: Checkpoint,
  { ours, shape }: Exported,
  config: LlamaConfig,
  dtype: "f32" | "bf16",
): Promise<Uint8Array<ArrayBuffer>> {
  const values = Float32Array.from(await readTensor(checkpoint, ours)),
    isTurned = hasTurnedRows(ours),
    width = shape[1] ?? 1;
  const ordered = !isTurned ? values : new Float32Array(values.length);
  if (isTurned) {
    for (let row = 0; row < shape[0]; row++) {
      const there = rowThere(row, config.headDim);
      ordered.set(values.subarray(row * width, (row + 1) * width), there * width);
    }
  }
  return converted(new Uint8Array(ordered.buffer), "f32", dtype);
}

/** What `config.json` says. */
function configJson(config: LlamaConfig, dtype: "f32" | "bf16"): Record<string, unknown> {
  const { dim, numLayers, numHeads, numKvHeads, vocabSize, ffnHiddenDim, normEps, ropeTheta, ropeScaling } = config;
  const rope = ropeScaling
    ? {
      rope_type: "llama3",
      factor: ropeScaling.factor,
      low_freq_factor: ropeScaling.lowFreqFactor,
      high_freq_factor: ropeScaling.highFreqFactor,
      original_max_position_embeddings: ropeScaling.originalContext,
    }
    : null;
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: dim,
    num_hidden_layers: numLayers,
    num_attention_heads: numHeads,
    num_key_value_heads: numKvHeads,
    head_dim: config.headDim,
    intermediate_size: ffnHiddenDim,
    vocab_size: vocabSize,
    hidden_act: "silu",
    rms_norm_eps: normEps,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: config.tiedEmbeddings,
    ...(ropeScaling ? { max_position_embeddings: ropeScaling.originalContext * ropeScaling.factor } : {}),
    // Read by transformers of version 4, and by that of version 5.
    rope_theta: ropeTheta,
    rope_scaling: rope,
    rope_parameters: { rope_theta: ropeTheta, ...(rope ?? { rope_type: "default" }) },
    torch_dtype: dtype === "f32" ? "float32" : "bfloat16",
  };
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
