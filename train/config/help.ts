/**
 * The text of `--help`, made from the schema.
 * @module
 */
import { negative } from "./arguments.ts";
import { show } from "./problem.ts";
import { tomlEntries } from "./toml.ts";
import { type Key, vocabulary } from "./vocabulary.ts";

/** A config file: its name for people, and its text. */
export interface ConfigFile {
  readonly name: string;
  readonly text: string;
}

/** What the exit code of a command says. */
const EXIT_CODES = [
  "Exit codes: 0 done; 1 an error, which standard error tells, or a plan that does not fit into --device-memory;",
  "130 stopped by Ctrl-C, 143 by SIGTERM; otherwise 128 + n where signal n has ended a rank.",
];

/** Usage, then every key by section with its accepted values, unit, default and meaning.
 * @param standard the file that is read where the command line names none. */
export function helpText(standard?: ConfigFile): string {
  const { keys, sections } = vocabulary();
  const entries = standard ? tomlEntries(standard.text, standard.name) : [];
  const values = new Map(entries.map(({ name, value }) => [name, value]));
  const lines = [
    "Usage: train [--config FILE] [--section.key VALUE ...]",
    "",
    "Trains a model. A key is taken from the command line, else from FILE, else it has its default.",
    'In FILE, which is TOML, `key = value` goes under `[section]`; TOML has no None, and "None" stands for it.',
    "A switch alone is on; `true` or `false` may follow it, and --section.no_key turns it off.",
    ...(standard ? [`Without --config, FILE is ${standard.name}: its values are those of the default run.`] : []),
    "",
    "  --config FILE   read this TOML file",
    "  --dry-run       print the plan of the run without starting it",
    "  --print-config  print all keys with their values as TOML, which --config reads, and start nothing",
    "  --mesh AXES     spread the run over a mesh of ranks, such as dp_shard=2,tp=2; axes are dp_replicate, dp_shard, cp and",
    "                  tp, and dp_shard=-1 is what the others leave of the ranks; ep shares the ranks of dp_shard and cp",
    "  --nproc N       start so many ranks on this machine, by mpirun, or over Gloo where there is none; with --dry-run, plan for",
    "                  so many, which are else the product of the axes",
    "  --hosts LIST    share the ranks among machines, such as a:4,b:4, without MPI: give each of them this command. The first",
    "                  has rank 0, where all meet; TITAN_TOKEN is a secret that all share, MASTER_PORT another port than 29500",
    "  --host NAME     which of --hosts this machine is, where its own name or an address does not tell",
    "  --restarts N    after a failure start the ranks anew, up to N times, from the newest checkpoint: the run goes on as if",
    "                  nothing had happened. Needs checkpoint.enable",
    "  --elastic       with --restarts: start them without those that a signal ended, as far as the mesh allows; what the batch",
    "                  of a step then lacks in ranks, it has in microbatches",
    "  --log-rank LIST show what these ranks print, such as 0,2 or all; else those of the environment variable LOG_RANK,",
    "                  else rank 0, and with a pipeline the first rank of its last stage. Errors are shown of every rank",
    "  --plan-json FILE, --plan-page FILE   with --dry-run and a mesh: also write its plan as JSON, or as a page for a browser",
    "  --device NAME   where to compute: auto, cpu or cuda (an NVIDIA GPU); with --dry-run also a GPU by name, such as h100",
    "  --device-memory BYTES   with --dry-run: say whether what is planned of a rank fits into a device of so many bytes, such",
    "                  as 80GB or 160MiB, instead of this machine's memory; where it does not, the exit code is 1",
    "  --device-tflops N, --device-bandwidth SPEED, --link SPEED, --tokens N   with --dry-run: say how long a step takes on a",
    "                  device that computes so many TFLOP a second, whose memory moves so many bytes a second, such as 3TB/s, and",
    "                  which sends so many bits or bytes a second, such as 400Gb/s, or tp=450GB/s,400Gb/s where the ranks of an",
    "                  axis have links of their own; and how long that many tokens take, such as 300B or 1T",
    "  --disk-speed SPEED   with --dry-run: say how long a checkpoint takes where its folder is written at this speed, by all",
    "                  ranks together, such as 2GB/s",
    "  --quiet, -q     print warnings and errors alone, both on standard error; files are written as ever",
    "  --help          print this text",
    "",
    ...EXIT_CODES,
  ];
  for (const [section, description] of sections) {
    lines.push("", `[${section}] ${description}`);
    for (const key of keys.values()) {
      if (key.section !== section) continue;
      const inFile = values.has(key.name) ? [`${standard!.name}: ${valueText(key, values.get(key.name))}`] : [];
      lines.push(...keyLines(key, inFile));
    }
  }
  return lines.join("\n");
}

function keyLines(key: Key, more: readonly string[]): string[] {
  const value = key.kind === "boolean" ? ` or ${negative(key.name)}` : ` ${key.expected.replace(/ or None$/, "")}`;
  const facts = [
    `default ${valueText(key, key.default)}`,
    ...(key.unit === undefined ? [] : [`in ${key.unit}`]),
    ...more,
  ];
  return [`  --${key.name}${value} (${facts.join(", ")})`, `      ${key.description}`];
}

function valueText({ kind }: Key, value: unknown): string {
  if (value === null) return "not set";
  return kind === "boolean" ? value ? "on" : "off" : show(value);
}
