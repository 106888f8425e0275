/** Stand-in for `@std/cli` over minimist. @module */
import minimist from "minimist";

/** Which flags are switches, which are text, and what holds when they are absent. */
export interface ParseOptions {
  /** Flags that take no value. */
  boolean?: readonly string[];
  /** Flags whose value stays text; the others become numbers where they look like one. */
  string?: readonly string[];
  /** Flags whose repeated values are kept as an array; of the others the last one counts. */
  collect?: readonly string[];
  alias?: Record<string, string | readonly string[]>;
  default?: Record<string, unknown>;
  /** Whether what follows `--` goes to `args["--"]` rather than to `args._`. */
  "--"?: boolean;
}

/** Flags by name (a dotted name gives nested objects), and in `_` what is not a flag. */
// deno-lint-ignore no-explicit-any -- as in @std/cli: a flag may hold anything
export type Args = { _: (string | number)[]; "--"?: string[]; [flag: string]: any };

/** Reads command-line arguments: `--a.b 1`, `--a.b=1`, `-v`, and what is not a flag. */
export function parseArgs(args: readonly string[], options: ParseOptions = {}): Args {
  const kept = new Set(["_", "--", ...options.collect ?? []]);
  const lastOnes = (table: Record<string, unknown>, prefix: string): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(table).map(([key, value]) => {
        const name = prefix + key;
        if (Array.isArray(value)) return [key, kept.has(name) ? value : value.at(-1)];
        if (kept.has(name)) return [key, [value]];
        const nested = typeof value === "object" && value !== null;
        return [key, nested ? lastOnes(value as Record<string, unknown>, `${name}.`) : value];
      }),
    );
  return lastOnes(minimist([...args], options), "") as Args;
}
