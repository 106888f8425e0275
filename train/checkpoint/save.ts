/** Saving a checkpoint: all ranks write their shares into a folder of another name, and the first makes a checkpoint of it when it
 * has heard from all. Until then the folder has no manifest; afterwards it lasts.
 * @module */
import type { State } from "../../graph/ir.ts";
import type { Layout } from "../../graph/layout.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import type { StoredType } from "../typed_array.ts";
import { CheckpointError } from "./error.ts";
import { makeEmptyFolder, removeIfThere, syncFolder, writeLasting } from "./files.ts";
import { encodeManifest, MANIFEST, type Manifest, type SavedFile, type SavedTensor, VERSION } from "./manifest.ts";
import { shareOf, type StoredState } from "./pieces.ts";
import type { Staging } from "./staging.ts";
import { type LocalState, type StateMemory, writeShare } from "./write.ts";

/** States that are spread over ranks, and a rank's own part of them. */
export interface SpreadStates {
  readonly mesh: Mesh;
  readonly rank: number;
  /** Whole states. */
  readonly states: readonly State[];
  layoutOf(state: StoredState): Layout;
  localOf(name: string): LocalState;
  readonly memory: StateMemory;
}

/** Processes that save together. */
export interface Together {
  /** Waits until what each rank works on is done, and gives what came of it, by rank; through JSON. It never rejects. */
  meet<T>(work: Promise<T>): Promise<T[]>;
}

/** A checkpoint on its way. */
export interface Saving {
  /** Fulfilled when nothing more is read of the states: they may change from then on. Never rejected. */
  readonly copied: Promise<void>;
  /** Fulfilled when this rank's share is on the disk, or was given up. Never rejected. */
  readonly written: Promise<void>;
  /** The bytes of all files with tensors, when the checkpoint is complete and lasts; rejected on all ranks, with what failed on which. */
  readonly done: Promise<number>;
}

/** What a run goes on from beside its tensors; plain JSON. */
export type RunState = Readonly<Record<string, unknown>>;

/** Name of the file with the {@linkcode RunState}. */
export const STATE_FILE = "state.json";

/** How a checkpoint is written. */
export interface SaveOptions {
  /** Optimizer steps that were made. */
  readonly step: number;
  readonly content: Manifest["content"];
  /** What `state.json` is to say. */
  readonly state: RunState;
  /** Element type of what is written; default: that of each state. */
  readonly dtype?: StoredType;
  /** Is done by the first rank before anything is written. */
  readonly prepare?: () => void;
  /** The most that is copied ahead of the disk. */
  readonly staging: Staging;
  /** The other ranks, as they meet at once; default: there are none. */
  readonly group?: Together;
  /** As they meet behind the beginning; default: at once, too. */
  readonly later?: Together;
}

/** Begins to write a checkpoint; one of this name is there until the new one is complete.
 * @param path of its folder: `outputs/checkpoint/step-100`. @param spread what is saved of states, by the ranks that have them.
 * @throws {CheckpointError} on all ranks, when its folder cannot be made. */
export async function saveCheckpoint(path: string, spread: SpreadStates, options: SaveOptions): Promise<Saving> {
  const { step, content, state, dtype, prepare, staging, group, later = group } = options,
    { mesh, rank, memory } = spread;
  const states = spread.states.map((s) => dtype ? { ...s, dtype } : s);
  const unfinished = `${path}.tmp`, isFirst = rank === 0;
  /** Waits for what ranks do; all learn of a failure, of which nothing remains. */
  const together = async <T>(others: Together | undefined, work: () => T | Promise<T>): Promise<T[]> => {
    const outcome = outcomeOf(work), all = others ? await others.meet(outcome) : [await outcome];
    const failed = all.findIndex((o) => o.error !== undefined);
    if (failed < 0) return all.map((o) => o.value as T);
    if (isFirst) await removeIfThere(unfinished).catch(() => {}); // the failure that made it useless tells more
    const { what, expected, fix } = all[failed].error!;
    throw new CheckpointError(
      `Cannot save checkpoint ${path}: ${mesh.size > 1 ? `rank ${failed}: ` : ""}${what}`,
      expected ?? "a folder with room, that every rank can write to",
      fix ?? "make room, or set checkpoint.folder to another; what was saved before is as it was",
    );
  };
  await together(group, async () => {
    if (!isFirst) return;
    prepare?.();
    await makeEmptyFolder(unfinished);
  });
  const pieces = shareOf(rank, states, (s) => spread.layoutOf(s), mesh);
  const { copied, written } = writeShare(unfinished, pieces, {
    ...{ rank, ranks: mesh.size, step, memory, staging },
    localOf: (name) => spread.localOf(name),
  });
  const finish = async (): Promise<number> => {
    const shares = await together(later, async () => {
      const share = await written;
      await syncFolder(unfinished);
      return share;
    });
    await together(later, async () => {
      if (!isFirst) return;
      const files: Record<string, SavedFile> = Object.assign({}, ...shares);
      files[STATE_FILE] = await writeLasting(`${unfinished}/${STATE_FILE}`, `${JSON.stringify(state, null, 2)}\n`);
      const tensors = Object.fromEntries(states.map(({ name, kind, dtype, shape }): [string, SavedTensor] => {
        return [name, { kind, dtype, shape }];
      }));
      const manifest: Manifest = { version: VERSION, step, content, files, tensors };
      await writeLasting(`${unfinished}/${MANIFEST}`, encodeManifest(manifest));
      await syncFolder(unfinished);
      await putInPlace(unfinished, path);
    });
    return shares.flatMap((files) => Object.values(files)).reduce((sum, { bytes }) => sum + bytes, 0);
  };
  const done = finish();
  done.catch(() => {}); // whoever waits for it is told, whenever that is
  return { copied, written: written.then(() => {}, () => {}), done };
}

/** What came of some work: a value, or what failed and, where that is known, what to do. */
export interface WorkOutcome<T> {
  readonly value?: T;
  readonly error?: { readonly what: string; readonly expected?: string; readonly fix?: string };
}

/** Does some work; it never throws. */
export async function outcomeOf<T>(work: () => T | Promise<T>): Promise<WorkOutcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    if (!(error instanceof CheckpointError)) return { error: { what: (error as Error).message } };
    const { what, expected, fix } = error;
    return { error: { what, expected, fix } };
  }
}

/** Gives a complete folder its name. An older one of that name is out of the way before, and removed after. */
export async function putInPlace(unfinished: string, path: string): Promise<void> {
  const old = `${path}.old`, parent = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  await removeIfThere(old);
  try {
    await Deno.rename(path, old);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await Deno.rename(unfinished, path);
  await syncFolder(parent);
  await removeIfThere(old);
}
