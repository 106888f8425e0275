/**
 * The text of `--help`, made from the schema.
 * @module
 */
import { show } from "./problem.ts";
import { type Key, vocabulary } from "./vocabulary.ts";

/** Usage, then every key by section with its accepted values, unit, default and meaning. */
export function helpText(): string {
  const { keys, sections } = vocabulary();
  const lines = [
    "Usage: train [--config FILE] [--section.key VALUE ...]",
    "",
    "Trains a model. A key is taken from the command line, else from FILE, else it has its default.",
    "In FILE, which is TOML, `key = value` goes under `[section]`.",
    "",
    "  --config FILE   read this TOML file",
    "  --dry-run       print the plan of the run without starting it",
    "  --mesh AXES     with --dry-run: plan for a mesh of ranks, such as dp_shard=64,tp=8; axes are dp_replicate, dp_shard,",
    "                  cp and tp, and dp_shard=-1 is what the others leave of --nproc",
    "  --nproc N       with --dry-run: number of ranks; not given, the product of the axes",
    "  --plan-json FILE, --plan-page FILE   with a mesh: also write its plan as JSON, or as a page for a browser",
    "  --help          print this text",
  ];
  for (const [section, description] of sections) {
    lines.push("", `[${section}] ${description}`);
    for (const key of keys.values()) if (key.section === section) lines.push(...keyLines(key));
  }
  return lines.join("\n");
}

function keyLines(key: Key): string[] {
  const initial = key.default === null
    ? "not set"
    : key.kind === "boolean"
    ? key.default ? "on" : "off"
    : show(key.default);
  const value = key.kind === "boolean" ? "" : ` ${key.expected.replace(/ or None$/, "")}`;
  const facts = [`default ${initial}`, ...(key.unit === undefined ? [] : [`in ${key.unit}`])];
  return [`  --${key.name}${value} (${facts.join(", ")})`, `      ${key.description}`];
}
