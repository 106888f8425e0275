/**
 * Reads a TOML file into entries that remember their line, and writes a configuration as such a file. TOML has no null:
 * "None" stands for it, as on the command line.
 * @module
 */
import { parse, stringify } from "@std/toml";
import { type Entry, flatten } from "./entry.ts";
import { ConfigError } from "./problem.ts";
import type { Config } from "./schema.ts";
import { vocabulary } from "./vocabulary.ts";

/** The entries of a TOML text. Throws {@linkcode ConfigError} with line, column and the lines around when it does not parse. */
export function tomlEntries(text: string, file: string): Entry[] {
  let table: object;
  try {
    table = parse(text);
  } catch (error) {
    throw syntaxError(error as Error, text, file);
  }
  const lines = keyLines(text);
  const entries = flatten(table, (name) => {
    const parts = name.split(".");
    // A key of an inline table has the line of that table.
    while (parts.length > 0 && !lines.has(parts.join("."))) parts.pop();
    return parts.length > 0 ? `${file}:${lines.get(parts.join("."))}` : file;
  });
  const isNone = ({ name, value }: Entry) => value === NONE && vocabulary().keys.get(name)?.isNullable;
  return entries.map((entry) => isNone(entry) ? { ...entry, value: null } : entry);
}

const NONE = "None";

/** A TOML text with all keys, but for those that are not set by default and not set; it loads to the same configuration.
 * The name of the file that was read is left out: read again, it is another. */
export function tomlText(config: Config): string {
  return stringify(
    Object.fromEntries(Object.entries(config).map(([section, table]) => [section, said(section, table)])),
  );
}

/** What a section's table says: all keys but those that are not set by default and not set. */
function said(section: string, table: object): object {
  const entries = Object.entries(table).flatMap(([key, value]): [string, unknown][] => {
    const found = vocabulary().keys.get(`${section}.${key}`);
    if (!found) return [[key, said(`${section}.${key}`, value)]]; // a section in the section
    if (found.name === "job.config_file" || (value === null && found.default === null)) return [];
    return [[key, Array.isArray(value) ? value.map(withoutNull) : value ?? NONE]];
  });
  return Object.fromEntries(entries);
}

/** A table of a list, such as one of `[[data.sources]]`: what is not set in it is left out. */
function withoutNull(item: unknown): unknown {
  if (typeof item !== "object" || item === null) return item;
  return Object.fromEntries(Object.entries(item).filter(([, value]) => value !== null));
}

/** The line, from 1, on which each table and key of a well-formed TOML text is. The parser itself does not tell. */
function keyLines(text: string): Map<string, number> {
  const lines = new Map<string, number>();
  let table = "";
  let openBrackets = 0;
  for (const [index, line] of withoutComments(text).split("\n").entries()) {
    if (openBrackets === 0) {
      const header = /^\s*\[\[?([^\]]+)\]/.exec(line)?.[1];
      const key = /^\s*([\w."' -]+?)\s*=/.exec(line)?.[1];
      if (header !== undefined) table = unquoted(header);
      const name = key === undefined ? table : [table, unquoted(key)].filter(Boolean).join(".");
      if ((header ?? key) !== undefined && !lines.has(name)) lines.set(name, index + 1);
    }
    const bare = line.replace(STRING, "");
    openBrackets += bare.split(/[[{]/).length - bare.split(/[\]}]/).length;
  }
  return lines;
}

const STRING = /"(?:\\.|[^"\\\n])*"|'[^'\n]*'/g;
const STRING_OR_COMMENT = new RegExp(`"""[^]*?"""|'''[^]*?'''|${STRING.source}|#.*`, "g");

/** Takes comments and strings of several lines out, but keeps the line numbers. */
function withoutComments(text: string): string {
  return text.replace(STRING_OR_COMMENT, (part) => /^("""|'''|#)/.test(part) ? part.replace(/[^\n]/g, "") : part);
}

const unquoted = (name: string) => name.replace(/["'\s]/g, "");

function syntaxError(error: Error, text: string, file: string): ConfigError {
  const [first] = error.message.split("\n");
  const [, at, after, reason] = /^Parse error on line (\d+), column (\d+): (.*)/.exec(first) ?? ["", "1", "1", first];
  const [line, column] = [Number(at), Number(after)];
  const lines = text.split(/\r?\n/);
  const numbered = (n: number) => lines[n - 1] === undefined ? [] : [`${String(n).padStart(6)} | ${lines[n - 1]}`];
  const frame = [...numbered(line - 1), ...numbered(line), `${" ".repeat(8 + column)}^`, ...numbered(line + 1)];
  return new ConfigError([{
    code: "toml_syntax",
    what: `${file}:${line}:${column} is not TOML: ${reason}\n${frame.join("\n")}`,
    expected: 'lines such as [section], key = 1, key = "text", key = true',
    fix: `correct line ${line}`,
  }]);
}
