/** When checkpoints are saved, which of them are kept, and from which a run goes on.
 * @module */
import { CheckpointError } from "./error.ts";
import { openWeights } from "../weights/open.ts";
import type { Checkpoint } from "./manifest.ts";
import { findCheckpoints, openCheckpoint } from "./open.ts";

/** A part of what a run goes on from, by torchtitan's name. */
export type Part = "model" | "optimizer" | "lr_scheduler" | "dataloader" | "train_state";

/** All of them. */
export const PARTS: readonly Part[] = ["model", "optimizer", "lr_scheduler", "dataloader", "train_state"];

/** How a run saves, and from where it goes on. */
export interface CheckpointOptions {
  /** Folder of the checkpoints, each in a folder of its own: `step-100`. */
  readonly folder: string;
  /** Steps from one save to the next; default 500. */
  readonly interval?: number;
  /** Checkpoints that are kept; default 10, 0 keeps all. */
  readonly keepLatestK?: number;
  /** Is the first step saved as well? Default false. */
  readonly firstStep?: boolean;
  /** Does the last step save parameters alone? Default true. */
  readonly lastSaveModelOnly?: boolean;
  /** Does the last step save them as a folder that `transformers` opens? Default false. */
  readonly lastSaveInHf?: boolean;
  /** Element type of the parameters that the last step saves alone; default: that of the run. */
  readonly exportDtype?: "f32" | "bf16" | "f16";
  /** Does training go on while a checkpoint is written? The last save, and that of a run that is stopped, are waited for. Default false. */
  readonly async?: boolean;
  /** Bytes of the state that this process copies ahead of the disk, where training goes on meanwhile. The fewer, the longer does the next
   * update wait. Default 0: all that it writes, as far as memory allows. */
  readonly stagingBytes?: number;
  /** Is a run that is stopped saved first? Default true. */
  readonly saveOnStop?: boolean;
  /** Is nothing ever saved? Default false. */
  readonly loadOnly?: boolean;
  /** The step to go on from; default -1, the latest. */
  readonly loadStep?: number;
  /** Parts that begin anew. Default: none. */
  readonly excludeFromLoading?: readonly Part[];
  /** The checkpoint to begin from where `folder` has none. */
  readonly initialLoadPath?: string;
  /** Is that a folder of weights that `transformers` or Meta has made, which has parameters alone? Default false. */
  readonly initialLoadInHf?: boolean;
  /** Are only parameters taken from there? Default true. */
  readonly initialLoadModelOnly?: boolean;
  /** Does training go on after a save that fails, with a warning, until the next? The last save, and that of a run which is stopped,
   * are errors in any case. Default true. */
  readonly goOnUnsaved?: boolean;
  /** Are bytes compared with their hashes when they are read? Default true. */
  readonly verify?: boolean;
}

/** Options with nothing left open. */
export type CheckpointPolicy =
  & Required<Omit<CheckpointOptions, "initialLoadPath" | "exportDtype">>
  & Pick<CheckpointOptions, "initialLoadPath" | "exportDtype">;

/** Fills in defaults. */
export function policyOf(options: CheckpointOptions): CheckpointPolicy {
  return {
    interval: 500,
    keepLatestK: 10,
    firstStep: false,
    lastSaveModelOnly: true,
    lastSaveInHf: false,
    async: false,
    stagingBytes: 0,
    saveOnStop: true,
    loadOnly: false,
    loadStep: -1,
    excludeFromLoading: [],
    initialLoadInHf: false,
    initialLoadModelOnly: true,
    goOnUnsaved: true,
    verify: true,
    ...options,
  };
}

/** What a run goes on from, and why. */
export interface Choice {
  readonly checkpoint: Checkpoint;
  /** What is taken from it. */
  readonly parts: readonly Part[];
  /** What a person should know about the choice. */
  readonly notices: readonly string[];
  /** Checkpoints of later steps than the run begins with, as it goes back or counts its steps anew: for {@linkcode setAside}. */
  readonly leaves: readonly string[];
}

/** Finds the checkpoint that a run goes on from: of `folder` the step that is asked for, else the latest that is complete; else the
 * one to begin from. Undefined: there is none, and the run begins anew.
 * @throws {CheckpointError} when there is something that cannot be used, and nothing that can. */
export function chooseStart(policy: CheckpointPolicy): Choice | undefined {
  const { folder, loadStep, excludeFromLoading, initialLoadPath, initialLoadInHf, initialLoadModelOnly } = policy;
  const without = (parts: readonly Part[]) => parts.filter((part) => !excludeFromLoading.includes(part));
  if (loadStep >= 0) {
    const checkpoint = openCheckpoint(`${folder}/step-${loadStep}`), parts = without(partsOf(checkpoint));
    const leaves = laterSteps(policy, checkpoint, parts);
    return { checkpoint, parts, notices: leavesText(leaves), leaves };
  }
  const { complete, broken } = findCheckpoints(folder);
  // One of step 0 has nothing but parameters to go on from: it is where several runs begin alike.
  const isSeed = complete[0]?.manifest.step === 0, whole = complete.find((c) => c.manifest.content === "full");
  const checkpoint = whole ?? (isSeed ? complete[0] : undefined);
  if (checkpoint) {
    const newer = complete.slice(0, complete.indexOf(checkpoint)).map((c) => `${c.path} has parameters alone`);
    const lost = broken.map((b) => b.reason.message.split("\n")[0]);
    const parts = without(partsOf(checkpoint)), goesOn = parts.includes("train_state");
    const leaves = goesOn ? [] : laterSteps(policy, checkpoint, parts);
    return { checkpoint, parts, notices: [...goesOn ? newer : leavesText(leaves), ...lost], leaves };
  }
  if (complete.length > 0) {
    throw new CheckpointError(
      `Cannot go on from ${complete[0].path}: it has parameters alone, no optimizer and no place in the data`,
      "a checkpoint of a whole run (checkpoint.last_save_model_only = false saves one at the end)",
      `set checkpoint.load_step = ${
        complete[0].manifest.step
      } to begin anew from its parameters, or checkpoint.folder to another`,
    );
  }
  if (broken.length > 0) {
    throw new CheckpointError(
      `Cannot go on from ${folder}: ${
        broken.length === 1
          ? "its only checkpoint is not complete"
          : `none of its ${broken.length} checkpoints is complete`
      }\n  ` +
        broken.map((b) => b.reason.message.split("\n")[0]).join("\n  "),
      "at least one that is complete",
      "put back what is missing, or set checkpoint.folder to another",
    );
  }
  if (initialLoadPath === undefined) return;
  const initial = initialLoadInHf ? openWeights(initialLoadPath) : openCheckpoint(initialLoadPath);
  const all = initialLoadModelOnly ? ["model"] as const : partsOf(initial);
  return { checkpoint: initial, parts: without(all), notices: [], leaves: [] };
}

/** Checkpoints of later steps than a run begins with, if it saves any. */
function laterSteps({ folder, loadOnly }: CheckpointPolicy, from: Checkpoint, parts: readonly Part[]): string[] {
  const step = parts.includes("train_state") ? from.manifest.step : 0;
  return loadOnly ? [] : findCheckpoints(folder).complete.filter((c) => c.manifest.step > step).map((c) => c.path);
}

/** What becomes of them, in a line. */
function leavesText(paths: readonly string[]): string[] {
  if (paths.length === 0) return [];
  const [what, it] = paths.length === 1 ? ["a later step", "it"] : ["later steps", "them"];
  return [
    `${paths.join(", ")}, of ${what} than this run begins with: its first save puts ${it} aside, as step-N.aside`,
  ];
}

/** What a checkpoint has. */
function partsOf({ manifest }: Checkpoint): readonly Part[] {
  return manifest.content === "full" ? PARTS : ["model"];
}

/** What a step is to save: everything, parameters alone, or nothing.
 * @param last is it the last of the run? @param stopping is the run about to stop before that? */
export function dueSave(
  step: number,
  { last, stopping }: { readonly last: boolean; readonly stopping: boolean },
  policy: CheckpointPolicy,
): "full" | "model" | undefined {
  const { interval, firstStep, lastSaveModelOnly, saveOnStop, loadOnly } = policy;
  if (loadOnly) return;
  if (last) return lastSaveModelOnly ? "model" : "full";
  if (step % interval === 0 || (firstStep && step === 1) || (stopping && saveOnStop)) return "full";
}

/** Gives the checkpoints that a run leaves behind another name, before it saves for the first time: so they are not mixed with its
 * own. None is replaced, and the next run does not take one for the latest.
 * @param paths see {@linkcode Choice.leaves}. @throws {CheckpointError} when that fails. */
export function setAside(paths: readonly string[]): void {
  for (const path of paths) {
    try {
      Deno.renameSync(path, freeName(`${path}.aside`));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue; // somebody has moved it
      throw new CheckpointError(
        `Cannot put ${path} aside: ${(error as Error).message}`,
        "to rename it to step-N.aside, as this run begins with an earlier step",
        "move it to another folder",
      );
    }
  }
}

function freeName(path: string): string {
  for (let n = 1;; n++) {
    const name = n === 1 ? path : `${path}-${n}`;
    try {
      Deno.lstatSync(name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return name;
      throw error;
    }
  }
}

/** Deletes the oldest checkpoints, so that `keepLatestK` are left; what a save that was cut off has left goes too. What is to go gets
 * another name before this returns, so that a save may begin while files are deleted. None may be under way when it is called.
 * @param keep a checkpoint that stays in any case: the one that the run has begun from.
 * @returns what could not be deleted, a text each; that is no reason to end a run, so it never throws. */
export async function removeOld(policy: CheckpointPolicy, keep?: string): Promise<string[]> {
  const { folder } = policy, failures: string[] = [], going: string[] = [];
  const failed = (path: string, error: unknown) => {
    failures.push(`Cannot delete ${path}: ${(error as Error).message}`);
  };
  try {
    for (const { name } of Deno.readDirSync(folder)) {
      const path = `${folder}/${name}`;
      if (/^step-\d+(\.\w+)?\.gone$/.test(name)) going.push(path);
      else if (/^step-\d+\.tmp$/.test(name)) renamed(path);
    }
    for (const path of outdated(policy, keep)) renamed(path);
  } catch (error) {
    failed(`old checkpoints of ${folder}`, error);
  }
  for (const path of going) {
    try {
      await Deno.remove(path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) failed(path, error);
    }
  }
  return failures;

  /** What is half deleted is then no checkpoint. */
  function renamed(path: string): void {
    try {
      Deno.renameSync(path, `${path}.gone`);
      going.push(`${path}.gone`);
    } catch (error) {
      failed(path, error);
    }
  }
}

/** The checkpoints that are too many. */
function outdated({ folder, keepLatestK }: CheckpointPolicy, keep: string | undefined): string[] {
  if (keepLatestK === 0) return [];
  const { complete } = findCheckpoints(folder), latestFull = complete.find((c) => c.manifest.content === "full");
  return complete.slice(keepLatestK).map((c) => c.path).filter((path) => path !== keep && path !== latestFull?.path);
}
