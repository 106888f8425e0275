/** How the small tools are run from a command line: with the arguments that they need, or with their usage. @module */

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
