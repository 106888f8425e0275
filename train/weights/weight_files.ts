/** What folders of weights from elsewhere have in common: sizes in a JSON file, and safetensors files whose tensors become a checkpoint
 * of parameters alone, under our names.
 * @module */
import { familyNames } from "../../model/families.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import { CheckpointError } from "../checkpoint/error.ts";
import {
  type Checkpoint,
  type Manifest,
  type SavedFile,
  type SavedPiece,
  type SavedTensor,
  VERSION,
} from "../checkpoint/manifest.ts";
import { storedBytes, type StoredType } from "../typed_array.ts";
import { elementBytes, type Header, readHeader, typesOfFormat } from "./safetensors.ts";

/** What to do about weights of another kind. */
export const KNOWN_FAMILY = `choose a model of a family that is known here: ${familyNames}`;

/** A model's sizes in a JSON file, each checked when it is asked for. */
export class SizesFile {
  /** All that the file says. */
  readonly json: Readonly<Record<string, unknown>>;

  /** @throws {CheckpointError} when there is no such file, or it is no JSON. */
  constructor(readonly path: string) {
    this.json = readJson(path);
  }

  /** @throws {CheckpointError} always. */
  refuse(what: string, expected: string, fix = KNOWN_FAMILY): never {
    throw new CheckpointError(`Cannot use ${this.path}: ${what}`, expected, fix);
  }

  /** A number above 0.
   * @param from the object that has it. @throws {CheckpointError} when it is none. */
  number(key: string, fallback?: number, from: Readonly<Record<string, unknown>> = this.json): number {
    const value = from[key] ?? fallback;
    return typeof value === "number" && value > 0
      ? value
      : this.refuse(`${key} is ${JSON.stringify(from[key])}`, "a number above 0");
  }

  /** A whole number above 0. */
  count(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    return Number.isInteger(value) ? value : this.refuse(`${key} is ${value}`, "a whole number above 0");
  }

  /** A value as it is shown in an error. */
  shown(key: string): string {
    return `${key} is ${JSON.stringify(this.json[key])}`;
  }

  /** Sizes, when its heads fit each other. */
  checked(sizes: TransformerSizes): TransformerSizes {
    const { numHeads, numKvHeads, headDim } = sizes;
    if (headDim % 2 !== 0) this.refuse(`its heads have size ${headDim}`, "an even whole size: RoPE turns pairs");
    if (numHeads % numKvHeads !== 0) {
      this.refuse(
        `${numKvHeads} key and value heads do not divide ${numHeads} query heads`,
        "as many query heads to each key and value head",
      );
    }
    return sizes;
  }
}

/** Which tensors of which files are the parameters of a model. */
export interface Weights {
  readonly folder: string;
  readonly sizes: TransformerSizes;
  /** File by tensor, all under their names there. */
  readonly files: ReadonlyMap<string, string>;
  /** Names there by ours. */
  readonly names: ReadonlyMap<string, string>;
  /** Tensors that follow from the sizes, so that nobody has to read them. */
  readonly derived: RegExp;
  /** Cuts what lies in another order there into pieces that do not. */
  readonly piecesOf?: (ours: string, whole: SavedPiece, bytes: number) => readonly SavedPiece[];
}

/** A folder as a checkpoint. Its files have no hashes to compare with.
 * @throws {CheckpointError} when a tensor is missing, is of a type that cannot be read, or is no parameter of the model. */
export function checkpointOf({ folder, sizes, files, names, derived, piecesOf }: Weights): Checkpoint {
  const headers = new Map([...new Set(files.values())].map((file) => [file, readHeader(`${folder}/${file}`)]));
  const known = new Set(names.values());
  for (const [theirs, file] of files) {
    if (known.has(theirs) || derived.test(theirs)) continue;
    throw new CheckpointError(
      `Cannot use ${folder}: "${theirs}" of ${file} is no parameter of a model of these sizes, with ${sizes.numLayers} layers`,
      "those tensors alone that the sizes ask for: no biases, scales of quantized values, adapters or further layers",
      `${KNOWN_FAMILY}; or merge into its weights what was added to them`,
    );
  }
  const pieces = new Map([...headers.keys()].map((file): [string, SavedPiece[]] => [file, []]));
  const tensors = [...names].map(([ours, theirs]): [string, SavedTensor] => {
    const file = files.get(theirs), header = file === undefined ? undefined : headers.get(file);
    if (!header?.tensors.has(theirs)) {
      throw new CheckpointError(
        `Cannot use ${folder}: no file has the tensor "${theirs}"`,
        `all tensors of a model of ${sizes.numLayers} layers${
          sizes.tiedEmbeddings ? "" : ` whose output layer has weights of its own: ${names.get("output.weight")}`
        }`,
        "fetch the folder again, with all its safetensors files",
      );
    }
    const { shape, begin } = header!.tensors.get(theirs)!, dtype = typeOf(theirs, `${folder}/${file}`, header!);
    const whole: SavedPiece = { tensor: ours, file: file!, begin, starts: shape.map(() => 0), sizes: shape };
    pieces.get(file!)!.push(...piecesOf?.(ours, whole, storedBytes[dtype]) ?? [whole]);
    return [ours, { kind: "parameter", dtype, shape }];
  });
  const saved = [...headers].map(([name, { fileBytes }]): [string, SavedFile] => {
    return [name, { bytes: fileBytes, sha256: [] }];
  });
  const manifest: Manifest = {
    ...{ version: VERSION, step: 0, content: "model" },
    files: Object.fromEntries(saved),
    tensors: Object.fromEntries(tensors),
  };
  return { path: folder, manifest, piecesIn: (file) => pieces.get(file)! };
}

/** Element type of a tensor there. */
function typeOf(theirs: string, path: string, { tensors }: Header): StoredType {
  const { dtype: type, begin } = tensors.get(theirs)!, dtype = typesOfFormat[type];
  const refuse = (what: string, expected: string): never => {
    throw new CheckpointError(
      `Cannot use "${theirs}" of ${path}: ${what}`,
      expected,
      "save the model again in one of these types",
    );
  };
  if (!dtype || dtype === "i32") refuse(`its type is ${type}`, "F32, F64, F16 or BF16");
  if (begin % elementBytes[type] !== 0) refuse(`it begins at byte ${begin}`, `a multiple of ${elementBytes[type]}`);
  return dtype;
}

/** What a JSON file of a folder says.
 * @throws {CheckpointError} when it is not there, or is no object in JSON. */
export function readJson(path: string): Record<string, unknown> {
  try {
    const json = JSON.parse(Deno.readTextFileSync(path));
    if (typeof json === "object" && json !== null && !Array.isArray(json)) return json;
    throw new TypeError(`it says ${JSON.stringify(json)}, which is no object`);
  } catch (error) {
    throw new CheckpointError(
      `Cannot read ${path}: ${(error as Error).message}`,
      "a folder of a model as transformers saves it (config.json), or as Meta names it (params.json), with safetensors files",
      "correct checkpoint.initial_load_path",
    );
  }
}

/** Is there such a file? */
export function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
