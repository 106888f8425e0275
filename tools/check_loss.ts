/**
 * Checks that a run learned something: `check_loss.ts METRICS_JSONL FALL` ends with 1 unless the last loss of the file's
 * last run is at least FALL below its first.
 * @module
 */

/** The reported losses of the last run in a file of metrics. */
export function losses(jsonl: string): number[] {
  const reports: Record<string, unknown>[] = jsonl.trim().split("\n").map((line) => JSON.parse(line));
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
  const [path, fall] = Deno.args;
  const values = losses(Deno.readTextFileSync(path));
  const problem = complaint(values, Number(fall));
  console.log(problem ?? `loss fell from ${values[0]} to ${values.at(-1)}`);
  if (problem !== undefined) Deno.exit(1);
}
