/** The command line in tests: in this process, or as one of its own.
 * @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { library } from "../../../ffi/library.ts";
import { main } from "../../../train/command/command.ts";
import { temporaryFolder } from "../../data/fixture.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** The checkout. */
export const root = fromFileUrl(new URL("../../..", import.meta.url));

/** What a command printed, and how it ended. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  /** One entry for each message. */
  readonly errors: readonly string[];
}

/** Runs the command line in this process. */
export async function command(...args: string[]): Promise<Outcome> {
  const { log, error } = console, out: string[] = [], errors: string[] = [];
  console.log = (text: unknown) => out.push(String(text));
  console.error = (text: unknown) => errors.push(text instanceof Error ? text.stack! : String(text));
  try {
    return { code: await main(args), out: out.join("\n"), errors };
  } finally {
    Object.assign(console, { log, error });
  }
}

/** The same as a process of its own, with the permissions of `deno task train`, and that of a library elsewhere. */
export function spawn(args: string[], titanLib = ""): Deno.ChildProcess {
  const { tasks } = JSON.parse(Deno.readTextFileSync(`${root}/deno.json`));
  const [, run, ...flags] = (tasks.train.command as string).split(" ");
  const allowed = flags.map((flag) => titanLib && flag.startsWith("--allow-ffi=") ? `${flag},${titanLib}` : flag);
  const all = [run, "--quiet", ...allowed, ...args], env = { NO_COLOR: "1", TITAN_LIB: titanLib };
  return new Deno.Command(Deno.execPath(), { args: all, cwd: root, env, stdout: "piped", stderr: "piped" }).spawn();
}

/** How a process ends, and what it prints. */
export async function ended(process: Deno.ChildProcess): Promise<{ code: number; out: string; error: string }> {
  const { code, stdout, stderr } = await process.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), error: text(stderr) };
}

/** The reports in a file of metrics: all its lines but those that begin and end runs. */
export function reportsIn(path: string): Record<string, number>[] {
  const lines = Deno.readTextFileSync(path).trimEnd().split("\n").map((line) => JSON.parse(line));
  return lines.filter(({ run, end }) => !run && !end);
}

/** A folder with the config of a tiny run, `tiny.toml`, that writes into it. */
export async function tinyRun(): Promise<AsyncDisposable & { readonly folder: string; readonly config: string[] }> {
  const folder = await temporaryFolder(), file = `${folder.path}/tiny.toml`;
  await Deno.writeTextFile(
    file,
    `[job]
dump_folder = "${folder.path}/out"
[model]
dim = 16
n_layers = 1
n_heads = 2
ffn_hidden_dim = 16
[lr_scheduler]
warmup_steps = 0
[training]
local_batch_size = 2
seq_len = 16
steps = 3
[data]
lanes = 2
[metrics]
log_freq = 1
[device]
threads = 1
`,
  );
  const dispose = () => folder[Symbol.asyncDispose]();
  return { folder: folder.path, config: ["--config", file], [Symbol.asyncDispose]: dispose };
}

/** Fails unless the command ended with this one message. */
export function assertRefused({ code, errors }: Outcome, ...parts: string[]): void {
  assertEquals(errors.length, 1, errors.join("\n"));
  assertMatch(errors[0], /^error: /);
  assert(!/\n\s+at /.test(errors[0]), `no stack trace in: ${errors[0]}`);
  for (const part of parts) assertStringIncludes(errors[0], part);
  assertStringIncludes(errors[0], "\n  fix: ");
  assertEquals(code, 1);
}
