/**
 * One value that the user wrote: its dotted name, and the place an error points to.
 * @module
 */
import { foreignKey } from "./torchtitan.ts";
import { vocabulary } from "./vocabulary.ts";

/** A value given in a file, on the command line or by a program. */
export interface Entry {
  /** `section.key`. */
  readonly name: string;
  readonly value: unknown;
  /** `debug.toml:12`, `command line`, or "" for a value given by a program. */
  readonly place: string;
}

/** Makes a list of nested tables; a table that is itself the value of a known key stays whole. */
export function flatten(table: object, place: (name: string) => string, prefix = ""): Entry[] {
  return Object.entries(table).flatMap(([key, value]) => {
    const name = prefix + key;
    const isKey = vocabulary().keys.has(name) || foreignKey(name) !== undefined;
    const isSection = !isKey && isTable(value) && (Object.keys(value).length > 0 || vocabulary().sections.has(name));
    return isSection ? flatten(value, place, `${name}.`) : [{ name, value, place: place(name) }];
  });
}

function isTable(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
