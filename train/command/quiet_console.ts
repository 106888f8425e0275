/** The console of a run of which nothing is to be heard but what goes wrong. @module */

/** Has `console.log` print warnings alone, on standard error, until it is disposed of. */
export class QuietConsole implements Disposable {
  readonly #log = console.log;

  /** Takes the console over. @param isShown is this a rank whose output is shown? */
  constructor(isShown: boolean) {
    console.log = (text: unknown) => {
      if (isShown && `${text}`.startsWith("warning: ")) console.error(text);
    };
  }

  /** Gives the console back. */
  [Symbol.dispose](): void {
    console.log = this.#log;
  }
}
