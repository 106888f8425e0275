/**
 * Configuration of a run: command line over TOML file over defaults, checked as a whole before anything starts.
 * `config/schema.ts` is the list of keys. In: arguments. Out: {@linkcode Config}, or a {@linkcode ConfigError} with
 * everything that is wrong, where it is written, and what to write instead.
 * @module
 */
import { type Arguments, readArguments } from "./config/arguments.ts";
import { contradictions, surprises } from "./config/check.ts";
import { type Entry, flatten } from "./config/entry.ts";
import { ConfigError, type Problem, show } from "./config/problem.ts";
import { type Config, configSchema } from "./config/schema.ts";
import { tomlEntries } from "./config/toml.ts";
import { foreignKey } from "./config/torchtitan.ts";
import { nearestSection, sectionNames, sectionOf, suggestion, vocabulary } from "./config/vocabulary.ts";

export type * from "./config/schema.ts";
export { ConfigError, type Problem, type ProblemCode } from "./config/problem.ts";
export { type LogRanks, type PlanArguments, readLogRanks } from "./config/arguments.ts";
export { helpText } from "./config/help.ts";
export { cut, meshError, meshOf } from "./config/mesh.ts";
export {
  askedPrecision,
  commOptions,
  lrSchedule,
  meshChoices,
  modelSizes,
  profileCycle,
  rematPolicy,
} from "./config/derive.ts";

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
  const fromFile = configFile === null ? [] : tomlEntries(await readConfigFile(configFile, readTextFile), configFile);
  const config = resolve([...fromFile, ...entries], problems);
  return { config, warnings: surprises(config), ...asked };
}

/** A configuration from values given by a program; throws {@linkcode ConfigError} as {@linkcode loadConfig} does. */
export function makeConfig(values: PartialConfig = {}): Config {
  return resolve(flatten(values, () => ""), []);
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

/** Joins entries, of which later ones win, into a configuration. */
function resolve(entries: readonly Entry[], earlier: readonly Problem[]): Config {
  const problems = [...earlier, ...unknownNames(entries)];
  const given = new Map<string, Entry>();
  const tree: Record<string, Record<string, unknown>> = {};
  for (const entry of entries) {
    if (!vocabulary().keys.has(entry.name)) continue;
    const [section, key] = entry.name.split(".");
    (tree[section] ??= {})[key] = entry.value;
    given.set(entry.name, entry);
  }
  const result = configSchema.safeParse(tree);
  if (!result.success) {
    const names = new Set(result.error.issues.map((issue) => issue.path.slice(0, 2).join(".")));
    problems.push(...[...names].map((name) => badValue(given.get(name)!)));
    throw new ConfigError(problems);
  }
  const place = (name: string) => inParentheses(given.get(name)?.place ?? "");
  problems.push(...contradictions(result.data, place));
  if (problems.length > 0) throw new ConfigError(problems);
  return result.data;
}

function badValue({ name, value, place }: Entry): Problem {
  const key = vocabulary().keys.get(name)!;
  const unit = key.unit === undefined ? "" : `, in ${key.unit}`;
  return {
    code: "bad_value",
    what: `${name} = ${show(value)}${inParentheses(place)}`,
    expected: `${key.expected}${unit}`,
    fix: key.default === null
      ? "write such a value, or leave the key out"
      : `write such a value; the default is ${show(key.default)}`,
  };
}

function unknownNames(entries: readonly Entry[]): Problem[] {
  const problems: Problem[] = [];
  const wrongSections = new Set<string>();
  for (const { name, value, place } of entries) {
    const { keys, sections } = vocabulary();
    if (keys.has(name)) continue;
    const at = inParentheses(place);
    const section = sectionOf(name);
    const foreign = foreignKey(name);
    if (foreign?.is === "renamed") {
      const expected = "a name of torchtitan v0.2.2";
      problems.push({ code: "renamed_key", what: `${name}${at} is an old name`, expected, fix: foreign.fix });
    } else if (foreign?.is === "missing feature") {
      if (foreign.off.some((off) => JSON.stringify(off) === JSON.stringify(value))) continue;
      problems.push({
        code: "not_supported_yet",
        what: `${name} = ${show(value)}${at} ${foreign.why}`,
        expected: foreign.off.map(show).join(" or "),
        fix: `write ${show(foreign.off[0])}, or leave the key out`,
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

function inParentheses(place: string): string {
  return place === "" ? "" : ` (${place})`;
}
