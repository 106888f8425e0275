/** Writing a checkpoint's parameters as a folder that `transformers` opens: its names and its order of rows, in files of 5 GB at most,
 * with `config.json`. A chunk of 8 MiB at a time is in memory.
 * @module */
import { numel, type State } from "../../graph/ir.ts";
import { familyNamed, familyNames } from "../../model/families.ts";
import type { ModelFamily } from "../../model/family.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { storedBytes } from "../typed_array.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import {
  exists,
  makeEmptyFolder,
  removeIfThere,
  syncFolder,
  writeFullySync,
  writeLasting,
} from "../checkpoint/files.ts";
import { rowThere } from "./hugging_face.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { familyOfState } from "../checkpoint/family.ts";
import { type Destination, readStates, type Wanted } from "../checkpoint/read.ts";
import { putInPlace } from "../checkpoint/save.ts";
import { encodeElements, encodeHeader, type NewTensor, type TensorEntry } from "./safetensors.ts";
import { contextLengthOf } from "./model_source.ts";
import { copyTokenizer, type SpecialTokens } from "./tokenizer_files.ts";

/** As many bytes of tensors does a file have at most, unless one tensor is larger. */
const FILE_BYTES = 5e9;

/** Element types of exports, each as `config.json` spells it. */
export const EXPORT_TYPES = { f32: "float32", bf16: "bfloat16", f16: "float16" } as const;

/** An element type of exports. */
export type ExportType = keyof typeof EXPORT_TYPES;

/** How to export. */
export interface ExportOptions {
  /** Element type of what is written; default `f32`. */
  readonly dtype?: ExportType;
  /** Folder of the tokenizer, whose files are copied; or a file of GGUF that has one. */
  readonly tokenizer?: string;
  /** Tokens that the model was made for; without, what its scaled rotations say, if they are. */
  readonly contextLength?: number;
  /** Is told the bytes of tensors that are written, and all. */
  readonly progress?: (done: number, all: number) => void;
}

interface Exported extends NewTensor {
  /** Our name. */
  readonly ours: string;
}

/** Writes a folder; it gets its name when all of it is written.
 * @param model whose checkpoint it is. @param folder must not be there yet.
 * @throws {CheckpointError} when it is, or a tensor is missing, damaged, or beyond what the element type has. */
export async function exportHuggingFace(
  checkpoint: Checkpoint,
  model: Family<TransformerSizes>,
  folder: string,
  { dtype = "f32", tokenizer, contextLength, progress = () => {} }: ExportOptions = {},
): Promise<void> {
  const refuse = (what: string, expected: string, fix: string): never => {
    throw new CheckpointError(`Cannot export ${checkpoint.path}: ${what}`, expected, fix);
  };
  if (exists(folder)) refuse(`${folder} is there already`, "a folder that is to be made", "name another, or remove it");
  const { sizes } = model, family = familyNamed(model.name);
  const tensors = [...family.huggingFace.names(sizes)].map(([ours, name]): Exported => {
    const saved = checkpoint.manifest.tensors[ours];
    if (!saved) refuse(`it has no tensor "${ours}"`, "all parameters of the model", "export another checkpoint");
    return { ours, name, dtype, shape: saved.shape, bytes: numel(saved.shape) * storedBytes[dtype] };
  });
  const unfinished = `${folder}.tmp`;
  await makeEmptyFolder(unfinished);
  try {
    const special = tokenizer === undefined ? {} : await copyTokenizer(tokenizer, unfinished);
    await writeLasting(`${unfinished}/config.json`, json(configJson(model, { dtype, contextLength, special })));
    await writeWeights(unfinished, tensors, { checkpoint, sizes, family, progress });
    await syncFolder(unfinished);
    Deno.renameSync(unfinished, folder);
  } catch (error) {
    await removeIfThere(unfinished);
    throw error;
  }
}

/** Puts a folder as `transformers` has them in place of a checkpoint of parameters, in the element type that these have, f32 for f64.
 * @param path of the checkpoint: it is there until the folder is complete.
 * @throws {CheckpointError} when it is of no known family, or the folder cannot be written. */
export async function replaceByExport(path: string, tokenizer: string): Promise<void> {
  const checkpoint = openCheckpoint(path), model = familyOfState(checkpoint);
  if (!model) {
    throw new CheckpointError(
      "its model is of no known family",
      `a model of one: ${familyNames}`,
      "leave checkpoint.last_save_in_hf out",
    );
  }
  const [{ dtype }] = Object.values(checkpoint.manifest.tensors), exported = `${path}.hf`;
  await removeIfThere(exported);
  await exportHuggingFace(checkpoint, model, exported, {
    dtype: dtype in EXPORT_TYPES ? dtype as ExportType : "f32",
    tokenizer,
    contextLength: contextLengthOf(checkpoint),
  });
  await putInPlace(exported, path);
}

/** Writes the files of tensors, and an index where there are several. */
async function writeWeights(
  folder: string,
  tensors: readonly Exported[],
  { progress, ...from }: {
    readonly checkpoint: Checkpoint;
    readonly sizes: TransformerSizes;
    readonly family: ModelFamily;
    readonly progress: NonNullable<ExportOptions["progress"]>;
  },
): Promise<void> {
  const all = tensors.reduce((sum, t) => sum + t.bytes, 0);
  let done = 0;
  const files = filesOf(tensors), number = (n: number) => String(n).padStart(5, "0");
  const weights: Record<string, string> = {};
  for (const [i, own] of files.entries()) {
    const name = files.length === 1
      ? "model.safetensors"
      : `model-${number(i + 1)}-of-${number(files.length)}.safetensors`;
    const { bytes, header } = encodeHeader(own, { format: "pt" });
    using file = Deno.openSync(`${folder}/${name}`, { write: true, createNew: true });
    writeAt(file, 0, bytes);
    for (const tensor of own) {
      await writeTensor(file, header.tensors.get(tensor.name)!, { ...from, tensor });
      weights[tensor.name] = name;
      progress(done += tensor.bytes, all);
    }
    await file.sync();
  }
  if (files.length === 1) return;
  const metadata = { total_size: all };
  await writeLasting(`${folder}/model.safetensors.index.json`, json({ metadata, weight_map: weights }));
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

/** Writes a tensor where it belongs, each part as it is read; rows of heads go where they lie there. */
async function writeTensor(
  file: Deno.FsFile,
  { begin }: TensorEntry,
  { checkpoint, sizes, family, tensor }: {
    readonly checkpoint: Checkpoint;
    readonly sizes: TransformerSizes;
    readonly family: ModelFamily;
    readonly tensor: Exported;
  },
): Promise<void> {
  const { ours, name, dtype: to, shape } = tensor, { kind, dtype: saved } = checkpoint.manifest.tensors[ours];
  // Never rounded twice.
  const dtype = saved === "f64" ? "f64" : "f32", size = storedBytes[dtype];
  const state: State = { name: ours, kind, dtype, shape }, width = shape.at(-1)!, bytesOfOne = storedBytes[to];
  const wanted: Wanted = { state, dtype, box: { starts: shape.map(() => 0), sizes: shape }, offset: 0 };
  const write = (offset: number, from: Uint8Array<ArrayBuffer>) => {
    const bytes = encodeElements(from, { name, from: dtype, to }), first = offset / size;
    if (!family.hasTurnedRows(ours)) return writeAt(file, begin + first * bytesOfOne, bytes);
    for (let at = 0; at < bytes.length;) {
      const element = first + at / bytesOfOne, row = Math.floor(element / width), column = element % width;
      const end = Math.min(bytes.length, at + (width - column) * bytesOfOne);
      const there = rowThere(row, sizes.headDim) * width + column;
      writeAt(file, begin + there * bytesOfOne, bytes.subarray(at, end));
      at = end;
    }
  };
  const memory: Destination = { write: (offset, from) => Promise.resolve(write(offset, from)) };
  await readStates(checkpoint, [wanted], { memory, verify: true });
}

function writeAt(file: Deno.FsFile, offset: number, bytes: Uint8Array): void {
  file.seekSync(offset, Deno.SeekMode.Start);
  writeFullySync(file, bytes);
}

/** What `config.json` says. */
function configJson(
  { name, sizes }: Family<TransformerSizes>,
  { dtype, contextLength, special }: {
    readonly dtype: ExportType;
    readonly contextLength: number | undefined;
    readonly special: SpecialTokens;
  },
): Record<string, unknown> {
  const { ropeTheta, ropeScaling } = sizes, { huggingFace } = familyNamed(name);
  const context = contextLength ?? (ropeScaling ? ropeScaling.originalContext * ropeScaling.factor : undefined);
  const rope = ropeScaling
    ? {
      rope_type: huggingFace.ropeScaling,
      factor: ropeScaling.factor,
      low_freq_factor: ropeScaling.lowFreqFactor,
      high_freq_factor: ropeScaling.highFreqFactor,
      original_max_position_embeddings: ropeScaling.originalContext,
    }
    : null;
  return {
    architectures: [huggingFace.architecture],
    model_type: huggingFace.name,
    hidden_size: sizes.dim,
    num_hidden_layers: sizes.numLayers,
    num_attention_heads: sizes.numHeads,
    num_key_value_heads: sizes.numKvHeads,
    head_dim: sizes.headDim,
    intermediate_size: sizes.ffnHiddenDim,
    vocab_size: sizes.vocabSize,
    hidden_act: "silu",
    rms_norm_eps: sizes.normEps,
    attention_bias: false,
    mlp_bias: false,
    tie_word_embeddings: sizes.tiedEmbeddings,
    ...(context === undefined ? {} : { max_position_embeddings: context }),
    // Read by transformers of version 4, and by that of version 5.
    rope_theta: ropeTheta,
    rope_scaling: rope,
    rope_parameters: { rope_theta: ropeTheta, ...(rope ?? { rope_type: "default" }) },
    torch_dtype: EXPORT_TYPES[dtype],
    dtype: EXPORT_TYPES[dtype],
    // Where they are not known: transformers would take 1 and 2.
    ...{ bos_token_id: null, eos_token_id: null },
    ...special,
  };
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
