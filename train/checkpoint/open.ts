/** Opens what a run can go on from: checkpoints with a manifest, and weights that another program or an export has written.
 * @module */
import { hasWeights, openWeights } from "../weights/open.ts";
import { CheckpointError } from "./error.ts";
import { tensorsIn, withHeaders } from "./headers.ts";
import { type Checkpoint, MANIFEST, namesText, readManifest } from "./manifest.ts";

/** Reads a checkpoint's manifest, and looks whether its files are there in full length. A last step that was saved as `transformers`
 * has weights has no manifest; it has parameters alone.
 * @throws {CheckpointError} with the first that is not. */
export function openCheckpoint(path: string): Checkpoint {
  if (sizeOf(`${path}/${MANIFEST}`) === undefined && hasWeights(path)) {
    const weights = openWeights(path), { manifest } = weights;
    return { ...weights, manifest: { ...manifest, step: Number(/step-(\d+)(\.old)?$/.exec(path)?.[1] ?? 0) } };
  }
  const manifest = readManifest(path), checkpoint = withHeaders(path, manifest);
  for (const [name, { bytes }] of Object.entries(manifest.files)) {
    const found = sizeOf(`${path}/${name}`);
    if (found === bytes) continue;
    const what = found === undefined ? `${name} is missing` : `${name} has ${found} bytes`;
    throw new CheckpointError(
      `Cannot use checkpoint ${path}: ${what}${namesText(tensorsIn(checkpoint, name), ", of ")}`,
      `${name} with the ${bytes} bytes that ${MANIFEST} says`,
      "put the file back, or choose another checkpoint (checkpoint.load_step)",
    );
  }
  return checkpoint;
}

/** What lies in a folder of checkpoints. */
export interface Found {
  /** Those with all their files, the latest step first. */
  readonly complete: readonly Checkpoint[];
  /** Folders of steps that are none, each with the reason. */
  readonly broken: readonly { readonly path: string; readonly reason: CheckpointError }[];
}

/** Looks through a folder of checkpoints; one that does not exist has none. */
export function findCheckpoints(folder: string): Found {
  const complete: Checkpoint[] = [], broken: { path: string; reason: CheckpointError }[] = [];
  for (const path of stepFolders(folder)) {
    try {
      complete.push(openCheckpoint(path));
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      broken.push({ path, reason: error });
    }
  }
  // Of two of one step the one that another was to replace is only there when that went wrong.
  return { complete: complete.toSorted((a, b) => b.manifest.step - a.manifest.step), broken };
}

function stepFolders(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].filter((e) => e.isDirectory && /^step-\d+(\.old)?$/.test(e.name))
      .map((e) => `${folder}/${e.name}`).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw new CheckpointError(
      `Cannot look for checkpoints in ${folder}: ${(error as Error).message}`,
      "a folder that this process may read",
      "set checkpoint.folder to another",
    );
  }
}

function sizeOf(path: string): number | undefined {
  try {
    return Deno.statSync(path).size;
  } catch {
    return undefined;
  }
}
