/** The console of one rank among several: every line says which rank it comes from, and only some ranks are shown; errors always are.
 * @module */
import { format } from "node:util";
import { prefixed } from "../../launch/rank_output.ts";
import type { LogRanks } from "../config/config.ts";

/** Speaks for a rank until it is disposed of. */
export class RankConsole implements Disposable {
  readonly #before = { log: console.log, error: console.error };
  readonly #rank: number;
  #isShown = true;

  /** @param rank the one that this process is. */
  constructor(rank: number) {
    this.#rank = rank;
    const { log, error } = this.#before, text = (data: unknown[]) => prefixed(format(...data), rank);
    console.log = (...data) => this.#isShown && log(text(data));
    console.error = (...data) => error(text(data));
  }

  /** From now on, what these ranks print is shown, and what others do is not. */
  show(ranks: LogRanks): void {
    this.#isShown = ranks === "all" || ranks.includes(this.#rank);
  }

  /** Gives the console back. */
  [Symbol.dispose](): void {
    Object.assign(console, this.#before);
  }
}
