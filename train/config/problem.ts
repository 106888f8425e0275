/**
 * What can be wrong with a configuration, as text that says what happened, what was expected and how to fix it.
 * @module
 */

/** One thing that is wrong. `code` is stable; the other parts are text for people. */
export interface Problem {
  readonly code: ProblemCode;
  readonly what: string;
  readonly expected: string;
  readonly fix: string;
}

/** The kinds of problem. */
export type ProblemCode =
  | "bad_argument"
  | "bad_value"
  | "batch_not_a_multiple"
  | "float8"
  | "precision_of_float64"
  | "two_tokenizers"
  | "cannot_write"
  | "chat_packing"
  | "folder_in_use"
  | "live_without_file"
  | "port_in_use"
  | "mesh"
  | "model_shape"
  | "no_such_file"
  | "not_supported_yet"
  | "packing_without_mask"
  | "profile_cycle"
  | "renamed_key"
  | "toml_syntax"
  | "unknown_key"
  | "unknown_model";

/** The configuration cannot be used. Its message lists every problem found, not only the first. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** All that is wrong: first the names, then the values, then what contradicts. */
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const list = problems.map((p) => `${p.what}\n  expected: ${p.expected}\n  fix: ${p.fix}   (${p.code})`);
    super(list.length === 1 ? list[0] : [`The configuration has ${list.length} problems`, ...list].join("\n\n"));
    this.problems = problems;
  }
}

/** Shows a value as the user would write it: strings in quotes, `None` for null, and `NaN`, which JSON does not have. */
export function show(value: unknown): string {
  if (value === null) return "None";
  return typeof value === "number" ? String(value) : JSON.stringify(value) ?? String(value);
}

/** What `open` returns; that it cannot write is the configuration's fault. */
export function writing<T>(path: string, fix: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    const what = `Cannot write ${path}: ${(error as Error).message}`;
    throw new ConfigError([{ code: "cannot_write", what, expected: "a place that can be written to", fix }]);
  }
}
