/** A checkpoint that is written while training goes on: what training waits for, and how it ended.
 * @module */
import type { Saving, Together } from "./save.ts";
import { StepMeetings } from "./step_meetings.ts";

/** How a save ended. */
export type Outcome = { readonly bytes: number } | { readonly error: unknown };

/** One of them. With other ranks, all of them make the same calls, between the same steps. */
export class BackgroundSave {
  readonly #saving: Saving;
  readonly #group: Together | undefined;
  readonly #meetings: StepMeetings | undefined;
  readonly #outcome: Promise<Outcome>;
  #ended: Outcome | undefined;
  #isCopying = true;
  readonly #begun: number;
  #endedMs = 0;
  #stallMs: number;

  private constructor(saving: Saving, begun: number, group?: Together, meetings?: StepMeetings) {
    this.#saving = saving;
    this.#group = group;
    this.#meetings = meetings;
    this.#begun = begun;
    this.#stallMs = performance.now() - begun;
    this.#outcome = saving.done.then((bytes): Outcome => ({ bytes }), (error): Outcome => ({ error }));
    this.#outcome.then((outcome) => {
      this.#ended = outcome;
      this.#endedMs = performance.now();
    });
  }

  /** Begins one. @param begin with how ranks meet while training goes on. */
  static async begin(
    begin: (later: Together | undefined) => Promise<Saving>,
    group: Together | undefined,
  ): Promise<BackgroundSave> {
    const begun = performance.now(), meetings = group && new StepMeetings(group);
    return new BackgroundSave(await begin(meetings), begun, group, meetings);
  }

  /** Has it ended? */
  get ended(): Outcome | undefined {
    return this.#ended;
  }

  /** How long it took so far, and how long training stood still for it, in milliseconds. */
  get times(): { readonly ms: number; readonly stallMs: number } {
    return { ms: (this.#endedMs || performance.now()) - this.#begun, stallMs: this.#stallMs };
  }

  /** Is something read of the states? From the beginning until {@linkcode untilCopied} was awaited. */
  get isCopying(): boolean {
    return this.#isCopying;
  }

  /** Waits until the states may change, on all ranks. */
  async untilCopied(): Promise<void> {
    const { copied } = this.#saving;
    await this.#standing<unknown>(() => this.#group ? this.#group.meet(copied.then(() => 1)) : copied);
    this.#isCopying = false;
  }

  /** Does this rank wait for the others to come to the end of a step? */
  get isReady(): boolean {
    return this.#meetings?.isReady ?? false;
  }

  /** Meets them there; all ranks are ready. */
  async hold(): Promise<void> {
    await this.#meetings?.hold();
  }

  /** Waits for the end; training stands still. */
  async finish(): Promise<Outcome> {
    return await this.#standing(async () => {
      await this.#meetings?.hurry();
      return await this.#outcome;
    });
  }

  /** Waits for this process's part of it, as the run ends in the middle: other ranks are not met any more. */
  async leave(): Promise<void> {
    await (this.#meetings ? this.#saving.written : this.#outcome);
  }

  async #standing<T>(wait: () => Promise<T>): Promise<T> {
    const begun = performance.now(), result = await wait();
    this.#stallMs += performance.now() - begun;
    return result;
  }
}
