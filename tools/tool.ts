/** How the small tools are run from a command line: with the arguments that they need, or with their usage; and how long ones tell how far
 * they are.
 * @module */
import { DataError } from "../data/error.ts";
import { CheckpointError } from "../train/checkpoint/error.ts";
import { enterWorkingFolder } from "../train/command/working_folder.ts";
import { ConfigError } from "../train/config/problem.ts";
import { bytesText } from "../train/report/plan_report.ts";

/** Runs a tool. Without all of its arguments it prints its usage, and of an error that is the user's the message alone.
 * @param usage such as `tools/plot_loss.ts METRICS_JSONL SVG`: what it needs are the words in capitals.
 * @returns the exit code, 1 where it did not run. */
export function runTool(
  usage: string,
  args: readonly string[],
  run: (...args: string[]) => number | void,
): number {
  const needed = usage.split(" ").filter((word) => /^[A-Z_]+$/.test(word)).length;
  if (args.length < needed || args.includes("--help")) {
    console.error(`Usage: deno run --allow-read --allow-write ${usage}`);
    return 1;
  }
  try {
    return run(...args) ?? 0;
  } catch (error) {
    const isUsers = error instanceof SyntaxError || Object.values(Deno.errors).some((kind) => error instanceof kind);
    if (!isUsers) throw error;
    console.error(`error: ${(error as Error).message}`);
    return 1;
  }
}

/** Arguments that a command does not have; the message ends with its usage. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What is done where arguments are none of a command: its usage is printed where that is asked for.
 * @returns the exit code. @throws {UsageError} where it is not. */
export function tellUsage(usage: string, args: readonly string[], print: (text: string) => void): number {
  if (!args.includes("--help")) {
    const what = args.length === 0
      ? "There are no arguments"
      : `These are no arguments of the command: ${args.join(" ")}`;
    throw new UsageError(`${what}\n  expected: those below\n  fix: write some of them\n\n${usage}`);
  }
  print(usage);
  return 0;
}

/** Runs a command where the user stands. Of an error that tells the user something it prints the message alone.
 * @returns the exit code, 1 where such an error ended it. */
export async function runCommand(run: () => Promise<number>): Promise<number> {
  try {
    enterWorkingFolder();
    return await run();
  } catch (error) {
    if (![CheckpointError, DataError, ConfigError, UsageError].some((kind) => error instanceof kind)) throw error;
    console.error(`error: ${(error as Error).message}`);
    return 1;
  }
}

/** Tells now and then how far work on bytes is, and how fast.
 * @param done what has happened to them: `written`. @param everyMs milliseconds from one line to the next. */
export function byteProgress(
  done: string,
  everyMs: number,
  note: (text: string) => void,
): (bytes: number, all: number) => void {
  const begun = performance.now();
  let told = begun;
  return (bytes, all) => {
    const now = performance.now();
    if (now - told < everyMs) return;
    told = now;
    note(`${bytesText(bytes)} of ${bytesText(all)} ${done}, ${bytesText(bytes / (now - begun) * 1000)}/s`);
  };
}
