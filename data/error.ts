/** What can be wrong with data, as text that says what happened, what was expected and how to fix it. @module */

/** The kinds of problem; stable. */
export type DataErrorCode =
  | "bad_document"
  | "bad_gguf"
  | "bad_option"
  | "bad_state"
  | "bad_token"
  | "bad_tokenizer"
  | "cache_full"
  | "changed_content"
  | "damaged_shard"
  | "dataset_needs_path"
  | "empty_dataset"
  | "no_access"
  | "no_such_file"
  | "too_long"
  | "too_many_lanes"
  | "too_short"
  | "unknown_dataset"
  | "unreachable"
  | "unreadable";

/** One thing that is wrong; plain data, so that it can cross from a worker. */
export interface DataProblem {
  /** Kind of the problem. */
  readonly code: DataErrorCode;
  /** What happened, with the file or name that it is about. */
  readonly what: string;
  /** What would have been right. */
  readonly expected: string;
  /** What to do about it. */
  readonly fix: string;
}

/** A tokenizer, a dataset or a loader's state cannot be used. */
export class DataError extends Error {
  /** Tells it from other errors. */
  override readonly name = "DataError";
  /** The parts of the message. */
  readonly problem: DataProblem;

  /** Joins the parts of a problem into the message. */
  constructor(problem: DataProblem, options?: ErrorOptions) {
    super(`${problem.what}\n  expected: ${problem.expected}\n  fix: ${problem.fix}   (${problem.code})`, options);
    this.problem = problem;
  }

  /** Kind of the problem. */
  get code(): DataErrorCode {
    return this.problem.code;
  }
}
