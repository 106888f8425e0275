/** What a run says of its pipeline.
 * @module */
import { modulesText } from "../../parallel/pipeline/stages.ts";
import { simulate } from "../../parallel/pipeline/timetable.ts";
import type { StepPlan } from "../step_plan.ts";
import { bytesText } from "./plan_report.ts";

/** The stages of a pipeline in a line: how many, by which schedule, what each has, how long ranks idle, and what this rank keeps of
 * microbatches under way. Nothing where there is one stage. */
export function stagesText(
  { pipeline, modules, plan: { slots } }: Pick<StepPlan, "pipeline" | "modules" | "plan">,
): string {
  if (!pipeline || !modules) return "";
  const { schedule, runs } = pipeline, { bubble } = simulate(schedule), { microbatches } = schedule;
  const often = runs > 1 ? ` ${runs} times a step` : "";
  return `${modules.length} by ${schedule.name}, ${microbatches} microbatch${microbatches > 1 ? "es" : ""}${often}: ` +
    `${modules.map(modulesText).join(" | ")}; ${(100 * bubble).toFixed(1)} % idle if stages take equally long, ` +
    `${slots.count} slot${slots.count > 1 ? "s" : ""} of ${bytesText(slots.bytes)}`;
}
