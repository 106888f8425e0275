/** Checkpoints and weights of others, opened by programs: what they hold, and the values of a tensor by its name.
 * @module */
import { isGgufName } from "../../data/gguf.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import type { FileType, TypedArray } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { familyOfState } from "./family.ts";
import { readTensor } from "./inspect.ts";
import { type Checkpoint, MANIFEST } from "./manifest.ts";
import { findCheckpoints, openCheckpoint } from "./open.ts";
import { STATE_FILE } from "./save.ts";
import { hasWeights, openWeights, readWeightsConfig } from "../weights/open.ts";

/** A tensor that can be read. */
export interface LoadableTensor {
  /** Sizes of its dims. */
  readonly shape: readonly number[];
  /** Element type in the files. */
  readonly dtype: FileType;
}

/** What a folder holds. */
export interface LoadedCheckpoint {
  /** The folder, or the file of GGUF. */
  readonly path: string;
  /** Optimizer steps that were made; undefined for weights that others have saved. */
  readonly step: number | undefined;
  /** Parameters alone, or all that a run goes on from. */
  readonly content: "model" | "full";
  /** Of which family, and of what sizes, the model is, for `buildModel(family)`; undefined where it is of none that is known here. */
  readonly family: Family<TransformerSizes> | undefined;
  /** Its tensors by name: parameters as the model names them, moments as `moment1/NAME` and `moment2/NAME`. */
  readonly tensors: ReadonlyMap<string, LoadableTensor>;
  /** Reads a whole tensor, row-major, whatever pieces it was saved in; bf16, f16 and blocks of GGUF as f32. Bytes are compared with
   * their hashes, if they have some.
   * @throws {CheckpointError} when there is no such tensor, or it is damaged. */
  read(name: string): Promise<TypedArray>;
}

/** Opens a checkpoint, such as `outputs/checkpoint/step-100`, a folder with a model as `transformers` saves it or under Meta's names, or a
 * file of GGUF, whose tensors get the names and the order of rows that they have here. It reads no tensor yet, and needs no native library.
 * @throws {CheckpointError} when it is neither, or its files are not all there.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { buildModel, load, namedParameters } from "@libtitan/titan";
 *
 * const weights = load("tests/goldens/hf/plain");
 * for (const [name, { shape }] of namedParameters(buildModel(weights.family!))) {
 *   const values = await weights.read(name);
 *   assertEquals(values.length, shape.reduce((a, b) => a * b, 1));
 * }
 * ``` */
export function load(path: string): LoadedCheckpoint {
  const checkpoint = openFolder(path), { tensors, content, step, files } = checkpoint.manifest;
  return {
    path: checkpoint.path,
    step: STATE_FILE in files ? step : undefined,
    content,
    family: familyOf(checkpoint),
    tensors: new Map(Object.entries(tensors).map(([name, { shape, dtype }]) => [name, { shape, dtype }])),
    async read(name) {
      if (Object.hasOwn(tensors, name)) return await readTensor(checkpoint, name);
      const names = Object.keys(tensors), some = names.slice(0, 3).map((n) => `"${n}"`).join(", ");
      throw new CheckpointError(
        `Cannot read "${name}": ${path} has no such tensor`,
        `one of its ${names.length}, such as ${some}`,
        "choose among the names of tensors",
      );
    },
  };
}

/** Opens a checkpoint, a folder of weights of Hugging Face's or Meta's, or a file of GGUF.
 * @throws {CheckpointError} when it is none of them, or its files are not all there. */
export function openFolder(folder: string): Checkpoint {
  const path = folder.replace(/(?<=.)\/+$/, "");
  if (exists(`${path}/${MANIFEST}`)) return openCheckpoint(path);
  if (hasWeights(path)) return openWeights(path);
  throw neither(path);
}

/** Family and sizes of the model that a folder, or a file, is of; undefined where it is of none that is known here.
 * @throws {CheckpointError} when the file that says it is damaged. */
export function familyOf(checkpoint: Checkpoint): Family<TransformerSizes> | undefined {
  if (STATE_FILE in checkpoint.manifest.files) return familyOfState(checkpoint);
  return hasWeights(checkpoint.path) ? readWeightsConfig(checkpoint.path) : undefined;
}

/** Says what a folder is instead, as far as that can be seen. */
function neither(path: string): CheckpointError {
  const expected =
    `a checkpoint (a folder with ${MANIFEST}), weights of transformers (config.json) or Meta (params.json), or a file of GGUF`;
  const refuse = (what: string, fix: string) => new CheckpointError(`Cannot open ${path}: ${what}`, expected, fix);
  if (!exists(path)) {
    return isGgufName(path)
      ? refuse("there is no such file", "correct the path")
      : refuse("there is no such folder", "correct the path, or save a checkpoint (train --checkpoint.enable)");
  }
  if (!Deno.statSync(path).isDirectory) return refuse("it is a file", "name the folder that it is in, or a file .gguf");
  const { complete: [latest] } = findCheckpoints(path);
  if (latest) return refuse("it is a folder of checkpoints", `name one of them, such as ${latest.path}`);
  if (/\.tmp\/*$/.test(path)) {
    return refuse("its save was not finished", "use an earlier step; the next save of a run removes this folder");
  }
  return refuse(
    "it is no checkpoint, and has no config.json or params.json",
    "name a folder such as outputs/checkpoint/step-100",
  );
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw new CheckpointError(
      `Cannot read ${path}: ${(error as Error).message}`,
      "a folder that this process may read",
      "allow it to (deno run --allow-read), or correct the path",
    );
  }
}
