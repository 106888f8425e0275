/** The console of a run, which goes on when its output cannot be written, as to a file on a full disk. @module */

/** Has `console.log` and `console.error` throw nothing until it is disposed of. */
export class SteadyConsole implements Disposable {
  readonly #before = { log: console.log, error: console.error };
  #failed = false;

  /** Takes the console over. */
  constructor() {
    const { log, error } = this.#before;
    console.log = (...data) => this.#attempt(() => log(...data));
    console.error = (...data) => this.#attempt(() => error(...data));
  }

  /** Prints; the first failure is told, where anything can be. */
  #attempt(print: () => void): void {
    try {
      print();
    } catch (error) {
      if (this.#failed) return;
      this.#failed = true;
      const text = `warning: Cannot print: ${(error as Error).message}; the run goes on`;
      for (const tell of [this.#before.error, this.#before.log]) {
        try {
          return tell(text);
        } catch { // the other one, then
        }
      }
    }
  }

  /** Gives the console back. */
  [Symbol.dispose](): void {
    Object.assign(console, this.#before);
  }
}
