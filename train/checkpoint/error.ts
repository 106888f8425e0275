/** What is wrong with a checkpoint.
 * @module */

/** A checkpoint that cannot be written or read. What is trained is as it was before. */
export class CheckpointError extends Error {
  /** Tells it from other errors. */
  override readonly name = "CheckpointError";

  /** Says it in one message.
   * @param what what happened, with the file. @param expected what should have been. @param fix what to do. */
  constructor(readonly what: string, readonly expected: string, readonly fix: string) {
    super(`${what}\n  expected: ${expected}\n  fix: ${fix}   (checkpoint)`);
  }
}
