/** What is wrong with what text is to be generated from.
 * @module */

/** Text cannot be generated as it was asked for. */
export class GenerateError extends Error {
  /** Tells it from other errors. */
  override readonly name = "GenerateError";

  /** Says it in one message.
   * @param what what happened. @param expected what should have been. @param fix what to do. */
  constructor(readonly what: string, readonly expected: string, readonly fix: string) {
    super(`${what}\n  expected: ${expected}\n  fix: ${fix}   (generate)`);
  }
}
