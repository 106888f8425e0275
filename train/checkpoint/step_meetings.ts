/** Ranks that save beside training meet at the end of a step: no program runs then, and all ranks come by.
 * @module */
import type { Together } from "./save.ts";

/** The meetings of one checkpoint. */
export class StepMeetings implements Together {
  readonly #group: Together;
  #open: { readonly hold: () => Promise<void>; isReady: boolean } | undefined;
  #atOnce = false;

  /** @param group how ranks meet. */
  constructor(group: Together) {
    this.#group = group;
  }

  /** Waits for the end of the step at which all ranks are ready. */
  meet<T>(work: Promise<T>): Promise<T[]> {
    if (this.#atOnce) return this.#group.meet(work);
    const { promise, resolve } = Promise.withResolvers<T[]>();
    const open = { hold: async () => resolve(await this.#group.meet(work)), isReady: false };
    work.then(() => open.isReady = true);
    this.#open = open;
    return promise;
  }

  /** Does this rank wait for the others? */
  get isReady(): boolean {
    return this.#open?.isReady ?? false;
  }

  /** Meets the others; all ranks call it at the end of the same step, when all of them are ready. */
  async hold(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.hold();
  }

  /** Meets them at once from now on, and waits; all ranks call it at the end of the same step. */
  async hurry(): Promise<void> {
    this.#atOnce = true;
    await this.hold();
  }
}
