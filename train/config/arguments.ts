/**
 * Reads the command line: `--section.key value`, `--section.key=value`, `--section.switch`, `--section.no_switch`, where
 * `-` and `_` are the same within names, and `--config FILE`, `--dry-run`, `--help`.
 * @module
 */
import type { Entry } from "./entry.ts";
import { type Problem, show } from "./problem.ts";
import { foreignKey, foreignKind } from "./torchtitan.ts";
import { type Kind, vocabulary } from "./vocabulary.ts";

/** What the command line says. Where a key is given twice, the later one counts. */
export interface Arguments {
  readonly entries: readonly Entry[];
  readonly configFile: string | null;
  readonly help: boolean;
  readonly dryRun: boolean;
  readonly problems: readonly Problem[];
}

/** Splits arguments into entries; names are not looked up here, but for whether they take a value. */
export function readArguments(args: readonly string[]): Arguments {
  const entries: Entry[] = [];
  const problems: Problem[] = [];
  let [help, dryRun] = [false, false];
  let configFile: string | null = null;
  const bad = (what: string, expected: string, fix: string) =>
    problems.push({ code: "bad_argument", what: `command line: ${what}`, expected, fix });
  const add = (name: string, value: unknown) => entries.push({ name, value, place: "command line" });

  for (let i = 0; i < args.length; i++) {
    const [, written, inline] = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]) ?? [];
    if (args[i] === "--help" || args[i] === "-h") help = true;
    else if (args[i] === "--dry-run" || args[i] === "--dry_run") dryRun = true;
    else if (written === undefined) {
      bad(`unexpected ${show(args[i])}`, "--section.key value", "delete it; a value with spaces needs quotes");
    } else {
      const flag = written.replaceAll("-", "_");
      const name = flag === "config" ? "job.config_file" : flag;
      const positive = name.replace(/\.no_([^.]+)$/, ".$1");
      const kind = kindOf(name) ?? (positive !== name && kindOf(positive) === "boolean" ? "boolean" : undefined);
      if (kind === "boolean") {
        const given = inline ?? (/^(true|false)$/.test(args[i + 1] ?? "") ? args[++i] : undefined);
        if (given === undefined) add(positive, positive === name);
        else bad(`--${written} takes no value, got ${show(given)}`, "a bare switch", bareSwitches(positive));
        continue;
      }
      const hasNext = args[i + 1] !== undefined && !args[i + 1].startsWith("--");
      if (inline === undefined && !hasNext && kind !== undefined) {
        bad(`--${written} lacks its value`, "a value after it", `write --${name} VALUE`);
        continue;
      }
      const value = inline ?? (hasNext ? args[++i] : true);
      add(name, typeof value === "string" ? parseValue(value, kind ?? "string") : value);
      if (name === "job.config_file") configFile = String(value);
    }
  }
  return { entries, configFile, help, dryRun, problems };
}

function kindOf(name: string): Kind | undefined {
  return vocabulary().keys.get(name)?.kind ?? (foreignKey(name) === undefined ? undefined : foreignKind(name));
}

function bareSwitches(name: string): string {
  return `write --${name} for true, --${name.replace(/\.([^.]+)$/, ".no_$1")} for false`;
}

/** A text that is not of its kind is passed on as it is, for the schema to refuse. */
function parseValue(text: string, kind: Kind): unknown {
  if (text === "None") return null;
  if (kind === "list") return text.split(",").filter((item) => item !== "");
  if (kind === "number" && text.trim() !== "" && !Number.isNaN(Number(text))) return Number(text);
  return text;
}
