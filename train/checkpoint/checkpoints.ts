/** The checkpoints of a run: what it goes on from, and what it leaves behind.
 * @module */
import { ABI_VERSION } from "../../ffi/symbols.ts";
import { library } from "../../ffi/library.ts";
import type { LoaderState } from "../../data/loader.ts";
import type { DType, StateKind } from "../../graph/ir.ts";
import { Llama } from "../../model/llama.ts";
import type { TrainableModel } from "../../model/loss.ts";
import type { MeshLayout } from "../ranks.ts";
import { CheckpointError } from "./error.ts";
import type { Checkpoint } from "./manifest.ts";
import {
  type CheckpointOptions,
  type CheckpointPolicy,
  chooseStart,
  dueSave,
  type Part,
  policyOf,
  removeOld,
} from "./policy.ts";
import { readSmall, readStates, type Wanted } from "./read.ts";
import { type RunState, type SpreadStates, STATE_FILE } from "./save.ts";

/** A checkpoint that was saved. */
export interface Saved {
  /** Its folder. */
  readonly path: string;
  /** Parameters alone, or all that a run goes on from. */
  readonly content: "model" | "full";
  /** Bytes of all its tensors. */
  readonly bytes: number;
  /** How long training stood still, in milliseconds. */
  readonly ms: number;
  /** Why it could not be saved; training goes on. */
  readonly failure?: CheckpointError;
}

/** Where a run goes on from. */
export interface Start {
  /** Folder of the checkpoint. */
  readonly path: string;
  /** What is taken from it. */
  readonly parts: readonly Part[];
  /** What a person should know about the choice. */
  readonly notices: readonly string[];
  /** Steps that were made. */
  readonly step: number;
  /** The step behind which the learning rate's schedule begins: 0, or `step` where the schedule begins anew. */
  readonly scheduleFrom: number;
  /** Tokens that were seen. */
  readonly tokensSeen: number;
  /** Place in the data; undefined: at its beginning.
   * @internal */
  readonly loader: LoaderState | undefined;
  /** The configuration that it was saved with. */
  readonly config: unknown;
}

/** What `state.json` says. */
interface SavedState {
  readonly step: number;
  readonly tokensSeen: number;
  readonly loader: LoaderState;
  readonly config: unknown;
}

/** Checkpoints of a run. */
export class Checkpoints {
  /** Undefined: the run begins anew. */
  readonly start: Start | undefined;
  /** What was saved last. */
  saved: Saved | undefined;
  readonly #policy: CheckpointPolicy;
  readonly #chosen: Checkpoint | undefined;
  readonly #isFirst: boolean;

  /** Finds what the run goes on from.
   * @param rank of this process; the first one deletes what is old. @throws {CheckpointError} when that cannot be used. */
  constructor(options: CheckpointOptions, rank = 0) {
    this.#policy = policyOf(options);
    this.#isFirst = rank === 0;
    const choice = chooseStart(this.#policy);
    if (!choice) return;
    const { checkpoint, parts, notices } = choice, { path } = checkpoint;
    this.#chosen = checkpoint;
    // A folder of weights has none.
    const saved: SavedState | undefined = STATE_FILE in checkpoint.manifest.files
      ? JSON.parse(readSmall(checkpoint, STATE_FILE))
      : undefined;
    const { step, tokensSeen } = saved && parts.includes("train_state") ? saved : { step: 0, tokensSeen: 0 };
    const loader = parts.includes("dataloader") ? saved?.loader : undefined;
    const scheduleFrom = parts.includes("lr_scheduler") ? 0 : step;
    this.start = { path, parts, notices, config: saved?.config ?? null, step, scheduleFrom, tokensSeen, loader };
  }

  /** Puts the checkpoint's tensors in place of the initial ones.
   * @throws {CheckpointError} when they do not fit, or are damaged. */
  async load(states: (kinds: StateKind[]) => SpreadStates & { readonly wanted: readonly Wanted[] }): Promise<void> {
    if (!this.start || !this.#chosen) return;
    const kinds = ([["model", "parameter"], ["optimizer", "moment"]] as const).filter(([part]) =>
      this.start!.parts.includes(part)
    ).map(([, kind]) => kind);
    const { wanted, memory } = states(kinds);
    await readStates(this.#chosen, wanted, { memory, verify: this.#policy.verify });
  }

  /** Saves behind a step, if that is due and has not been done.
   * @throws {CheckpointError} when it cannot be saved and the run would lose by going on. */
  async after(
    place: { readonly step: number; readonly last: boolean; readonly stopping: boolean },
    save: (path: string, content: Saved["content"], dtype?: DType) => Promise<Saved>,
  ): Promise<Saved | undefined> {
    const content = dueSave(place.step, place, this.#policy), path = `${this.#policy.folder}/step-${place.step}`;
    if (!content || this.saved?.path === path) return;
    const begun = performance.now();
    try {
      this.saved = await save(path, content, content === "model" ? this.#policy.exportDtype : undefined);
      if (this.#isFirst) removeOld(this.#policy, this.start?.path);
      return this.saved;
    } catch (error) {
      const isFinal = place.last || place.stopping || !this.#policy.goOnUnsaved;
      if (!(error instanceof CheckpointError) || isFinal) throw error;
      return { path, content, bytes: 0, ms: performance.now() - begun, failure: error };
    }
  }
}

/** What `state.json` is to say of a run. */
export function runState(
  options: {
    readonly step: number;
    readonly tokensSeen: number;
    readonly loader: LoaderState;
    readonly seed: number;
    readonly agreed?: Readonly<Record<string, unknown>>;
    readonly model: TrainableModel;
    readonly ranks: MeshLayout | undefined;
  },
): RunState {
  const { step, tokensSeen, loader, seed, agreed, ranks, model } = options;
  const versions = { libtitan: library().version, abi: ABI_VERSION };
  return {
    version: 1,
    step,
    tokensSeen,
    seed,
    loader,
    mesh: ranks?.mesh.degrees ?? {},
    versions,
    config: agreed ?? null,
    // What an export needs to know.
    ...(model instanceof Llama ? { llama: model.config } : {}),
  };
}
