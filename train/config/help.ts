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
    "  --mesh AXES     spread the run over a mesh of ranks, such as dp_shard=2,tp=2; axes are dp_replicate, dp_shard, cp and",
    "                  tp, and dp_shard=-1 is what the others leave of the ranks",
    "  --nproc N       start so many ranks on this machine (mpirun and srun start them elsewhere); with --dry-run, plan for",
    "                  so many, which are else the product of the axes",
    "  --log-rank LIST show what these ranks print, such as 0,2 or all; else those of the environment variable LOG_RANK,",
    "                  else rank 0. Errors are shown of every rank",
    "  --plan-json FILE, --plan-page FILE   with --dry-run and a mesh: also write its plan as JSON, or as a page for a browser",
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
