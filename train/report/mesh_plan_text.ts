/** The plan of a step on a mesh as text for a console.
 * @module */
import { degreesText } from "../../parallel/mesh.ts";
import { checkpointPlanText } from "../checkpoint/plan.ts";
import { modulesText } from "../../parallel/pipeline/stages.ts";
import { timetableText } from "../../parallel/pipeline/timetable.ts";
import {
  type CollectivePlan,
  collectiveTotals,
  type MeshPlan,
  parameterGroups,
  type PipelinePlan,
} from "./mesh_plan.ts";
import { bytesText, deviceFitText, table } from "./plan_report.ts";
import { stepTimeText } from "./step_time.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** FLOPs in the unit that suits them. */
export function flopsText(flops: number): string {
  const units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"];
  const unit = Math.min(units.length - 1, flops >= 1000 ? Math.floor(Math.log10(flops) / 3) : 0);
  return `${(flops / 1000 ** unit).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/** The mesh in a line: `dp_shard 64 x tp 8 = 512 ranks`. */
export function meshText({ mesh, ranks }: Pick<MeshPlan, "mesh" | "ranks">): string {
  const axes = degreesText(mesh);
  return axes === "" ? "1 rank" : `${axes} = ${count(ranks)} ranks`;
}

/** Memory by what it is for, in the order in which it is shown. */
export function memoryRows({ memory: m }: MeshPlan): { readonly name: string; readonly bytes: number }[] {
  return [
    { name: "parameters", bytes: m.parameters },
    { name: "gradient sums", bytes: m.gradientSums },
    { name: "moments", bytes: m.moments },
    { name: "sums of loss and tokens", bytes: m.sums },
    { name: "kept for backward, at the peak", bytes: m.kept },
    { name: "gathered parameters, at the peak", bytes: m.gathered },
    { name: "transient, at the peak", bytes: m.transient },
    { name: "scratch of kernels, at the peak", bytes: m.scratch },
    { name: "gaps", bytes: m.gaps },
    ...(m.buffers > 0 ? [{ name: "buffers", bytes: m.buffers }] : []),
    ...(m.caches > 0 ? [{ name: "caches", bytes: m.caches }] : []),
    ...(m.activations > 0 ? [{ name: "activations of stages", bytes: m.activations }] : []),
  ];
}

/** ` of 9 tensors`, where a collective in one place has several. */
export function tensorsText({ tensors, count }: CollectivePlan): string {
  return tensors > count ? ` of ${tensors / count} tensors` : "";
}

/** A line for each entry: what, how many, bytes. */
function collectiveTable<C extends Omit<CollectivePlan, "where" | "section">>(
  list: readonly C[],
  place: (entry: C) => string,
  tensors: (entry: C) => string = () => "",
): string {
  if (list.length === 0) return "  none\n";
  const bytes = list.map((c) => bytesText(c.bytes)), width = Math.max(...bytes.map((b) => b.length));
  const rows = list.map((c, i) =>
    [
      `${place(c)}${c.op}${tensors(c)} over ${c.axes.join(" ")} (${c.size} ranks), ${c.dtype}`,
      `${count(c.count)} x  ${bytes[i].padStart(width)}`,
    ] as const
  );
  return `${table(rows)}\n`;
}

/** Stages, what each place along pp takes, and what happens when. */
export function pipelineText({ schedule, runs, microbatches, stages, places, timetable }: PipelinePlan): string {
  const modules = stages.map(({ modules, place }, stage) =>
    `  stage ${stage} on pp ${place}: ${modulesText(modules)}\n`
  );
  const rows = places.map(({ slots, slotBytes, arenaBytes, flops }, place) =>
    [`pp ${place}: ${slots} slots of ${bytesText(slotBytes)}, ${flopsText(flops)}`, bytesText(arenaBytes)] as const
  );
  const often = runs > 1 ? `, ${runs} times a step` : "";
  return `Pipeline
  ${schedule}, ${microbatches} microbatches in ${stages.length} stages${often}; ` +
    `${(100 * timetable.bubble).toFixed(1)} % idle, if a stage takes as long as its FLOPs say
${modules.join("")}Arena of a rank, by its place along pp
${table(rows)}
Timetable (a line for each place along pp; F forward, B backward, I and W its halves, for inputs and for weights)
${timetableText(timetable).replaceAll(/^/gm, "  ").trimEnd()}
`;
}

/** The whole plan. */
export function meshPlanText(plan: MeshPlan): string {
  const { model, step, sections, collectives, memory } = plan;
  const parameters = parameterGroups(plan.parameters).map((p) => {
    const times = p.names.length > 1 ? `${p.names.length} x ` : "", padded = p.padded ? " (padded)" : "";
    const lines = [`stored ${p.stored}`, `used ${p.used}`, `gradient ${p.gradient}`];
    return `  ${p.name}\n    ${times}[${p.shape}], a rank has [${p.localShape}]${padded}, ${bytesText(p.bytes)}\n` +
      lines.map((line) => `    ${line}\n`).join("");
  });
  const totals = collectiveTable(collectiveTotals(collectives), () => "");
  const places = collectiveTable(collectives, (c) => `${`${c.section} ${c.where}`.trim()}: `, tensorsText);
  const flops = sections.filter((s) => s.runs * s.flops > 0).map((s) => {
    const again = s.recomputedFlops > 0 ? ` (made again in backward: ${flopsText(s.recomputedFlops)} of each)` : "";
    return [`${s.name}${again}`, `${s.runs} x ${flopsText(s.flops)}`] as const;
  });
  return `Mesh
  ${meshText(plan)}
Model
  ${model.name}: ${count(model.parameters)} parameters
Step
  ${count(step.globalBatchSize)} sequences of ${count(step.seqLen)} tokens: ${count(step.tokens)} tokens in ` +
    `${step.microbatches} microbatch${step.microbatches > 1 ? "es" : ""}; ${plan.precision}
Parameters (layouts by axis; what is left out is replicated)
${parameters.join("")}Collectives of a step, by kind (bytes sent by each rank)
${totals}Collectives of a step, by place
${places}Memory of rank ${plan.rank} (planned bytes)
${
      table([
        ...memoryRows(plan).map(({ name, bytes }) => [name, bytesText(bytes)] as const),
        ["arena", `${bytesText(memory.arena)} = ${count(memory.arena)} B`],
      ])
    }
${plan.pipeline ? pipelineText(plan.pipeline) : ""}Device
  ${deviceFitText(memory.arena, plan.device)}
${plan.time ? `${stepTimeText(plan.time)}\n` : ""}Largest values of ${plan.largestIn}
${table(plan.largest.map((v) => [v.kept ? `${v.label}, kept` : v.label, bytesText(v.bytes)] as const))}
FLOPs of rank ${plan.rank} in a step: ${flopsText(plan.flops)}
${table(flops)}
${checkpointPlanText(plan.checkpoint)}`;
}
