/** Models in GGUF files: sizes from keys that begin with the name of the family, and tensors under llama.cpp's names. Rows that RoPE turns
 * lie as they do here, as pairs of neighbours. The scaling of RoPE lies there as a factor for each pair, in `rope_freqs.weight`.
 * Sources: llama.cpp's `convert_hf_to_gguf.py`, `gguf/constants.py`.
 * @module */
import { basename, dirname } from "@std/path";
import { type Gguf, type GgufTensor, readGguf } from "../../data/gguf.ts";
import { numel } from "../../graph/ir.ts";
import type { Float8 } from "../../graph/ir.ts";
import type { RopeScaling } from "../../model/attention.ts";
import { families, familyNamed } from "../../model/families.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { type Checkpoint, type SavedPiece, type SavedTensor, VERSION } from "../checkpoint/manifest.ts";
import { fileBytes, type FileType, unitOf } from "../typed_array.ts";
import { openToRead, readFully } from "./safetensors.ts";
import { KNOWN_FAMILY } from "./weight_files.ts";

/** ggml's numbers of the types that are read. */
export const ggmlTypes: Readonly<Record<Exclude<FileType, "i32" | Float8>, number>> = {
  ...{ f32: 0, f16: 1, bf16: 30, f64: 28 },
  ...{ q4_0: 2, q4_1: 3, q5_0: 6, q5_1: 7, q8_0: 8, q4_k: 12, q5_k: 13, q6_k: 14 },
};

const typesByNumber = new Map(Object.entries(ggmlTypes).map(([type, number]) => [number, type as FileType]));

/** Names of the other types, for whoever is refused. */
const OTHER_TYPES: Readonly<Record<number, string>> = {
  ...{ 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S" },
  ...{ 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 29: "IQ1_M" },
  ...{ 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4" },
};

/** Name of the tensor with what each pair's frequency is divided by. */
export const ROPE_FACTORS = "rope_freqs.weight";

/** Family and sizes that a file gives.
 * @throws {CheckpointError} when it is of no known family, or asks for what models here do not have. @throws {DataError} when it is
 * damaged. */
export function readGgufConfig(path: string): Family<TransformerSizes> {
  return familyOf(readGguf(path));
}

/** The key of a file's header with the name of its family, with which the keys of sizes begin. */
export const ARCHITECTURE = "general.architecture";

function familyOf(file: Gguf): Family<TransformerSizes> {
  const keys = new Keys(file), { metadata, tensors } = file, architecture = metadata.get(ARCHITECTURE);
  const family = families.find((f) => f.gguf.name === architecture) ??
    keys.refuse(
      `${ARCHITECTURE} is ${JSON.stringify(architecture)}`,
      families.map((f) => JSON.stringify(f.gguf.name)).join(" or "),
    );
  if (keys.number("split.count", 1, "") > 1) {
    keys.refuse("it is one of several files of a model", "a model in one file", "join them: llama-gguf-split --merge");
  }
  for (const [key, values] of Object.entries(family.gguf.assumed)) {
    const value = metadata.get(`${architecture}.${key}`);
    if (value === undefined || values.includes(value)) continue;
    keys.refuse(`${architecture}.${key} is ${JSON.stringify(value)}`, `${values[0]}, as in models here`);
  }
  const table = tensors.get("token_embd.weight");
  if (!table) keys.refuse('it has no tensor "token_embd.weight"', "weights of a whole model", "fetch it again");
  const dim = keys.number("embedding_length"), numHeads = keys.number("attention.head_count");
  const headDim = keys.number("attention.key_length", dim / numHeads);
  for (const key of ["attention.value_length", "rope.dimension_count"]) {
    const size = keys.number(key, headDim);
    if (size === headDim) continue;
    keys.refuse(`${architecture}.${key} is ${size}`, `${headDim}, the size of a head, as in models here`);
  }
  const sizes: TransformerSizes = {
    ...{ dim, numHeads, headDim },
    numLayers: keys.number("block_count"),
    numKvHeads: keys.number("attention.head_count_kv", numHeads),
    vocabSize: table!.shape[0],
    ffnHiddenDim: keys.number("feed_forward_length"),
    normEps: keys.number("attention.layer_norm_rms_epsilon"),
    ropeTheta: keys.number("rope.freq_base", 10000),
    ropeScaling: null,
    tiedEmbeddings: !tensors.has("output.weight"),
  };
  if (headDim % 2 !== 0 || numHeads % sizes.numKvHeads !== 0) {
    keys.refuse(
      `it has ${numHeads} query heads, ${sizes.numKvHeads} key and value heads, of size ${headDim}`,
      "as many query heads to each key and value head, of an even size",
    );
  }
  const factors = tensors.get(ROPE_FACTORS);
  return {
    name: family.name,
    sizes: factors ? { ...sizes, ropeScaling: scalingOf(keys, factors, sizes) } : sizes,
  };
}

/** The values of a header. */
class Keys {
  constructor(readonly file: Gguf) {}

  /** @throws {CheckpointError} always. */
  refuse(what: string, expected: string, fix = KNOWN_FAMILY): never {
    throw new CheckpointError(`Cannot use ${this.file.path}: ${what}`, expected, fix);
  }

  /** A number above 0. f32 numbers are taken for the shortest decimals that they are nearest to: 1e-5 is then 1e-5. */
  number(key: string, fallback?: number, prefix = `${this.file.metadata.get(ARCHITECTURE)}.`): number {
    const value = this.file.metadata.get(prefix + key) ?? fallback;
    if (typeof value !== "number" || !(value > 0)) {
      return this.refuse(
        `${prefix}${key} is ${value === undefined ? "missing" : JSON.stringify(value)}`,
        "a number above 0",
      );
    }
    return Number.isInteger(value) || Math.fround(value) !== value ? value : shortest(value);
  }
}

/** The shortest decimal whose nearest f32 is this one. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const decimal = Number(value.toPrecision(digits));
    if (Math.fround(decimal) === value) return decimal;
  }
  return value;
}

/** What the frequency of each pair of a head is divided by. */
export function ropeFactors({ headDim, ropeTheta }: TransformerSizes, scaling: RopeScaling): Float32Array<ArrayBuffer> {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalContext: context } = scaling;
  return Float32Array.from({ length: headDim / 2 }, (_, pair) => {
    const wavelength = 2 * Math.PI * ropeTheta ** (2 * pair / headDim);
    if (wavelength < context / high) return 1;
    if (wavelength > context / low) return factor;
    const smooth = (context / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** Keys that say how the factors were made. llama.cpp has the first alone; without the others they are the usual ones. */
export const SCALING_KEYS = {
  originalContext: "rope.scaling.original_context_length",
  lowFreqFactor: "rope.scaling.low_freq_factor",
  highFreqFactor: "rope.scaling.high_freq_factor",
} as const;

/** The scaling that gives a file's factors. The largest is that of the slowest pairs.
 * @throws {CheckpointError} when no scaling of that kind does. */
function scalingOf(keys: Keys, tensor: GgufTensor, sizes: TransformerSizes): RopeScaling {
  const { headDim } = sizes, count = headDim / 2;
  if (tensor.type !== ggmlTypes.f32 || String(tensor.shape) !== String([count])) {
    keys.refuse(`"${ROPE_FACTORS}" has shape [${tensor.shape}], type ${tensor.type}`, `f32[${count}]`);
  }
  const found = new Float32Array(count);
  using file = openToRead(keys.file.path);
  file.seekSync(tensor.begin, Deno.SeekMode.Start);
  if (readFully(file, new Uint8Array(found.buffer)) < found.byteLength) {
    keys.refuse(`it ends within "${ROPE_FACTORS}"`, "a GGUF file with all of its bytes", "fetch it again");
  }
  const scaling: RopeScaling = {
    factor: shortest(Math.max(...found)),
    lowFreqFactor: keys.number(SCALING_KEYS.lowFreqFactor, 1),
    highFreqFactor: keys.number(SCALING_KEYS.highFreqFactor, 4),
    originalContext: keys.number(SCALING_KEYS.originalContext, 8192),
  };
  const made = ropeFactors(sizes, scaling), wrong = found.findIndex((x, i) => !(Math.abs(x / made[i] - 1) < 1e-4));
  if (wrong >= 0) {
    keys.refuse(
      `factor ${wrong} of "${ROPE_FACTORS}" is ${found[wrong]}`,
      `${made[wrong]}, as of scaling by ${scaling.factor} from ${scaling.originalContext} tokens`,
    );
  }
  return scaling;
}

/** A file as a checkpoint of parameters alone, under our names. It has no hashes to compare with.
 * @throws {CheckpointError} when a tensor is missing, is of a type that cannot be read, or is no parameter of the model. */
export function openGguf(path: string): Checkpoint {
  const file = readGguf(path), keys = new Keys(file), { name: family, sizes } = familyOf(file);
  const names = familyNamed(family).gguf.names(sizes);
  const known = new Set([...names.values(), ROPE_FACTORS]), name = basename(path);
  for (const theirs of file.tensors.keys()) {
    if (known.has(theirs)) continue;
    keys.refuse(
      `"${theirs}" is no parameter of a model of these sizes, with ${sizes.numLayers} layers`,
      "those tensors alone that the sizes ask for: no biases, experts or adapters",
    );
  }
  const pieces: SavedPiece[] = [];
  const tensors = [...names].map(([ours, theirs]): [string, SavedTensor] => {
    const tensor = file.tensors.get(theirs);
    if (!tensor) keys.refuse(`it has no tensor "${theirs}"`, "all tensors that its sizes ask for", "fetch it again");
    const { type, shape, begin } = tensor!, dtype = typesByNumber.get(type), width = shape.at(-1) ?? 1;
    if (dtype === undefined) {
      return keys.refuse(
        `"${theirs}" is of type ${OTHER_TYPES[type] ?? type}`,
        [...typesByNumber.values()].join(", ").toUpperCase(),
        "fetch the model in one of these, such as Q8_0 or Q4_K_M",
      );
    }
    const end = begin + fileBytes(dtype, numel(shape));
    if (width % unitOf(dtype).elements !== 0 || !(end <= file.fileBytes)) {
      keys.refuse(
        `"${theirs}" is ${dtype}[${shape}] at bytes ${begin} to ${end} of ${file.fileBytes}`,
        "a GGUF file with all of its bytes",
        "fetch it again",
      );
    }
    pieces.push({ tensor: ours, file: name, begin, starts: shape.map(() => 0), sizes: shape });
    return [ours, { kind: "parameter", dtype, shape }];
  });
  return {
    path,
    folder: dirname(path),
    manifest: {
      ...{ version: VERSION, step: 0, content: "model" },
      files: { [name]: { bytes: file.fileBytes, sha256: [] } },
      tensors: Object.fromEntries(tensors),
    },
    piecesIn: () => pieces,
  };
}
