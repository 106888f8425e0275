/**
 * Reads the command line: `--section.key value`, `--section.key=value`, `--section.switch` (also with
 * `true` or `false` behind it), `--section.no_switch`, where `-` and `_` are the same within names, and `--config FILE`, `--dry-run`,
 * `--mesh`, `--nproc`, `--hosts`, `--host`, `--restarts`, `--elastic`, `--log-rank`, `--plan-json`, `--plan-page`, `--device`, `--device-memory`, `--device-tflops`,
 * `--device-bandwidth`, `--link`, `--tokens`, `--disk-speed`,
 * `--print-config`, `--quiet`, `--help`.
 * @module
 */
import { type Host, readHosts } from "../../launch/hosts.ts";
import { gpus, withSheet } from "../../graph/target/cuda/gpus.ts";
import { ALL_AXES, type Axis, DEGREE_KEYS } from "../../parallel/mesh.ts";
import { amountOf, bytesOf, rateOf } from "./bytes.ts";
import type { Entry } from "./entry.ts";
import { type Problem, show } from "./problem.ts";
import { foreignKey, foreignKind, type Kind } from "./torchtitan.ts";
import { vocabulary } from "./vocabulary.ts";

/** What the command line says. Where a key is given twice, the later one counts. */
export interface Arguments {
  readonly entries: readonly Entry[];
  readonly configFile: string | null;
  readonly help: boolean;
  readonly dryRun: boolean;
  /** `--quiet`: warnings and errors alone are printed. */
  readonly quiet: boolean;
  /** `--print-config`: print the configuration as TOML, and stop. */
  readonly printConfig: boolean;
  /** `--nproc`: number of ranks to start here, or to plan for. */
  readonly nproc?: number;
  /** `--hosts`: machines that share the ranks, each of which is given this command. */
  readonly hosts?: readonly Host[];
  /** `--host`: which of them this machine is. */
  readonly host?: string;
  /** `--restarts`: how often ranks are started anew after a failure. */
  readonly restarts?: number;
  /** `--elastic`: without ranks that are lost. */
  readonly elastic: boolean;
  /** `--log-rank`. */
  readonly logRanks?: LogRanks;
  /** What a dry run is asked for on top. */
  readonly plan: PlanArguments;
  readonly problems: readonly Problem[];
}

/** The ranks whose output is shown. */
export type LogRanks = readonly number[] | "all";

/** What a plan is asked for. */
export interface PlanArguments {
  /** `--plan-json`: a file to write. */
  readonly json?: string;
  /** `--plan-page`: the same. */
  readonly page?: string;
  /** `--device h100`: a GPU, by its name in `graph/target/cuda/gpus.ts`. */
  readonly gpu?: string;
  /** `--device-memory`: bytes of a device, which a rank is to fit into. */
  readonly deviceMemory?: number;
  /** `--disk-speed`: bytes a second that all ranks together write into the folder of the checkpoints. */
  readonly diskSpeed?: number;
  /** `--device-tflops`: FLOP a second of a device. */
  readonly deviceFlops?: number;
  /** `--device-bandwidth`: bytes a second of its memory. */
  readonly deviceBandwidth?: number;
  /** `--link`: bytes a second that a rank sends, by axis; `other` are all that are not named. */
  readonly links?: Readonly<Record<string, number>>;
  /** `--tokens`: how many a run trains on. */
  readonly tokens?: number;
}

const PLAN_FLAGS: Readonly<Record<keyof PlanArguments, string>> = {
  json: "--plan-json",
  page: "--plan-page",
  gpu: "--device",
  deviceMemory: "--device-memory",
  diskSpeed: "--disk-speed",
  deviceFlops: "--device-tflops",
  deviceBandwidth: "--device-bandwidth",
  links: "--link",
  tokens: "--tokens",
};

/** Splits arguments into entries; names are not looked up here, but for whether they take a value. */
export function readArguments(args: readonly string[]): Arguments {
  const entries: Entry[] = [];
  const problems: Problem[] = [];
  let [help, dryRun, printConfig, quiet, elastic] = [false, false, false, false, false];
  let configFile: string | null = null;
  const plan: { -readonly [K in keyof PlanArguments]: PlanArguments[K] } = {},
    ranks: { nproc?: number; hosts?: Host[]; host?: string; restarts?: number; logRanks?: LogRanks } = {};
  const bad = (what: string, expected: string, fix: string) =>
    problems.push({ code: "bad_argument", what: `command line: ${what}`, expected, fix });
  const special = (flag: string, value: string) => {
    if (flag === "mesh") return readMesh(value, add, bad);
    if (flag === "plan_json") plan.json = value;
    else if (flag === "plan_page") plan.page = value;
    else if (flag === "device") {
      const name = value.toLowerCase(), isGpu = Object.hasOwn(gpus, name);
      if (isGpu) plan.gpu = name;
      if (isGpu || /^(auto|cpu|cuda)$/.test(name)) add("device.kind", isGpu ? "cuda" : name);
      else bad(`--device ${show(value)}`, `auto, cpu, cuda, or with --dry-run ${GPUS}`, "write --device cuda");
    } else if (flag === "device_memory") {
      plan.deviceMemory = bytesOf(value);
      if (!plan.deviceMemory) bad(`--device-memory ${show(value)}`, "bytes such as 80GB or 512MiB", "add their unit");
    } else if (flag === "disk_speed") {
      plan.diskSpeed = rateOf(value);
      if (!plan.diskSpeed) bad(`--disk-speed ${show(value)}`, "bytes a second such as 2GB/s", "add their unit");
    } else if (flag === "device_bandwidth") {
      plan.deviceBandwidth = rateOf(value);
      if (!plan.deviceBandwidth) {
        bad(`--device-bandwidth ${show(value)}`, "bytes a second such as 3TB/s", "add their unit");
      }
    } else if (flag === "device_tflops") {
      plan.deviceFlops = (amountOf(value) ?? 0) * 1e12;
      if (!plan.deviceFlops) bad(`--device-tflops ${show(value)}`, "a number above 0", "write --device-tflops 400");
    } else if (flag === "tokens") {
      plan.tokens = Math.round(amountOf(value) ?? 0);
      if (!plan.tokens) bad(`--tokens ${show(value)}`, "a number above 0 such as 300B or 1T", "write --tokens 1T");
    } else if (flag === "link") {
      plan.links = readLinks(value);
      if (!plan.links) bad(`--link ${show(value)}`, LINKS, "write for instance --link tp=450GB/s,400Gb/s");
    } else if (flag === "log_rank") {
      ranks.logRanks = readLogRanks(value);
      if (!ranks.logRanks) bad(`--log-rank ${show(value)}`, LOG_RANKS, "write for instance --log-rank 0,2");
    } else if (flag === "hosts") {
      ranks.hosts = readHosts(value);
      if (!ranks.hosts) bad(`--hosts ${show(value)}`, HOSTS, `write for instance --hosts ${VALUES.hosts}`);
    } else if (flag === "host") ranks.host = value;
    else if (flag === "restarts") {
      if (/^\d+$/.test(value)) ranks.restarts = Number(value);
      else bad(`--restarts ${show(value)}`, "a whole number", "write for instance --restarts 3");
    } else if (/^[1-9]\d*$/.test(value)) ranks.nproc = Number(value);
    else bad(`--nproc ${show(value)}`, "a whole number from 1", "write the number of ranks, such as --nproc 8");
  };
  const add = (name: string, value: unknown) => entries.push({ name, value, place: "command line" });

  for (let i = 0; i < args.length; i++) {
    const [, written, inline] = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]) ?? [];
    if (args[i] === "--help" || args[i] === "-h") help = true;
    else if (args[i] === "--elastic") elastic = true;
    else if (args[i] === "--dry-run" || args[i] === "--dry_run") dryRun = true;
    else if (args[i] === "--print-config" || args[i] === "--print_config") printConfig = true;
    else if (args[i] === "--quiet" || args[i] === "-q") quiet = true;
    else if (written === undefined) {
      bad(`unexpected ${show(args[i])}`, "--section.key value", "delete it; a value with spaces needs quotes");
    } else {
      const flag = written.replaceAll("-", "_");
      const name = flag === "config" ? "job.config_file" : flag;
      if (flag in VALUES) {
        const value = inline ?? (args[i + 1]?.startsWith("--") ? undefined : args[++i]);
        if (value) special(flag, value);
        else bad(`--${written} lacks its value`, "a value after it", `write --${written} ${VALUES[flag]}`);
        continue;
      }
      const positive = name.replace(/\.no_([^.]+)$/, ".$1");
      const kind = kindOf(name) ?? (positive !== name && kindOf(positive) === "boolean" ? "boolean" : undefined);
      if (kind === "boolean") {
        const isOn = positive === name, follows = args[i + 1] !== undefined && !args[i + 1].startsWith("-");
        const given = inline ?? (follows ? args[++i] : undefined);
        if (given === undefined) add(positive, isOn);
        else if (isOn && TRUTH.test(given)) add(name, given.toLowerCase() === "true");
        else if (isOn && given === "None" && vocabulary().keys.get(name)?.isNullable) add(name, null);
        else if (isOn) bad(`--${written} ${show(given)}`, "true or false", switches(positive));
        else bad(`--${written} takes no value, got ${show(given)}`, "the switch alone", switches(positive));
        continue;
      }
      const hasNext = args[i + 1] !== undefined && !args[i + 1].startsWith("--");
      const isFile = name === "job.config_file";
      if (isFile ? !(inline ?? hasNext) : inline === undefined && !hasNext && kind !== undefined) {
        bad(`--${written} lacks its value`, "a value after it", `write --${written} ${isFile ? "FILE" : "VALUE"}`);
        continue;
      }
      const value = inline ?? (hasNext ? args[++i] : true);
      add(name, typeof value === "string" ? parseValue(value, kind ?? "string") : value);
      if (isFile) configFile = String(value);
    }
  }
  if (ranks.hosts && ranks.nproc !== undefined) {
    bad("--hosts and --nproc", "one of them", "delete --nproc: --hosts says how many ranks each host has");
  }
  if (ranks.host !== undefined && !ranks.hosts) {
    bad("--host without --hosts", "--hosts", "name all hosts, or delete it");
  }
  if (elastic && !ranks.restarts) bad("--elastic without --restarts", "--restarts", "add --restarts 3, or delete it");
  if (elastic && ranks.hosts) {
    bad("--elastic and --hosts", "ranks of one machine", "delete --elastic: hosts do not agree on who is left");
  }
  const asked = Object.keys(plan) as (keyof PlanArguments)[];
  if (asked.length > 0 && !dryRun && !help) {
    const flags = asked.map((key) => PLAN_FLAGS[key]).join(" and ");
    bad(`${flags} without --dry-run`, "--dry-run, which makes the plan", "add --dry-run, or delete it");
  }
  const untimed = (["deviceBandwidth", "links", "tokens"] as const).filter((key) => plan[key] !== undefined);
  if (untimed.length > 0 && (plan.deviceFlops ?? plan.gpu) === undefined && problems.length === 0) {
    const flags = untimed.map((key) => PLAN_FLAGS[key]).join(" and ");
    bad(`${flags} without --device-tflops`, "how fast the device computes, too", "add --device-tflops 400");
  }
  return { entries, configFile, help, dryRun, printConfig, quiet, elastic, ...ranks, plan: withSheet(plan), problems };
}

const TRUTH = /^(true|false)$/i;

const GPUS = `one of ${Object.keys(gpus).join(", ")}`;
const HOSTS = "hosts with how many ranks each has, none of them twice";
const LOG_RANKS = "ranks such as 0,2, or all";

/** A list of ranks, or `all`; undefined where a text is neither. */
export function readLogRanks(text: string): LogRanks | undefined {
  if (text === "all") return text;
  return /^\d+(,\d+)*$/.test(text) ? text.split(",").map(Number) : undefined;
}

const LINKS = "bytes or bits a second such as 400Gb/s, for all axes or behind the name of one";

/** `400Gb/s`, or `tp=450GB/s,400Gb/s`; undefined where a text is neither. */
function readLinks(text: string): Readonly<Record<string, number>> | undefined {
  const links = text.split(",").map((part): [string, number | undefined] => {
    const [speed, axis] = part.split("=").reverse();
    return [
      axis ?? "other",
      axis === undefined || (ALL_AXES as readonly string[]).includes(axis) ? rateOf(speed) : undefined,
    ];
  });
  const isGood = links.every(([, speed]) => speed) && new Set(links.map(([axis]) => axis)).size === links.length;
  return isGood ? Object.fromEntries(links) as Record<string, number> : undefined;
}

/** Flags that take a value and are no keys, each with an example of it. */
const VALUES: Readonly<Record<string, string>> = {
  mesh: "dp_shard=8,tp=8",
  nproc: "64",
  hosts: "a:4,b:4",
  host: "a",
  restarts: "3",
  log_rank: "0,2",
  plan_json: "plan.json",
  plan_page: "plan.html",
  device: "cuda",
  device_memory: "80GB",
  device_tflops: "400",
  device_bandwidth: "3TB/s",
  link: "400Gb/s",
  tokens: "1T",
  disk_speed: "2GB/s",
};

/** Their names, with `_`. */
export const VALUED_FLAGS: readonly string[] = Object.keys(VALUES);
/** Flags that take none. */
export const SWITCHES = ["help", "dry-run", "print-config", "quiet", "elastic"] as const;

/** `dp_shard=8,tp=8` as the keys of its axes. */
function readMesh(
  text: string,
  add: (name: string, value: unknown) => void,
  bad: (what: string, expected: string, fix: string) => void,
): void {
  for (const part of text.split(",")) {
    const [axis, degree] = part.split("=").map((s) => s.trim());
    const isKnown = (ALL_AXES as readonly string[]).includes(axis);
    if (isKnown && /^-?\d+$/.test(degree ?? "")) add(DEGREE_KEYS[axis as Axis], Number(degree));
    else {
      bad(
        `--mesh has ${show(part)}`,
        `axis=degree, where the axes are ${ALL_AXES.join(", ")}`,
        `write for instance --mesh ${VALUES.mesh}`,
      );
    }
  }
}

function kindOf(name: string): Kind | undefined {
  return vocabulary().keys.get(name)?.kind ?? (foreignKey(name) === undefined ? undefined : foreignKind(name));
}

function switches(name: string): string {
  return `write --${name} for true, ${negative(name)} for false`;
}

/** The flag that turns a switch off: `--validation.no_enable`. */
export function negative(name: string): string {
  return `--${name.replace(/\.([^.]+)$/, ".no_$1")}`;
}

/** A text that is not of its kind is passed on as it is, for the schema to refuse. */
function parseValue(text: string, kind: Kind): unknown {
  if (text === "None") return null;
  if (kind === "list") return listIn(text);
  if (kind === "number" && text.trim() !== "" && !Number.isNaN(Number(text))) return Number(text);
  return text;
}

/** `a,b`, or a list as JSON. */
function listIn(text: string): unknown {
  try {
    if (text.startsWith("[")) return JSON.parse(text);
  } catch {
    return text;
  }
  return text.split(",").filter((item) => item !== "");
}
