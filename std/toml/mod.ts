/** Stand-in for `@std/toml` over smol-toml. @module */
import { parse as parseToml, stringify as stringifyToml, TomlError } from "smol-toml";

/** Parses a TOML document into plain objects, arrays, strings, numbers, booleans and `Date`s.
 * @throws {SyntaxError} with the line, the column and the lines around the mistake. */
export function parse(text: string): Record<string, unknown> {
  try {
    return structuredClone(parseToml(text)) as Record<string, unknown>; // smol-toml's tables have no prototype
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const what = error.message.replace(/^Invalid TOML document: /, "");
    throw new SyntaxError(`Parse error on line ${error.line}, column ${error.column}: ${what}`, { cause: error });
  }
}

/** A TOML document that parses to this. */
export function stringify(table: Record<string, unknown>): string {
  return stringifyToml(table);
}
