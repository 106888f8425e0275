/** Writing a model as a file of GGUF: sizes and tokenizer in its header, matrices in one type, norms in f32, as llama.cpp has them. A part
 * of a tensor at a time is in memory.
 * @module */
import { dirname } from "@std/path";
import type { NewGgufValue } from "../../data/gguf_tokenizer.ts";
import { GGUF_ALIGNMENT, GGUF_MAGIC, ggufTypes } from "../../data/gguf.ts";
import { numel, type State } from "../../graph/ir.ts";
import { familyNamed } from "../../model/families.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import { exists, removeIfThere, syncFolder, writeFullySync } from "../checkpoint/files.ts";
import type { Checkpoint } from "../checkpoint/manifest.ts";
import { readStates } from "../checkpoint/read.ts";
import { fileBytes, unitOf } from "../typed_array.ts";
import { ARCHITECTURE, ggmlTypes, ROPE_FACTORS, ropeFactors, SCALING_KEYS } from "./gguf.ts";
import { encodeQ8 } from "./gguf_blocks.ts";
import { encodeElements } from "./safetensors.ts";

/** Types that are written, each with llama.cpp's number of such a file. */
export const GGUF_TYPES = { f32: 0, f16: 1, bf16: 32, q8_0: 7 } as const;

/** A type that is written. */
export type GgufType = keyof typeof GGUF_TYPES;

/** How to write a file. */
export interface GgufOptions {
  /** Type of the matrices. */
  readonly dtype: GgufType;
  /** Tokens that the model was made for. */
  readonly contextLength: number;
  /** What the header says of the tokenizer. */
  readonly tokenizer: ReadonlyMap<string, NewGgufValue>;
  /** What the header calls the model. */
  readonly name: string;
  /** Is told the bytes that are written, and all. */
  readonly progress?: (done: number, all: number) => void;
}

/** So many elements are converted at once, or a row where that is longer. */
const PART_ELEMENTS = 4 << 20;

interface Written {
  readonly name: string;
  readonly dtype: GgufType;
  readonly shape: readonly number[];
  readonly bytes: number;
  /** Its numbers, one part after another. */
  readonly parts: () => AsyncIterable<Float32Array<ArrayBuffer>>;
}

/** Writes a file; it gets its name when all of it is written.
 * @param path must not be there yet.
 * @throws {CheckpointError} when it is, or a tensor is missing, damaged, or nothing that the type can have. */
export async function exportGguf(
  checkpoint: Checkpoint,
  { name: family, sizes }: Family<TransformerSizes>,
  path: string,
  options: GgufOptions,
): Promise<void> {
  const { dtype, progress } = options;
  const refuse = (what: string, expected: string, fix: string): never => {
    throw new CheckpointError(`Cannot write ${path}: ${what}`, expected, fix);
  };
  const refuseIfThere = () => {
    if (exists(path)) refuse("it is there already", "a file that is to be made", "name another, or remove it");
  };
  refuseIfThere();
  const tensors = [...familyNamed(family).gguf.names(sizes)].map(([ours, name]): Written => {
    const saved = checkpoint.manifest.tensors[ours];
    if (!saved) refuse(`${checkpoint.path} has no tensor "${ours}"`, "all parameters of the model", "convert another");
    const { shape } = saved, own = shape.length === 1 ? "f32" : dtype, width = shape.at(-1)!;
    if (width % unitOf(own).elements !== 0) {
      refuse(`"${name}" has rows of ${width} numbers`, "multiples of 32 for q8_0", "write f16, bf16 or f32");
    }
    return { name, dtype: own, shape, bytes: fileBytes(own, numel(shape)), parts: () => partsOf(checkpoint, ours) };
  });
  if (sizes.ropeScaling) {
    const factors = ropeFactors(sizes, sizes.ropeScaling), { length, byteLength: bytes } = factors;
    const parts = async function* () {
      yield await Promise.resolve(factors);
    };
    tensors.push({ name: ROPE_FACTORS, dtype: "f32", shape: [length], bytes, parts });
  }
  const header = encodeHeader(headerOf({ name: family, sizes }, options), tensors), unfinished = `${path}.tmp`;
  const all = header.length + tensors.reduce((sum, { bytes }) => sum + aligned(bytes), 0);
  try {
    {
      using file = Deno.openSync(unfinished, { write: true, create: true, truncate: true });
      let done = 0;
      const write = (bytes: Uint8Array) => {
        writeFullySync(file, bytes);
        progress?.(done += bytes.length, all);
      };
      write(header);
      for (const { name, dtype, bytes, parts } of tensors) {
        for await (const numbers of parts()) write(encoded(numbers, name, dtype));
        write(new Uint8Array(aligned(bytes) - bytes));
      }
      await file.sync();
    }
    refuseIfThere();
    Deno.renameSync(unfinished, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await removeIfThere(unfinished);
    throw error;
  }
}

const aligned = (bytes: number): number => Math.ceil(bytes / GGUF_ALIGNMENT) * GGUF_ALIGNMENT;

/** The numbers of a tensor, so many whole rows at once. */
async function* partsOf(checkpoint: Checkpoint, name: string): AsyncGenerator<Float32Array<ArrayBuffer>> {
  const { kind, shape } = checkpoint.manifest.tensors[name], [rows, ...rest] = shape, width = numel(rest);
  const state: State = { name, kind, dtype: "f32", shape }, most = Math.max(1, Math.floor(PART_ELEMENTS / width));
  for (let row = 0; row < rows; row += most) {
    const count = Math.min(most, rows - row), bytes = new Uint8Array(count * width * 4);
    const box = { starts: [row, ...rest.map(() => 0)], sizes: [count, ...rest] };
    const memory = { write: (offset: number, from: Uint8Array) => Promise.resolve(bytes.set(from, offset)) };
    await readStates(checkpoint, [{ state, dtype: "f32", box, offset: 0 }], { memory, verify: true });
    yield new Float32Array(bytes.buffer);
  }
}

function encoded(numbers: Float32Array<ArrayBuffer>, name: string, to: GgufType): Uint8Array<ArrayBuffer> {
  if (to !== "q8_0") return encodeElements(new Uint8Array(numbers.buffer), { name, from: "f32", to });
  try {
    return encodeQ8(numbers);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new CheckpointError(`Cannot write "${name}": ${error.message}`, "smaller values", "write bf16 or f32");
  }
}

/** What a file says of a model. */
function headerOf(
  { name: family, sizes }: Family<TransformerSizes>,
  { dtype, contextLength, tokenizer, name }: GgufOptions,
): ReadonlyMap<string, NewGgufValue> {
  const { headDim, ropeScaling } = sizes, architecture = familyNamed(family).gguf.name;
  const u32 = (value: number): NewGgufValue => ({ type: "u32", value });
  const f32 = (value: number): NewGgufValue => ({ type: "f32", value });
  const text = (value: string): NewGgufValue => ({ type: "string", value });
  const values: Record<string, NewGgufValue> = {
    "block_count": u32(sizes.numLayers),
    "context_length": u32(contextLength),
    "embedding_length": u32(sizes.dim),
    "feed_forward_length": u32(sizes.ffnHiddenDim),
    "attention.head_count": u32(sizes.numHeads),
    "attention.head_count_kv": u32(sizes.numKvHeads),
    "attention.key_length": u32(headDim),
    "attention.value_length": u32(headDim),
    "attention.layer_norm_rms_epsilon": f32(sizes.normEps),
    "rope.dimension_count": u32(headDim),
    "rope.freq_base": f32(sizes.ropeTheta),
    "vocab_size": u32(sizes.vocabSize),
    ...(ropeScaling
      ? {
        [SCALING_KEYS.originalContext]: u32(ropeScaling.originalContext),
        [SCALING_KEYS.lowFreqFactor]: f32(ropeScaling.lowFreqFactor),
        [SCALING_KEYS.highFreqFactor]: f32(ropeScaling.highFreqFactor),
      }
      : {}),
  };
  return new Map([
    [ARCHITECTURE, text(architecture)],
    ["general.type", text("model")],
    ["general.name", text(name)],
    ["general.file_type", u32(GGUF_TYPES[dtype])],
    ["general.quantization_version", u32(2)],
    ["general.alignment", u32(GGUF_ALIGNMENT)],
    ...Object.entries(values).map(([key, value]) => [`${architecture}.${key}`, value] as const),
    ...tokenizer,
  ]);
}

/** The bytes before the tensors. */
function encodeHeader(
  metadata: ReadonlyMap<string, NewGgufValue>,
  tensors: readonly Written[],
): Uint8Array<ArrayBuffer> {
  const out = new Bytes();
  out.u32(GGUF_MAGIC);
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    out.string(key);
    out.u32(ggufTypes[value.type]);
    if (value.type !== "array") {
      out.value(value.type, value.value);
      continue;
    }
    out.u32(ggufTypes[value.of]);
    out.u64(value.value.length);
    for (const item of value.value) out.value(value.of, item);
  }
  let at = 0;
  for (const { name, shape, dtype, bytes } of tensors) {
    out.string(name);
    out.u32(shape.length);
    for (const size of shape.toReversed()) out.u64(size);
    out.u32(ggmlTypes[dtype]);
    out.u64(at);
    at += aligned(bytes);
  }
  return out.aligned();
}

/** Bytes that grow. */
class Bytes {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;

  /** Makes room; returns where it begins. */
  #grow(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(2 * this.#length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    return at;
  }

  #number(bytes: number, put: (view: DataView, at: number) => void): void {
    const at = this.#grow(bytes);
    put(new DataView(this.#bytes.buffer), at);
  }

  u32(value: number): void {
    this.#number(4, (view, at) => view.setUint32(at, value, true));
  }

  u64(value: number): void {
    this.#number(8, (view, at) => view.setBigUint64(at, BigInt(value), true));
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    const at = this.#grow(bytes.length); // which may move what was there
    this.#bytes.set(bytes, at);
  }

  value(type: Exclude<NewGgufValue["type"], "array">, value: number | boolean | string): void {
    switch (type) {
      case "string":
        return this.string(value as string);
      case "bool":
        return this.#number(1, (view, at) => view.setUint8(at, value ? 1 : 0));
      case "u64":
        return this.u64(value as number);
      case "f32":
        return this.#number(4, (view, at) => view.setFloat32(at, value as number, true));
      case "i32":
      case "u32":
        return this.u32(value as number); // the same bits
    }
  }

  aligned(): Uint8Array<ArrayBuffer> {
    this.#grow(aligned(this.#length) - this.#length);
    return this.#bytes.subarray(0, this.#length);
  }
}
