/** A run that is planned and not started: what it would take, whether that fits, and what to change where it does not.
 * @module */
import { Device, type DeviceInfo, type ProcessMemory } from "../../ffi/device.ts";
import { LibraryError } from "../../ffi/library.ts";
import type { State } from "../../graph/ir.ts";
import { infoOf } from "../../graph/target/cuda/gpus.ts";
import { Mesh } from "../../parallel/mesh.ts";
import { type CheckpointPlan, checkpointPlanText, planCheckpoints } from "../checkpoint/plan.ts";
import {
  type Config,
  cut,
  exportDtype,
  float8Options,
  type PlanArguments,
  trainOptions,
  writing,
} from "../config/config.ts";
import { float8Lines } from "../float8.ts";
import { fitText, neededBytes, type PlannedStep, withStagingThatFits } from "../machine_memory.ts";
import { complete, tokensPerStep, type TrainOptions } from "../options.ts";
import { sectionRuns } from "../pipeline.ts";
import { precisionOf, precisionText } from "../precision.ts";
import { meshPlanPage } from "../report/mesh_plan_page.ts";
import { meshPlanText } from "../report/mesh_plan_text.ts";
import { deviceFit, deviceFitText, planText } from "../report/plan_report.ts";
import { frontierText, rematText } from "../report/remat_report.ts";
import { stepTime, stepTimeText } from "../report/step_time.ts";
import { type CompiledStep, compileStep } from "../step_plan.ts";
import { deviceOptions } from "../trainer.ts";
import { deviceSpeeds, meshPlan, needOf, stepOptions, whatFits, whatFitsDevice } from "./plans.ts";

/** The device of this machine, or a GPU that is not here; without a native library a plan is made for f32 and says so. */
export function deviceHere(options: TrainOptions, gpu?: string): { info?: DeviceInfo; memory?: ProcessMemory } {
  if (gpu !== undefined) return { info: infoOf(gpu) };
  try {
    using device = new Device(deviceOptions(options));
    return { info: device.info, memory: device.memory() };
  } catch (error) {
    if (!(error instanceof LibraryError)) throw error;
    console.log("No native library here: planned as for a processor that does not multiply bf16 itself");
    return {};
  }
}

/** What the checkpoints of a run take.
 * @param diskSpeed bytes a second. */
export function checkpointsOf(config: Config, { spread, plan }: CompiledStep, diskSpeed?: number): CheckpointPlan {
  const stored = (state: State) => ({ ...state, dtype: plan.states.get(state.name)?.state.dtype ?? state.dtype });
  const states = [...spread.states.values()].map(stored);
  return planCheckpoints({ ...spread, states, exportDtype: exportDtype(config), diskSpeed });
}

/** The plan of one process.
 * @param asked `deviceMemory`: bytes to compare it with, instead of this machine's memory.
 * @returns whether it fits, as far as that is known. */
export function printPlan(config: Config, asked: PlanArguments = {}): boolean {
  const { deviceMemory, diskSpeed } = asked,
    options = complete(trainOptions(config)),
    { info, memory } = deviceHere(options, asked.gpu);
  const step = stepOptions(config, info), whole = compileStep(step);
  const compiled = memory ? withStagingThatFits(whole, memory) : whole;
  console.log(`Numbers\n  ${precisionText(precisionOf(options.precision, options.dtype, info), options.dtype, info)}`);
  const float8 = float8Options(config);
  if (float8) console.log(`Float8\n  ${float8Lines(options.model, float8).join("\n  ")}`);
  console.log(planText(options.model, compiled, tokensPerStep(options), options.seqLen));
  console.log(`Backward\n  ${rematText(compiled)}`);
  console.log(checkpointPlanText(checkpointsOf(config, compiled, diskSpeed)));
  const isAsked = config.activation_checkpoint.visualize_memory_budget_pareto;
  const { search } = compiled.search || !isAsked
    ? compiled
    : compileStep({ ...step, remat: { mode: "memory_budget", fraction: 1 } });
  if (search) console.log(frontierText(search.frontier()));
  const speeds = deviceSpeeds(asked, step), taken = step.target?.memoryBeside?.(compiled.graphs);
  const device = deviceFit(compiled.plan.arenaBytes, deviceMemory, taken);
  if (speeds) {
    const runs = sectionRuns(undefined, options.accumulation), tokens = tokensPerStep(options);
    const sections = compiled.program.sections.map((section) => ({ ...section, runs: runs.get(section.name) ?? 0 }));
    console.log(stepTimeText(stepTime({ speeds, sections, collectives: [], tokens })));
  }
  if (device) console.log(`Device\n  ${deviceFitText(compiled.plan.arenaBytes, device)}`);
  else console.log(`Machine\n  ${fitText(compiled, memory)}`);
  const limit = device ? { limit: device.room, need: ({ plan }: PlannedStep) => plan.arenaBytes } : memory && {
    limit: memory.availableBytes,
    need: (planned: PlannedStep) => neededBytes(withStagingThatFits(planned, memory), memory).all,
  };
  if (!limit || limit.need(compiled) <= limit.limit) return true;
  whatFits(config, new Mesh({}, 1), needOf(compiled, limit), info, limit).forEach((line) => console.log(`  ${line}`));
  return false;
}

/** The plan of a rank of a mesh, on the console and in the files that are asked for.
 * @returns whether it fits into the device that it is compared with, if any. */
export function printMeshPlan(config: Config, mesh: Mesh, asked: PlanArguments): boolean {
  const { info } = deviceHere(trainOptions(config), asked.gpu),
    plan = cut(() => meshPlan(config, mesh, asked, info));
  console.log(meshPlanText(plan));
  const files = [[asked.json, () => `${JSON.stringify(plan, null, 2)}\n`], [
    asked.page,
    () => meshPlanPage(plan),
  ]] as const;
  for (const [path, text] of files) {
    if (path !== undefined) writing(path, "name another file", () => Deno.writeTextFileSync(path, text()));
  }
  if (plan.device === null || plan.device.fits) return true;
  console.log(`To fit\n${whatFitsDevice(config, mesh, plan, info).map((line) => `  ${line}`).join("\n")}`);
  return false;
}
