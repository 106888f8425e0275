/** What makes a folder a checkpoint: `manifest.json`, written last, which names every file with its length and hashes, and every
 * tensor with its type and shape. Which pieces of tensors a file has, its own header says. A folder without a manifest is no
 * checkpoint, whatever it is called.
 * @module */
import { createHash } from "node:crypto";
import type { StateKind } from "../../graph/ir.ts";
import type { FileType } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";

/** Files are hashed in chunks of so many bytes, so that whoever reads a part of one can check that part. */
export const CHUNK_BYTES = 8 * 2 ** 20;

/** Name of the file that makes a checkpoint. */
export const MANIFEST = "manifest.json";

/** Of the format. Until 2, manifests had all pieces: those of thousands of ranks are too many for one text. */
export const VERSION = 2;

/** States that a run goes on from. Sums begin anew in every step, caches are made again. */
export const lastingKinds: readonly StateKind[] = ["parameter", "moment", "buffer"];

/** Where a box of a tensor lies. */
export interface SavedPiece {
  readonly tensor: string;
  readonly file: string;
  /** First byte in the file. */
  readonly begin: number;
  /** First element along each dim of the whole tensor, and how many. */
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
}

/** A tensor of a checkpoint. */
export interface SavedTensor {
  readonly kind: StateKind;
  readonly dtype: FileType;
  /** Shape of the whole. */
  readonly shape: readonly number[];
}

/** A file of a checkpoint. */
export interface SavedFile {
  readonly bytes: number;
  /** SHA-256 of each {@linkcode CHUNK_BYTES} of it; of a smaller file, its own. Empty where nobody has made any. */
  readonly sha256: readonly string[];
  /** SHA-256 of the header, of a file that has pieces of tensors. */
  readonly header?: string;
}

/** A complete checkpoint. */
export interface Manifest {
  readonly version: typeof VERSION;
  /** Optimizer steps that were made. */
  readonly step: number;
  /** Parameters alone, or all that a run goes on from. */
  readonly content: "model" | "full";
  readonly files: Readonly<Record<string, SavedFile>>;
  readonly tensors: Readonly<Record<string, SavedTensor>>;
}

/** A folder that has a manifest, or weights that are read as if they had one. */
export interface Checkpoint {
  readonly path: string;
  readonly manifest: Manifest;
  /** Where its files are, if `path` is no folder but a file. */
  readonly folder?: string;
  /** The pieces that one of its files has; every element of every tensor is in one piece of one file.
   * @throws {CheckpointError} when its header is not the one that was written. */
  piecesIn(file: string): readonly SavedPiece[];
}

/** Where a file of a checkpoint is. */
export function fileOf({ path, folder = path }: Checkpoint, name: string): string {
  return `${folder}/${name}`;
}

/** Names behind a word, of many the first: `, of "norm.weight", "output.weight" and 5 more tensors`. Nothing where there are none. */
export function namesText(names: readonly string[], word: string): string {
  if (names.length === 0) return "";
  const shown = names.slice(0, 2).map((name) => `"${name}"`).join(", "), rest = names.length - 2;
  return `${word}${shown}${rest > 0 ? ` and ${rest} more tensor${rest > 1 ? "s" : ""}` : ""}`;
}

/** A manifest as a file has it, which ends with the hash of all that comes before. */
export function encodeManifest(manifest: Manifest): string {
  const text = JSON.stringify(manifest);
  return `${text.slice(0, -1)},"sha256":"${hashOf(text)}"}\n`;
}

const hashOf = (text: string): string => createHash("sha256").update(text).digest("hex");

/** Reads what {@linkcode encodeManifest} writes. A manifest without a hash is taken as it is.
 * @throws {Error} when its bytes are not those that were written. */
function decodeManifest(text: string): Manifest {
  const end = text.lastIndexOf(',"sha256":"'), [, hash] = /^,"sha256":"(.*)"\}\s*$/.exec(text.slice(end)) ?? [];
  if (hash !== undefined && hashOf(`${text.slice(0, end)}}`) !== hash) {
    throw new Error("it is damaged: its bytes are not those that were written");
  }
  return JSON.parse(text);
}

/** Reads the manifest of a folder.
 * @throws {CheckpointError} when there is none, or it is damaged. */
export function readManifest(path: string): Manifest {
  const wrong = (what: string, fix: string) => {
    return new CheckpointError(
      `${path} is no checkpoint: ${what}`,
      `a folder with a ${MANIFEST}, version ${VERSION}`,
      fix,
    );
  };
  let text: string;
  try {
    text = Deno.readTextFileSync(`${path}/${MANIFEST}`);
  } catch (error) {
    throw wrong((error as Error).message, "name the folder of a step, such as outputs/checkpoint/step-100");
  }
  try {
    const manifest = decodeManifest(text);
    if (manifest.version !== VERSION) throw new Error(`its version is ${manifest.version}`);
    if (typeof manifest.step !== "number" || !manifest.files || !manifest.tensors) throw new Error("parts are missing");
    return manifest;
  } catch (error) {
    throw wrong(`${MANIFEST}: ${(error as Error).message}`, "choose another checkpoint (checkpoint.load_step)");
  }
}
