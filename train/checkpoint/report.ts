/** What a run says of its checkpoints.
 * @module */
import { leaves } from "../agreement.ts";
import { bytesText } from "../report/plan_report.ts";
import type { HostMemory } from "../step_plan.ts";
import type { Saved, Start } from "./checkpoints.ts";

/** Keys that may differ without changing what is trained. */
const OF_NO_MATTER = /^(job|profiling|metrics|comm|checkpoint|validation|device)\./;

/** The lines of a run's header about where it goes on from, and what differs since. */
export function startLines(start: Start, config: Readonly<Record<string, unknown>> | undefined): string[] {
  const { path, step, tokensSeen, parts, notices } = start, count = (n: number) => n.toLocaleString("en-US");
  const place = parts.includes("train_state") ? `step ${count(step)}, ${count(tokensSeen)} tokens seen` : "step 0";
  const anew = parts.length < 5 ? `; taken from it: ${parts.join(", ")}` : "";
  return [
    `  from    ${path}: ${place}${anew}`,
    ...notices.map((notice) => `          passed over: ${notice}`),
    ...changes(start.config, config).map((change) => `  changed ${change}`),
  ];
}

/** Where two configurations differ, a line each: `training.local_batch_size 8, was 4`. */
export function changes(saved: unknown, now: unknown): string[] {
  if (typeof saved !== "object" || saved === null || typeof now !== "object" || now === null) return [];
  const [before, after] = [saved, now].map((one) => new Map(leaves(JSON.parse(JSON.stringify(one)), "")));
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((key) => !OF_NO_MATTER.test(key) && before.get(key) !== after.get(key))
    .map((key) => `${key} ${after.get(key) ?? "not set"}, was ${before.get(key) ?? "not set"}`);
}

/** A line about a buffer that is smaller than what goes through it, where training does not stand still for it; else none. */
export function stagingLines({ shareBytes, stagingBytes }: HostMemory["host"], isAsync: boolean): string[] {
  if (!isAsync || stagingBytes >= shareBytes) return [];
  return [
    `checkpoints: ${bytesText(stagingBytes)} of ${bytesText(shareBytes)} are copied ahead of the disk, as ` +
    "checkpoint.staging_limit or memory allows no more; the next update waits for the rest",
  ];
}

/** A save in a line. */
export function savedText({ path, content, bytes, ms, stallMs, failure }: Saved): string {
  if (failure) return `warning: ${failure.message}\n  the run goes on`;
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`, rate = bytesText(bytes / (ms / 1000));
  const stall = stallMs < 0.99 * ms ? `; training stood still for ${seconds(stallMs)} of them` : "";
  const what = content === "model" ? "parameters alone, " : "";
  return `saved ${path}: ${what}${bytesText(bytes)} in ${seconds(ms)}, ${rate}/s${stall}`;
}
