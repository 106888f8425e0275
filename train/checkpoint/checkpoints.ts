/** The checkpoints of a run: what it goes on from, and what it leaves behind.
 * @module */
import { ABI_VERSION } from "../../ffi/symbols.ts";
import { library } from "../../ffi/library.ts";
import { SAMPLE } from "../../data/dataset.ts";
import type { LoaderState } from "../../data/loader_state.ts";
import type { StateKind } from "../../graph/ir.ts";
import { tokenizerName, tokenizerPath } from "../../data/tokenizer.ts";
import type { TrainableModel } from "../../model/loss.ts";
import type { MeshLayout } from "../ranks.ts";
import type { StoredType } from "../typed_array.ts";
import { BackgroundSave } from "./background_save.ts";
import { CheckpointError } from "./error.ts";
import { replaceByExport } from "../weights/export.ts";
import type { Checkpoint } from "./manifest.ts";
import {
  type CheckpointOptions,
  type CheckpointPolicy,
  chooseStart,
  dueSave,
  type Part,
  policyOf,
  removeOld,
  setAside,
} from "./policy.ts";
import { nativeReader } from "./chunk_reader.ts";
import { readSmall, readStates, type Wanted } from "./read.ts";
import {
  outcomeOf,
  type RunState,
  type SaveOptions,
  type Saving,
  type SpreadStates,
  STATE_FILE,
  type Together,
} from "./save.ts";

/** A checkpoint that was saved. */
export interface Saved {
  /** Its folder. */
  readonly path: string;
  /** Parameters alone, or all that a run goes on from. */
  readonly content: "model" | "full";
  /** Bytes of all its tensors. */
  readonly bytes: number;
  /** From its beginning until it was complete, in milliseconds. */
  readonly ms: number;
  /** How long training stood still for it, in milliseconds. */
  readonly stallMs: number;
  /** Why it could not be saved; training goes on. */
  readonly failure?: CheckpointError;
}

/** How a trainer begins to save. */
export type Begin = (path: string, options: BeginOptions) => Promise<Saving>;

/** What it saves, and how. */
export type BeginOptions = Pick<SaveOptions, "content" | "dtype" | "later" | "prepare">;

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
  /** The step behind which the learning rate's schedule begins: 0, unless the schedule alone begins anew, or all but the schedule. */
  readonly scheduleFrom: number;
  /** The step behind which the optimizer's moments begin, likewise. */
  readonly optimizerFrom: number;
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
  /** Steps that the learning rate's schedule has made, and the optimizer's moments; not there: `step`. */
  readonly scheduleStep?: number;
  readonly optimizerStep?: number;
  readonly tokensSeen: number;
  readonly loader: LoaderState;
  readonly config: unknown;
}

/** What checkpoints need to know of a run. */
export interface RunFacts {
  /** Of this process: the first one deletes what is old. Default 0. */
  readonly rank?: number;
  /** Receives what goes wrong with that. Default: it is printed. */
  readonly tell?: (text: string) => void;
  /** Folder of the tokenizer; default: the sample's. */
  readonly tokenizer?: string | URL;
}

/** Checkpoints of a run. With other ranks, all of them make the same calls, between the same steps. */
export class Checkpoints implements AsyncDisposable {
  /** Undefined: the run begins anew. */
  readonly start: Start | undefined;
  /** Those that ended, also in a failure, in their order. */
  readonly saves: Saved[] = [];
  readonly #policy: CheckpointPolicy;
  readonly #chosen: Checkpoint | undefined;
  readonly #isFirst: boolean;
  readonly #tell: (text: string) => void;
  readonly #tokenizer: string;
  /** Checkpoints that the first save puts aside. */
  #leaves: readonly string[] = [];
  #removing: Promise<void> | undefined;
  /** What is written while training goes on. */
  #background: (Pick<Saved, "path" | "content"> & { readonly save: BackgroundSave }) | undefined;

  /** Finds what the run goes on from.
   * @throws {CheckpointError} when that cannot be used. */
  constructor(
    options: CheckpointOptions,
    { rank = 0, tell = console.log, tokenizer = SAMPLE }: RunFacts = {},
  ) {
    this.#policy = policyOf(options);
    this.#isFirst = rank === 0;
    this.#tell = tell;
    this.#tokenizer = tokenizerPath(tokenizerName(tokenizer));
    const choice = chooseStart(this.#policy);
    if (!choice) return;
    const { checkpoint, parts, notices } = choice, { path } = checkpoint;
    this.#chosen = checkpoint;
    this.#leaves = choice.leaves;
    // A folder of weights has none.
    const saved: SavedState | undefined = STATE_FILE in checkpoint.manifest.files
      ? JSON.parse(readSmall(checkpoint, STATE_FILE))
      : undefined;
    const { step, tokensSeen } = saved && parts.includes("train_state") ? saved : { step: 0, tokensSeen: 0 };
    const loader = parts.includes("dataloader") ? saved?.loader : undefined;
    const made = (part: Part, steps?: number) => saved && parts.includes(part) ? steps ?? saved.step : 0;
    this.start = {
      ...{ path, parts, notices, config: saved?.config ?? null, step, tokensSeen, loader },
      scheduleFrom: step - made("lr_scheduler", saved?.scheduleStep),
      optimizerFrom: step - made("optimizer", saved?.optimizerStep),
    };
  }

  /** Puts the checkpoint's tensors in place of the initial ones.
   * @throws {CheckpointError} when they do not fit, or are damaged. */
  async load(states: (kinds: StateKind[]) => SpreadStates & { readonly wanted: readonly Wanted[] }): Promise<void> {
    if (!this.start || !this.#chosen) return;
    const kinds = ([["model", "parameter"], ["model", "buffer"], ["optimizer", "moment"]] as const).filter(([part]) =>
      this.start!.parts.includes(part)
    ).map(([, kind]) => kind);
    const { wanted, memory, rank } = states(kinds);
    await readStates(this.#chosen, wanted, {
      memory,
      rank,
      verify: this.#policy.verify,
      reader: () => nativeReader(memory),
    });
  }

  /** The last that was completed. */
  get saved(): Saved | undefined {
    return this.saves.findLast((save) => !save.failure);
  }

  /** What an update has to wait for, if anything: states that are still being copied. */
  get beforeUpdate(): (() => Promise<void>) | undefined {
    const save = this.#background?.save;
    return save?.isCopying ? () => save.untilCopied() : undefined;
  }

  /** Does this rank wait for the others to come to the end of a step? Where all do, all call {@linkcode hold}. */
  get isReady(): boolean {
    return this.#background?.save.isReady ?? false;
  }

  /** Meets the other ranks at the end of a step. */
  async hold(): Promise<void> {
    await this.#background?.save.hold();
  }

  /** Saves behind a step, if that is due and has not been done.
   * @param begin begins it. @param group the other ranks.
   * @throws {CheckpointError} when it cannot be saved and the run would lose by going on. */
  async after(
    place: { readonly step: number; readonly last: boolean; readonly stopping: boolean },
    begin: Begin,
    group?: Together,
  ): Promise<void> {
    const content = dueSave(place.step, place, this.#policy), path = `${this.#policy.folder}/step-${place.step}`;
    const isFinal = place.last || place.stopping;
    const background = this.#background;
    const isDue = content !== undefined && this.saved?.path !== path && background?.path !== path;
    if (background && (isDue || isFinal || background.save.ended)) await this.#finish(isFinal);
    if (!isDue) return;
    const dtype = content === "model" ? this.#policy.exportDtype : undefined;
    try {
      await this.#save({ path, content, dtype, isFinal }, begin, group);
    } catch (error) {
      // A weight that the type lacks must not cost the run: the last save is tried once more with all weights as they are.
      if (dtype === undefined || !(error instanceof CheckpointError)) throw error;
      this.saves.push({ path, content, bytes: 0, ms: 0, stallMs: 0, failure: error });
      await this.#save({ path, content, isFinal }, begin, group);
    }
    if (isFinal && content === "model" && this.#policy.lastSaveInHf) await this.#replaceByExport(path, group);
  }

  async #save(
    { path, content, dtype, isFinal }: {
      readonly path: string;
      readonly content: Saved["content"];
      readonly dtype?: StoredType;
      readonly isFinal: boolean;
    },
    begin: Begin,
    group?: Together,
  ): Promise<void> {
    const begun = performance.now();
    try {
      const prepare = () => setAside(this.#leaves);
      const save = await BackgroundSave.begin((later) => begin(path, { content, dtype, later, prepare }), group);
      this.#leaves = [];
      this.#background = { path, content, save };
    } catch (error) {
      const ms = performance.now() - begun;
      return this.#failed({ path, content, ms, stallMs: ms }, error, isFinal);
    }
    if (isFinal || !this.#policy.async) await this.#finish(isFinal);
  }

  /** What the last step has saved becomes a folder for others. */
  async #replaceByExport(path: string, group?: Together): Promise<void> {
    const work = outcomeOf(() => this.#isFirst ? replaceByExport(path, this.#tokenizer) : undefined);
    const [{ error }] = group ? await group.meet(work) : [await work];
    if (!error) return;
    throw new CheckpointError(
      `Cannot save ${path} as transformers has it: ${error.what}`,
      error.expected ?? "a folder with room for the weights once more",
      `the weights are in ${path}: \`deno task checkpoint export\` makes such a folder of them`,
    );
  }

  /** Waits for the end of what is written while training goes on.
   * @throws {CheckpointError} when it failed, and the run would lose by going on. */
  async #finish(isFinal: boolean): Promise<void> {
    const { path, content, save } = this.#background!, outcome = save.ended ?? await save.finish();
    this.#background = undefined;
    if ("error" in outcome) return this.#failed({ path, content, ...save.times }, outcome.error, isFinal);
    this.saves.push({ path, content, bytes: outcome.bytes, ...save.times });
    if (this.#isFirst) await this.#removeOld();
  }

  /** What is deleted has another name before the run goes on, and is gone some time later. */
  async #removeOld(): Promise<void> {
    await this.#removing;
    this.#removing = removeOld(this.#policy, this.start?.path).then((failures) =>
      failures.forEach((failure) => this.#tell(`warning: ${failure}`))
    );
  }

  #failed(saved: Omit<Saved, "bytes" | "failure">, error: unknown, isFinal: boolean): void {
    if (!(error instanceof CheckpointError) || isFinal || !this.#policy.goOnUnsaved) throw error;
    this.saves.push({ ...saved, bytes: 0, failure: error });
  }

  /** Waits until nothing is written any more. */
  async finish(): Promise<void> {
    if (this.#background) await this.#finish(true);
  }

  /** Waits until nothing is read of the states any more; what all of it has not been written stays no checkpoint. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#background?.save.leave();
    await this.#removing;
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
    readonly start: Start | undefined;
    readonly seqLen: number;
    readonly tokenizer?: string | URL;
  },
): RunState {
  const { step, tokensSeen, loader, seed, agreed, ranks, model, start, seqLen, tokenizer } = options;
  const versions = { libtitan: library().version, abi: ABI_VERSION };
  return {
    version: 1,
    step,
    scheduleStep: step - (start?.scheduleFrom ?? 0),
    optimizerStep: step - (start?.optimizerFrom ?? 0),
    tokensSeen,
    seed,
    loader,
    mesh: ranks?.mesh.degrees ?? {},
    versions,
    config: agreed ?? null,
    // What generating and exporting need to know; the tokenizer is null where it is the one that comes along.
    ...(model.family ? { [model.family.name]: model.family.sizes } : {}),
    seqLen,
    tokenizer: tokenizer === undefined ? null : tokenizerName(tokenizer),
  };
}
