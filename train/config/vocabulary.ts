/**
 * The keys of the schema as a flat list, `section.key`, with what the command line, `--help` and error messages need to
 * know of each: kind, expected values in words, default. Read from the schema's JSON Schema form.
 * @module
 */
import { closest, distance } from "fastest-levenshtein";
import { z } from "zod";
import { configSchema } from "./schema.ts";
import { show } from "./problem.ts";
import { foreignNames, type Kind } from "./torchtitan.ts";

/** One key of the schema. */
export interface Key {
  /** `section.key`; a section may stand in another, as `training.dataloader` does. */
  readonly name: string;
  readonly section: string;
  readonly kind: Kind;
  readonly isNullable: boolean;
  /** The accepted values, in words: "a whole number >= 1". */
  readonly expected: string;
  readonly description: string;
  readonly unit: string | undefined;
  readonly default: unknown;
}

interface JsonSchema {
  /** Several, where no option has more to say than its type. */
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: JsonSchema[];
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  minLength?: number;
  properties?: Record<string, JsonSchema>;
  description?: string;
  unit?: string;
  /** The accepted values in words, where the schema cannot say them. */
  expected?: string;
  default?: unknown;
}

interface Vocabulary {
  /** Section name -> its description. */
  readonly sections: ReadonlyMap<string, string>;
  readonly keys: ReadonlyMap<string, Key>;
}

let made: Vocabulary | undefined;

/** All sections and keys, in the schema's order; made once, at the first call. */
export function vocabulary(): Vocabulary {
  return made ??= makeVocabulary();
}

function makeVocabulary(): Vocabulary {
  const root = z.toJSONSchema(configSchema, { io: "input" }) as JsonSchema;
  const sections = new Map<string, string>();
  const keys = new Map<string, Key>();
  const add = (section: string, table: JsonSchema) => {
    sections.set(section, table.description ?? "");
    for (const [key, schema] of Object.entries(table.properties ?? {})) {
      if (schema.properties) {
        add(`${section}.${key}`, schema);
        continue;
      }
      const options = schema.anyOf ?? [schema.type].flat().map((type): JsonSchema => ({ ...schema, type }));
      keys.set(`${section}.${key}`, {
        name: `${section}.${key}`,
        section,
        kind: kindOf(options[0]),
        isNullable: options.some((option) => option.type === "null"),
        expected: schema.expected ?? options.map(inWords).join(" or "),
        description: schema.description ?? "",
        unit: schema.unit,
        default: schema.default,
      });
    }
  };
  for (const [section, table] of Object.entries(root.properties ?? {})) add(section, table);
  return { sections, keys };
}

function kindOf({ type }: JsonSchema): Kind {
  if (type === "boolean" || type === "string") return type;
  return type === "array" ? "list" : "number";
}

function inWords(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.map(show).join(" or ");
  if (schema.const !== undefined) return show(schema.const);
  switch (schema.type) {
    case "boolean":
      return "true or false";
    case "null":
      return "None";
    case "string":
      return schema.minLength === undefined ? "a string" : "a non-empty string";
  }
  if (schema.type === "array") return "a list";
  const bounds = [];
  if (schema.exclusiveMinimum !== undefined) bounds.push(`> ${schema.exclusiveMinimum}`);
  if (schema.minimum !== undefined) bounds.push(`>= ${schema.minimum}`);
  if (schema.exclusiveMaximum !== undefined) bounds.push(`< ${schema.exclusiveMaximum}`);
  // Zod bounds every integer by the largest exact one, which tells a reader nothing.
  if (schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER) bounds.push(`<= ${schema.maximum}`);
  return `${schema.type === "integer" ? "a whole number" : "a number"} ${bounds.join(" and ")}`.trimEnd();
}

/** What to write in place of a wrong name: the known one that looks most like it, or where to look for one. */
export function suggestion(name: string): string {
  const names = [...vocabulary().keys.keys(), ...foreignNames()];
  const [section, last] = [sectionOf(name), name.split(".").at(-1)];
  const inSection = names.filter((known) => known.startsWith(`${section}.`));
  const moved = names.find((known) => known.split(".").at(-1) === last);
  const nearest = moved ?? closest(name, inSection.length > 0 ? inSection : names);
  if (moved === undefined && distance(name, nearest) > last!.length / 2) return "see --help for the keys there are";
  return `write ${nearest}`;
}

/** The section that looks most like a wrong one. */
export function nearestSection(section: string): string {
  return closest(section, [...sectionNames()]);
}

/** All sections that a configuration may hold, ours first. */
export function sectionNames(): Set<string> {
  return new Set([...vocabulary().sections.keys(), ...foreignNames().map(sectionOf)]);
}

/** "training" of "training.steps", and of "training.dataloader.num_workers". */
export function sectionOf(name: string): string {
  return name.split(".")[0];
}
