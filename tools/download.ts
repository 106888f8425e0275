/** Downloads models and datasets from the hub into its cache: `deno task download --repo ORG/NAME`.
 * @module */
import { dirname } from "@std/path";
import { C4_REPOSITORY, c4Paths, type Split } from "../data/c4.ts";
import { DataError } from "../data/error.ts";
import { fitsAny, parseAddress } from "../data/hub/address.ts";
import { HubCache } from "../data/hub/cache.ts";
import { download } from "../data/hub/download.ts";
import { Hub, type HubFile, repository } from "../data/hub/hub.ts";
import { PATIENCE, type RequestOptions, Requests } from "../data/hub/requests.ts";
import { type HubSettings, hubSettings } from "../data/hub/settings.ts";
import { bytesText } from "../train/report/plan_report.ts";
import { type Arguments, parseDownload, USAGE } from "./download_arguments.ts";
import { runCommand, tellUsage } from "./tool.ts";

/** Files that libtitan reads of a model. */
export const ASSETS: Readonly<Record<string, readonly string[]>> = {
  tokenizer: [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template*",
    "original/tokenizer.model",
  ],
  config: ["config.json", "generation_config.json"],
  index: ["*.safetensors.index.json"],
  safetensors: ["*.safetensors"],
};

/** Files that come at the same time. */
const TOGETHER = 4;

/** Milliseconds from one line about the progress to the next, where lines stay. */
const PROGRESS_MS = 2000;

/** Where lines go. */
export interface Console {
  /** A line that lasts: the result. */
  readonly print: (text: string) => void;
  /** How far it is; where `isTerminal`, a line in place of the last. */
  readonly note: (text: string) => void;
  readonly isTerminal?: boolean;
}

/** Downloads; returns the exit code.
 * @throws {DataError} when something cannot be had. */
export async function run(
  args: readonly string[],
  { print, note, isTerminal = false }: Console,
  { settings = hubSettings(), ...options }: RequestOptions & { readonly settings?: HubSettings } = {},
): Promise<number> {
  if (args.length === 0 || args.includes("--help")) return tellUsage(USAGE, args, print);
  const asked = parseDownload(args);
  const token = asked.token ?? settings.token;
  const hub = new Hub(new Requests({ ...settings, token }, { patience: PATIENCE, say: note, ...options }));
  const cache = new HubCache(settings.cache);
  const { files, all, what } = await select(hub, cache, asked);
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const count = (n: number) => `${n} file${n === 1 ? "" : "s"}`;
  note(`${what}: ${count(files.length)}${all > files.length ? ` of ${all}` : ""}, ${bytesText(bytes)}`);
  const paths = await downloadAll(hub, cache, files, progressLine(files, bytes, note, isTerminal));
  if (isTerminal && files.length > 0) note("");
  print(folderOf(paths, files));
  return 0;
}

/** The files that are asked for, and how many there are in all. */
async function select(
  hub: Hub,
  cache: HubCache,
  asked: Arguments,
): Promise<{ readonly files: HubFile[]; readonly all: number; readonly what: string }> {
  if (asked.c4 !== undefined) return await c4Files(hub, asked.c4, asked);
  const { kind, name, include, exclude, assets } = asked, from = repository(kind, name);
  const commit = await hub.commit(from, asked.revision);
  await cache.keepCommit(from, asked.revision, commit);
  const files = await hub.files(from, commit);
  const patterns = [...include, ...assets.flatMap((asset) => ASSETS[asset])];
  const wanted = files.filter(({ path }) =>
    (patterns.length === 0 || fitsAny(path, patterns)) && !fitsAny(path, exclude)
  );
  if (wanted.length === 0) {
    throw new DataError({
      code: "no_such_file",
      what: `None of the ${files.length} files of ${name} is asked for by ${patterns.join(" ") || "no pattern"}`,
      expected: `names or patterns of files such as ${files.slice(0, 4).map(({ path }) => path).join(", ")}`,
      fix: "correct --include and --exclude, or take --all",
    });
  }
  return { files: wanted, all: files.length, what: `${name} at ${commit.slice(0, 12)}` };
}

/** Shards of C4, whose names are known: the hub is asked for these alone. */
async function c4Files(
  hub: Hub,
  { configuration, split }: { readonly configuration: string; readonly split: Split },
  { shards, revision }: Arguments,
): Promise<{ readonly files: HubFile[]; readonly all: number; readonly what: string }> {
  const pinned = parseAddress(C4_REPOSITORY), paths = c4Paths(configuration, split);
  const { first, last } = shards ?? { first: 0, last: paths.length - 1 };
  if (last >= paths.length) {
    throw new DataError({
      code: "bad_option",
      what: `There is no shard ${last} of ${split} in ${configuration} of C4`,
      expected: `numbers from 0 to ${paths.length - 1}`,
      fix: "correct --shards",
    });
  }
  const commit = revision === "main" ? pinned.revision : await hub.commit(pinned.repository, revision);
  const files: HubFile[] = [];
  for (const path of paths.slice(first, last + 1)) files.push(await hub.file(pinned.repository, commit, path));
  return { files, all: paths.length, what: `${split} shards of ${configuration} of C4` };
}

/** Brings all files, some at the same time; the first that cannot be had stops the others. */
async function downloadAll(
  hub: Hub,
  cache: HubCache,
  files: readonly HubFile[],
  progress: (file: HubFile, bytes: number) => void,
): Promise<string[]> {
  const paths: string[] = [], left = [...files.entries()], stop = new AbortController();
  const work = async () => {
    for (let next; (next = left.shift()) !== undefined && !stop.signal.aborted;) {
      const [n, file] = next;
      paths[n] = await download(hub, cache, file, {
        progress: (bytes) => progress(file, bytes),
        signal: stop.signal,
      });
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: TOGETHER }, async () => {
    try {
      await work();
    } catch (error) {
      const isFirst = !stop.signal.aborted;
      stop.abort(error);
      if (isFirst) throw error;
    }
  }));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  return paths;
}

/** Tells how far all files are, in one line. */
function progressLine(
  files: readonly HubFile[],
  all: number,
  note: (text: string) => void,
  isTerminal: boolean,
): (file: HubFile, bytes: number) => void {
  const done = new Map<HubFile, number>(), kept = new Map<HubFile, number>(), begun = performance.now();
  let told = isTerminal ? 0 : begun;
  return (file, bytes) => {
    if (!kept.has(file)) kept.set(file, bytes); // of an earlier download: nothing that came now
    done.set(file, bytes);
    const now = performance.now(), whole = [...done].filter(([{ size }, bytes]) => bytes === size).length;
    if (now - told < (isTerminal ? 100 : PROGRESS_MS) && whole < files.length) return;
    told = now;
    const sum = (bytes: Map<HubFile, number>) => [...bytes.values()].reduce((sum, n) => sum + n, 0);
    const rate = (sum(done) - sum(kept)) / Math.max(1, now - begun) * 1000, left = (all - sum(done)) / rate;
    note(
      `${bar(all === 0 ? 1 : sum(done) / all)} ${bytesText(sum(done))} of ${bytesText(all)}, ${bytesText(rate)}/s` +
        `, ${whole} of ${files.length} files${Number.isFinite(left) && left >= 1 ? `, ${Math.ceil(left)} s left` : ""}`,
    );
  };
}

function bar(share: number): string {
  const width = 20, full = Math.floor(share * width);
  return `[${"#".repeat(full)}${".".repeat(width - full)}] ${String(Math.floor(share * 100)).padStart(3)} %`;
}

/** The folder that the files lie in: the snapshot's, or where all are in one folder below it, that one. */
function folderOf(paths: readonly string[], files: readonly HubFile[]): string {
  const folders = new Set(files.map(({ path }) => dirname(path)));
  const [path] = paths, [file] = files;
  return folders.size === 1 ? dirname(path) : path.slice(0, -file.path.length - 1);
}

/** A console that writes a line over the last where that can be seen. */
export function terminal(): Console {
  const isTerminal = Deno.stderr.isTerminal(), encoder = new TextEncoder();
  const note = (text: string) => Deno.stderr.writeSync(encoder.encode(`\r\x1b[K${text}`));
  return { print: console.log, note: isTerminal ? note : console.error, isTerminal };
}

if (import.meta.main) Deno.exit(await runCommand(() => run(Deno.args, terminal())));
