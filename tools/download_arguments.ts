/** The command line of `deno task download`, with the flags of torchtitan's `download_hf_assets.py` where they mean something here.
 * @module */
import { closest } from "fastest-levenshtein";
import { C4_CONFIGURATIONS, type Split } from "../data/c4.ts";
import { DataError } from "../data/error.ts";

/** How it is called. */
export const USAGE = `Usage: npx -y deno task download --repo ORG/NAME [--include PATTERN ...] [--revision R]
       npx -y deno task download --dataset c4 --shards 0-7
       npx -y deno task download --dataset ORG/NAME [--include PATTERN ...]

  --repo ORG/NAME      a model: of its files those that libtitan reads, which are tokenizer, config, index and safetensors
                       (also --repo_id)
  --dataset NAME       a dataset of the hub, or c4, c4/realnewslike, c4/en.noblocklist, c4/en.noclean, c4_validation
  --shards A-B         of c4: shards A to B, counted from 0; without it all, which are 305 GiB of c4
  --include PATTERN    files in place of those; * stands for anything, folders too (also --additional_patterns, which adds)
  --exclude PATTERN    files that do not come
  --assets NAME ...    some of tokenizer, config, index and safetensors
  --all                all files of a model
  --revision R         a branch, a tag or a commit; main where it is not given
  --hf_token TOKEN     in place of HF_TOKEN

Files come into the hub's cache, HF_HOME/hub, where Python's huggingface_hub finds them too; the folder is printed at the end. What is
there already does not come again, and what was broken off goes on. Hashes are compared with the hub's.`;

/** What is asked for. */
export interface Arguments {
  readonly kind: "model" | "dataset";
  readonly name: string;
  /** Shards of C4 and not a repository. */
  readonly c4?: { readonly configuration: string; readonly split: Split };
  readonly shards?: { readonly first: number; readonly last: number };
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  /** Names of {@linkcode ASSETS}. */
  readonly assets: readonly string[];
  readonly revision: string;
  readonly token?: string;
}

const ASSET_NAMES = ["tokenizer", "config", "index", "safetensors"];

/** Flags, and how many values they take. */
const FLAGS: Readonly<Record<string, "none" | "one" | "many">> = {
  "repo": "one",
  "dataset": "one",
  "shards": "one",
  "include": "many",
  "exclude": "many",
  "assets": "many",
  "additional-patterns": "many",
  "all": "none",
  "revision": "one",
  "hf-token": "one",
};

/** Other names of theirs. */
const ALIASES: Readonly<Record<string, string>> = { "repo-id": "repo", "token": "hf-token" };

/** Reads a command line.
 * @throws {DataError} naming what is wrong with it. */
export function parseDownload(args: readonly string[]): Arguments {
  const given = new Map<string, string[]>();
  let last: string[] | undefined, room = 0;
  for (const arg of args) {
    const [, written, value] = /^--([\w-]+)(?:=(.*))?$/s.exec(arg) ?? [];
    if (written === undefined) {
      if (last === undefined || room === 0) {
        throw wrong(`Cannot place ${JSON.stringify(arg)}`, "flags with their values");
      }
      last.push(arg);
      room--;
      continue;
    }
    const plain = written.replaceAll("_", "-"), name = ALIASES[plain] ?? plain;
    if (name === "local-dir") {
      throw wrong(
        "Cannot download into --local_dir",
        "files in the hub's cache",
        "set HF_HOME to where they are to lie",
      );
    }
    if (!Object.hasOwn(FLAGS, name)) {
      throw wrong(
        `There is no flag --${written}`,
        "a flag that --help lists",
        `write --${closest(name, Object.keys(FLAGS))}`,
      );
    }
    room = { none: 0, one: 1, many: Infinity }[FLAGS[name]];
    given.set(name, last = given.get(name) ?? []);
    if (value !== undefined) {
      last.push(value);
      room--;
    }
  }
  const many = (name: string) => given.get(name) ?? [], one = (name: string) => given.get(name)?.at(-1);
  const isSet = (name: string) => given.has(name);
  for (const [name] of given) {
    if (FLAGS[name] !== "none" && many(name).length === 0) throw wrong(`--${name} has no value`, "one behind it");
  }
  const repo = one("repo"), dataset = one("dataset");
  if ((repo === undefined) === (dataset === undefined)) {
    throw wrong(`Cannot download ${repo === undefined ? "nothing" : "both"}`, "one of --repo and --dataset");
  }
  const c4 = dataset === undefined ? undefined : c4Of(dataset), shards = one("shards");
  if (shards !== undefined && c4 === undefined) {
    throw wrong("--shards counts those of c4", "--include with --repo or --dataset");
  }
  const unknown = many("assets").find((asset) => !ASSET_NAMES.includes(asset));
  if (unknown !== undefined) throw wrong(`There is no asset ${JSON.stringify(unknown)}`, ASSET_NAMES.join(", "));
  const chosen = isSet("assets")
    ? many("assets")
    : repo !== undefined && !isSet("include") && !isSet("all")
    ? ASSET_NAMES
    : [];
  return {
    kind: repo === undefined ? "dataset" : "model",
    name: repo ?? dataset!,
    c4,
    shards: shards === undefined ? undefined : rangeOf(shards),
    include: [...many("include"), ...many("additional-patterns")],
    exclude: many("exclude"),
    assets: isSet("all") ? [] : chosen,
    revision: one("revision") ?? "main",
    token: one("hf-token"),
  };
}

function c4Of(dataset: string): Arguments["c4"] {
  const [, validation, configuration = "en"] = /^c4(_validation)?(?:\/(.+))?$/i.exec(dataset) ?? [];
  if (!/^c4(_|\/|$)/i.test(dataset)) return undefined;
  if (Object.hasOwn(C4_CONFIGURATIONS, configuration) && /^c4(_validation)?(\/|$)/i.test(dataset)) {
    return { configuration, split: validation === undefined ? "train" : "validation" };
  }
  throw wrong(
    `There is no ${dataset} on the hub`,
    `c4 and c4_validation, behind them one of ${Object.keys(C4_CONFIGURATIONS).map((name) => `/${name}`).join(", ")}`,
  );
}

function rangeOf(text: string): { first: number; last: number } {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  if (first === undefined || Number(last) < Number(first)) {
    throw wrong(`--shards ${text} is no range`, "A-B, such as 0-7, or one number");
  }
  return { first: Number(first), last: Number(last) };
}

function wrong(what: string, expected: string, fix = "correct the command; --help shows how it is written"): DataError {
  return new DataError({ code: "bad_option", what, expected, fix });
}
