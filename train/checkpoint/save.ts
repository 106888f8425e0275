/** Saving a checkpoint: all ranks write their shares into a folder of another name, and the first makes a checkpoint of it when it
 * has heard from all. Until then the folder has no manifest; afterwards it lasts.
 * @module */
import type { DType, State } from "../../graph/ir.ts";
import type { Layout } from "../../graph/layout.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import { CheckpointError } from "./error.ts";
import { makeEmptyFolder, removeIfThere, syncFolder, writeLasting } from "./files.ts";
import { MANIFEST, type Manifest, type SavedFile, type SavedPiece, type SavedTensor } from "./manifest.ts";
import { sharesOf } from "./pieces.ts";
import { type LocalState, type StateMemory, writeShare } from "./write.ts";

/** States that are spread over ranks, and a rank's own part of them. */
export interface SpreadStates {
  readonly mesh: Mesh;
  readonly rank: number;
  /** Whole states. */
  readonly states: readonly State[];
  layoutOf(state: State): Layout;
  localOf(name: string): LocalState;
  readonly memory: StateMemory;
}

/** Processes that save together. */
export interface Together {
  /** The values of all ranks, by rank. */
  exchangeJson<T>(mine: T): Promise<T[]>;
}

/** What a run goes on from beside its tensors; plain JSON. */
export type RunState = Readonly<Record<string, unknown>>;

/** Name of the file with the {@linkcode RunState}. */
export const STATE_FILE = "state.json";

/** Writes a checkpoint; one of this name is there until the new one is complete.
 * @param path of its folder: `outputs/checkpoint/step-100`. @param spread what is saved of states, by the ranks that have them.
 * @param options `step`: optimizer steps that were made; `state`: what `state.json` is to say; `group`: the other ranks.
 * @returns the bytes of all files with tensors. @throws {CheckpointError} on all ranks, with what failed on which. */
export async function saveCheckpoint(
  path: string,
  spread: SpreadStates,
  options: {
    readonly step: number;
    readonly content: Manifest["content"];
    readonly state: RunState;
    /** Element type of what is written; default: that of each state. */
    readonly dtype?: DType;
    readonly group?: Together;
  },
): Promise<number> {
  const { step, content, state, dtype, group } = options, { mesh, rank, memory } = spread;
  const states = spread.states.map((s) => dtype ? { ...s, dtype } : s);
  const unfinished = `${path}.tmp`, isFirst = rank === 0;
  /** Does something on some ranks; all learn of a failure. */
  const together = async <T>(work: () => T | Promise<T>): Promise<T[]> => {
    const outcome = await outcomeOf(work), all = group ? await group.exchangeJson(outcome) : [outcome];
    const failed = all.findIndex((o) => o.error !== undefined);
    if (failed < 0) return all.map((o) => o.value as T);
    throw new CheckpointError(
      `Cannot save checkpoint ${path}: ${mesh.size > 1 ? `rank ${failed}: ` : ""}${all[failed].error}`,
      "a folder with room, that every rank can write to",
      "make room, or set checkpoint.folder to another; what was saved before is as it was",
    );
  };
  await together(() => isFirst && makeEmptyFolder(unfinished));
  const shares = await together(async () => {
    const pieces = sharesOf(states, (s) => spread.layoutOf(s), mesh)[rank];
    const written = await writeShare(unfinished, pieces, {
      ...{ rank, ranks: mesh.size, step, memory },
      localOf: (name) => spread.localOf(name),
    });
    syncFolder(unfinished);
    return written;
  });
  await together(() => {
    if (!isFirst) return;
    const files: Record<string, SavedFile> = Object.assign({}, ...shares.map((s) => s.files));
    files[STATE_FILE] = writeLasting(`${unfinished}/${STATE_FILE}`, `${JSON.stringify(state, null, 2)}\n`);
    const tensors = Object.fromEntries(states.map((s): [string, SavedTensor] => {
      const pieces = shares.flatMap(({ pieces }): SavedPiece[] => s.name in pieces ? [pieces[s.name]] : []);
      return [s.name, { kind: s.kind, dtype: s.dtype, shape: s.shape, pieces }];
    }));
    const manifest: Manifest = { version: 1, step, content, files, tensors };
    writeLasting(`${unfinished}/${MANIFEST}`, `${JSON.stringify(manifest)}\n`);
    syncFolder(unfinished);
    putInPlace(unfinished, path);
  });
  return shares.flatMap(({ files }) => Object.values(files)).reduce((sum, { bytes }) => sum + bytes, 0);
}

async function outcomeOf<T>(work: () => T | Promise<T>): Promise<{ value?: T; error?: string }> {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

/** Gives a complete folder its name. An older one of that name is out of the way before, and removed after. */
function putInPlace(unfinished: string, path: string): void {
  const old = `${path}.old`, parent = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  removeIfThere(old);
  try {
    Deno.renameSync(path, old);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  Deno.renameSync(unfinished, path);
  syncFolder(parent);
  removeIfThere(old);
}
