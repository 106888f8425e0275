/**
 * Checks that a run learned something: `check_loss.ts METRICS_JSONL FALL` ends with 1 unless the last loss of the file's
 * last run is at least FALL below its first.
 * @module
 */

import { parseJsonLines } from "../train/report/json_lines.ts";
import { runTool } from "./tool.ts";

/** The reported losses of the last run in the lines of a file of metrics. */
export function losses(reports: readonly Record<string, unknown>[]): number[] {
  return reports.slice(reports.findLastIndex((report) => "run" in report) + 1)
    .filter((report) => "loss_metrics/global_avg_loss" in report)
    .map((report) => report["loss_metrics/global_avg_loss"] as number | null ?? NaN);
}

/** Why the losses do not show that a model learns; undefined where they do. */
export function complaint(losses: number[], fall: number): string | undefined {
  if (losses.length < 2) return `expected at least two reported losses, got ${losses.length}`;
  const [first, last] = [losses[0], losses[losses.length - 1]];
  return first - last >= fall ? undefined : `expected the loss to fall by ${fall}, it went from ${first} to ${last}`;
}

if (import.meta.main) {
  Deno.exit(runTool("tools/check_loss.ts METRICS_JSONL FALL", Deno.args, (path, fall) => {
    const values = losses(parseJsonLines(Deno.readTextFileSync(path), path));
    if (!(Number(fall) > 0)) throw new SyntaxError(`FALL is ${JSON.stringify(fall)}: expected a number above 0`);
    const problem = complaint(values, Number(fall));
    console.log(problem ?? `loss fell from ${values[0]} to ${values.at(-1)}`);
    return problem === undefined ? 0 : 1;
  }));
}
