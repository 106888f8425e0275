/** Plans of a configuration, and what to change where one does not fit. They need neither the native library nor files, and so are made
 * in browsers too.
 * @module */
import type { DeviceInfo } from "../../ffi/device.ts";
import { targetOf } from "../../graph/target/cuda.ts";
import { peakOf } from "../../graph/target/cuda/gpus.ts";
import { numParameters } from "../../model/module.ts";
import type { Mesh } from "../../parallel/mesh.ts";
import {
  type Config,
  exportDtype,
  meshChoices,
  meshOf,
  modelOf,
  type PlanArguments,
  trainOptions,
} from "../config/config.ts";
import type { PlannedStep } from "../machine_memory.ts";
import { complete } from "../options.ts";
import { precisionOf } from "../precision.ts";
import { alternativeLines, alternatives, type Need } from "../report/alternatives.ts";
import { type MeshPlan, planMesh } from "../report/mesh_plan.ts";
import type { DeviceSpeeds } from "../report/step_time.ts";
import { planPlaces, planStep, type StepOptions } from "../step_plan.ts";

/** What the step of a configuration is compiled with.
 * @param mesh of its ranks; that of rank 0 is compiled. */
export function stepOptions(config: Config, info: DeviceInfo | undefined, mesh?: Mesh): StepOptions {
  const options = complete(trainOptions(config, mesh)), precision = precisionOf(options.precision, options.dtype, info);
  const threads = info?.threads ?? (options.threads || navigator.hardwareConcurrency);
  const ranks = mesh && mesh.size > 1 ? { ...options.parallelism, mesh, rank: 0 } : undefined;
  const target = targetOf(info ?? { kind: options.device }, precision);
  return { ...options, precision, threads, ranks, evaluate: options.validation, target };
}

/** How fast the device is that a plan is asked about; undefined: it is not asked. */
export function deviceSpeeds(
  { gpu, deviceFlops, deviceBandwidth, links = {}, tokens }: PlanArguments,
  step: Pick<StepOptions, "precision" | "dtype">,
): DeviceSpeeds | undefined {
  const flops = deviceFlops ?? peakOf(gpu, step);
  return flops === undefined ? undefined : { flops, bandwidth: deviceBandwidth, links, tokens };
}

/** The plan of a step on a mesh.
 * @param info of the device that it would run on, as far as one is here. */
export function meshPlan(config: Config, mesh: Mesh, asked: PlanArguments = {}, info?: DeviceInfo): MeshPlan {
  const step = stepOptions(config, info, mesh);
  return planMesh({
    ...step,
    model: modelOf(config),
    name: `${config.model.name}/${config.model.flavor}`,
    ranks: { mesh, ...meshChoices(config) },
    deviceMemory: asked.deviceMemory,
    speeds: deviceSpeeds(asked, step),
    exportDtype: exportDtype(config),
    diskSpeed: asked.diskSpeed,
  });
}

/** Memory that a step has to fit into, and how much it needs of that. */
export interface Limit {
  readonly limit: number;
  readonly need: (planned: PlannedStep) => number;
}

/** What a planned step needs. */
export function needOf(planned: PlannedStep, { need }: Limit): Need {
  const { parameter, gradient, moment } = planned.plan.categories;
  return { bytes: need(planned), stateBytes: parameter + gradient + moment };
}

/** What to change in a configuration that does not fit, a line each.
 * @param now what it needs. @param info of the device that it would run on. */
export function whatFits(
  config: Config,
  mesh: Mesh,
  now: Need,
  info: DeviceInfo | undefined,
  limit: Limit,
): string[] {
  if (limit.limit <= 0) return ["a device with more memory: nothing is left for an arena"];
  const plan = (changed: Config): Need => {
    const isSpread = changed.parallelism.data_parallel_shard_degree > 0;
    const { ranks, ...step } = stepOptions(changed, info, meshOf(changed, isSpread ? undefined : mesh.size));
    const places = ranks ? planPlaces({ ...step, ranks }) : [planStep(step)];
    return places.map((place) => needOf(place, limit)).reduce((a, b) => b.bytes > a.bytes ? b : a);
  };
  const parameters = numParameters(modelOf(config));
  return alternativeLines(alternatives(config, { limit: limit.limit, parameters, mesh, now, plan }), limit.limit);
}

/** What to change in a configuration whose plan does not fit into the device that it was compared with, a line each. */
export function whatFitsDevice(config: Config, mesh: Mesh, { memory, device }: MeshPlan, info?: DeviceInfo): string[] {
  const { arena: bytes, parameters, gradientSums, moments } = memory;
  const limit = { limit: device!.room, need: ({ plan }: PlannedStep) => plan.arenaBytes };
  return whatFits(config, mesh, { bytes, stateBytes: parameters + gradientSums + moments }, info, limit);
}
