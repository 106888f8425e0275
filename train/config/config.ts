/**
 * Configuration of a run: command line over TOML file over defaults, checked as a whole before anything starts.
 * `config/schema.ts` is the list of keys. In: arguments. Out: {@linkcode Config}, or a {@linkcode ConfigError} with
 * everything that is wrong, where it is written, and what to write instead.
 * @module
 */
import { type Arguments, readArguments } from "./arguments.ts";
import { contradictions, surprises } from "./check.ts";
import { emulationProblems } from "./quantize_check.ts";
import { type Entry, flatten } from "./entry.ts";
import { ConfigError, type Problem, show } from "./problem.ts";
import { type Config, configSchema } from "./schema.ts";
import { tomlEntries } from "./toml.ts";
import { foreignKey } from "./torchtitan.ts";
import { nearestSection, sectionNames, sectionOf, suggestion, vocabulary } from "./vocabulary.ts";

export type * from "./schema.ts";
export { ConfigError, type Problem, type ProblemCode, writing } from "./problem.ts";
export { type LogRanks, type PlanArguments, readLogRanks } from "./arguments.ts";
export { helpText } from "./help.ts";
export { tomlText } from "./toml.ts";
export { cut, meshError, meshOf } from "./mesh.ts";
export {
  askedPrecision,
  checkpointOptions,
  commOptions,
  exportDtype,
  float8Options,
  lrSchedule,
  meshChoices,
  modelOf,
  modelSizes,
  profileCycle,
  rematPolicy,
  trainOptions,
} from "./derive.ts";

/** A configuration, and what else the command line asks for: with `help` (print {@linkcode helpText} and stop) it holds defaults only. */
export interface LoadedConfig extends Omit<Arguments, "entries" | "configFile" | "problems"> {
  readonly config: Config;
  /** What runs, but perhaps not as meant; print these at the start. */
  readonly warnings: readonly string[];
}

/** Sections and keys, all optional. */
export type PartialConfig = { readonly [S in keyof Config]?: Partial<Config[S]> };

/**
 * Reads the command line and the file it names.
 *
 * Throws {@linkcode ConfigError} when the file is missing or not TOML, when a key is unknown, renamed or not supported
 * yet, when a value has the wrong type or range, and when keys contradict each other.
 *
 * @param args for instance `Deno.args`
 * @param readTextFile for instance `Deno.readTextFile`
 * @example Usage
 * ```ts
 * import { assertEquals } from "@std/assert";
 * const files: Record<string, string> = { "small.toml": "[training]\nsteps = 100\nseq_len = 256" };
 * const { config } = await loadConfig(["--config", "small.toml", "--training.steps", "20"], (path) => files[path]);
 * assertEquals([config.training.steps, config.training.seq_len], [20, 256]);
 * ```
 */
export async function loadConfig(
  args: readonly string[],
  readTextFile: (path: string) => string | Promise<string>,
): Promise<LoadedConfig> {
  const { entries, configFile, problems, ...asked } = readArguments(args);
  if (asked.help) return { config: makeConfig(), warnings: [], ...asked };
  const fromFile = configFile === null
    ? []
    : tomlEntries(await readConfigFile(configFile, readTextFile), shownFile(configFile));
  const { config, warnings } = resolve([...fromFile, ...entries], problems, asked.dryRun);
  const typed = new Set(entries.map(({ name }) => name));
  return { config, warnings: [...warnings, ...surprises(config, typed, asked.dryRun)], ...asked };
}

/** A config file as messages name it; that of the default run has a URL, of which the end is enough. */
export function shownFile(path: string): string {
  return /^(file|https?):/.test(path) ? new URL(path).pathname.split("/").slice(-2).join("/") : path;
}

/** A configuration from values given by a program; throws {@linkcode ConfigError} as {@linkcode loadConfig} does. */
export function makeConfig(values: PartialConfig = {}): Config {
  return resolve(flatten(values, () => ""), []).config;
}

async function readConfigFile(path: string, read: (path: string) => string | Promise<string>): Promise<string> {
  try {
    return await read(path);
  } catch (error) {
    throw new ConfigError([{
      code: "no_such_file",
      what: `Cannot read the config file ${show(path)}: ${(error as Error).message}`,
      expected: "a TOML file; a relative path starts at the working directory",
      fix: "correct the path after --config",
    }]);
  }
}

/** Joins entries, of which later ones win, into a configuration.
 * @param onlyPlanned whether it is planned and not run, so that what is missing for a run alone is a warning. */
function resolve(
  entries: readonly Entry[],
  earlier: readonly Problem[],
  onlyPlanned = false,
): { config: Config; warnings: string[] } {
  const given = new Map(entries.map((entry) => [entry.name, entry])), warnings = withoutEffect(given);
  const problems = [...earlier, ...unknownNames(given, onlyPlanned ? (warning) => warnings.push(warning) : undefined)];
  const tree: Tree = {};
  for (const { name, value } of given.values()) {
    if (!vocabulary().keys.has(name)) continue;
    const sections = name.split("."), key = sections.pop()!;
    let table = tree;
    for (const section of sections) table = (table[section] ??= {}) as Tree;
    table[key] = value;
  }
  const result = configSchema.safeParse(tree);
  if (!result.success) {
    const names = new Set(result.error.issues.map(({ path }) => keyAt(path)));
    problems.push(...[...names].map((name) => {
      const bad = given.get(name)!;
      return badValue(bad, entries.findLast((entry) => entry.name === name && entry !== bad));
    }));
    throw new ConfigError(problems);
  }
  const place = (name: string) => inParentheses(given.get(name)?.place ?? "");
  problems.push(...contradictions(result.data, place), ...onlyPlanned ? [] : emulationProblems(result.data, place));
  if (problems.length > 0) throw new ConfigError(problems);
  return { config: result.data, warnings };
}

type Tree = { [name: string]: unknown };

/** The key that the path of a value begins with. */
function keyAt(path: readonly PropertyKey[]): string {
  const names = path.map((_, n) => path.slice(0, n + 1).join("."));
  return names.find((name) => vocabulary().keys.has(name))!;
}

/** @param hidden what the key has where the bad value is left out, if it is not the default. */
function badValue({ name, value, place }: Entry, hidden: Entry | undefined): Problem {
  const key = vocabulary().keys.get(name)!;
  const unit = key.unit === undefined ? "" : `, in ${key.unit}`;
  const without = hidden
    ? `; without it, ${hidden.place} has ${show(hidden.value)}`
    : key.default === null
    ? ", or leave the key out"
    : `; the default is ${show(key.default)}`;
  return {
    code: "bad_value",
    what: `${name} = ${show(value)}${inParentheses(place)}`,
    expected: `${key.expected}${unit}`,
    fix: `write such a value${without}`,
  };
}

/** One notice of all that is asked for and changes nothing here. */
function withoutEffect(given: ReadonlyMap<string, Entry>): string[] {
  const notes = [...given.values()].flatMap(({ name, value, place }) => {
    const foreign = foreignKey(name);
    if (foreign?.is !== "without effect" || JSON.stringify(foreign.usual) === JSON.stringify(value)) return [];
    return [`${name} = ${show(value)}${inParentheses(place)}: ${foreign.why}`];
  });
  return notes.length === 0 ? [] : [`without effect here: ${notes.join("; ")}`];
}

/** What is wrong with names that are not ours.
 * @param onlyWarn takes what a plan does not depend on, where no more than a plan is asked for. */
function unknownNames(given: ReadonlyMap<string, Entry>, onlyWarn?: (warning: string) => void): Problem[] {
  const problems: Problem[] = [];
  const wrongSections = new Set<string>();
  for (const { name, value, place } of given.values()) {
    const { keys, sections } = vocabulary();
    if (keys.has(name)) continue;
    const at = inParentheses(place);
    const section = sectionOf(name);
    const foreign = foreignKey(name);
    if (foreign?.is === "renamed") {
      const expected = "a name of torchtitan v0.2.2";
      problems.push({ code: "renamed_key", what: `${name}${at} is an old name`, expected, fix: foreign.fix });
    } else if (foreign?.is === "missing feature" || foreign?.is === "tuning") {
      const { feature, off, why } = foreign;
      if (off.some((one) => JSON.stringify(one) === JSON.stringify(value))) continue;
      if (foreign.is === "tuning" && given.has(feature)) continue; // which is off, or refused itself
      const what = `${name} = ${show(value)}${at} ${why}`;
      if (onlyWarn && !foreign.planned) {
        onlyWarn(`${what}; a run is refused for it`);
        continue;
      }
      const values = off.filter((one) => one !== null).map(show);
      const leave = values.length === 0 ? "leave the key out" : `write ${values[0]}, or leave the key out`;
      problems.push({
        code: "not_supported_yet",
        what,
        expected: values.length === 0 ? "no such key" : values.join(" or "),
        fix: foreign.is === "tuning" ? `${leave}; or set ${feature} to ${show(offOf(feature))} as well` : leave,
      });
    } else if (foreign === undefined && sections.has(name)) {
      problems.push({
        code: "bad_value",
        what: `${name} = ${show(value)}${at} is not a section`,
        expected: `[${name}] with keys under it`,
        fix: `write [${name}] on a line of its own`,
      });
    } else if (foreign === undefined && name.includes(".") && !sectionNames().has(section)) {
      if (wrongSections.has(section)) continue;
      wrongSections.add(section);
      problems.push({
        code: "unknown_key",
        what: `[${section}]${at} is not a known section`,
        expected: [...sectionNames()].join(", "),
        fix: `write ${nearestSection(section)}`,
      });
    } else if (foreign === undefined) {
      problems.push({
        code: "unknown_key",
        what: `${name}${at} is not a known key`,
        expected: sectionNames().has(section) ? `a key of [${section}]` : "section.key",
        fix: suggestion(name),
      });
    }
  }
  return problems;
}

/** The value of a key that leaves its feature off: of one of ours, its default. */
function offOf(name: string): unknown {
  const foreign = foreignKey(name);
  return foreign && "off" in foreign ? foreign.off[0] : vocabulary().keys.get(name)?.default;
}

function inParentheses(place: string): string {
  return place === "" ? "" : ` (${place})`;
}
