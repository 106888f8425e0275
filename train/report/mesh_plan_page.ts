/** The plan of a step on a mesh as one page for a browser: nothing is loaded from elsewhere, no script runs.
 * @module */
import { AXES, type OwnAxis } from "../../parallel/mesh.ts";
import { modulesText } from "../../parallel/pipeline/stages.ts";
import { checkpointRows, diskSpeedText } from "../checkpoint/plan.ts";
import {
  collectiveTotals,
  type MeshPlan,
  type ParameterGroup,
  parameterGroups,
  type PipelinePlan,
} from "./mesh_plan.ts";
import { flopsText, memoryRows, meshText, tensorsText } from "./mesh_plan_text.ts";
import { bytesText, deviceFitText } from "./plan_report.ts";
import { rangeText, speedsText, type StepTime, stepTimeRows } from "./step_time.ts";
import { timetablePicture } from "./timetable_picture.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** Text as it stands in HTML. */
function html(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (c) => entities[c]);
}

/** A name, which may break behind every dot, so that a long one never widens its column. */
const name = (text: string): string => `<code>${html(text).replace(/[._]/g, "$&<wbr>")}</code>`;

/** Colors of memory categories, in the order of `memoryRows`. */
const MEMORY_COLORS = [
  "#2f5d8a",
  "#4f8fbf",
  "#8fbcdb",
  "#9aa0a6",
  "#d98a3d",
  "#6a9a58",
  "#c0504d",
  "#8064a2",
  "#d5d8dc",
  "#2e8b8b",
  "#b5a642",
  "#1f3b57",
];
/** Color of each kind of collective. */
const OP_COLORS: Readonly<Record<string, string>> = {
  all_gather: "#4f8fbf",
  reduce_scatter: "#d98a3d",
  all_reduce: "#6a9a58",
  ring_shift: "#8064a2",
  all_to_all: "#2f8f83",
  exchange: "#9aa0a6",
};

/** How a plan looks. */
export const MESH_PLAN_STYLE = `
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1d2733; background: #f5f7f9; margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0; }
h2 { font-size: 18px; margin: 0 0 10px; }
.sub { color: #5b6875; margin: 2px 0 18px; }
section { background: #fff; border: 1px solid #dfe4e9; border-radius: 8px; padding: 16px 18px; margin: 14px 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tile { flex: 1 1 140px; box-sizing: border-box; background: #fff; border: 1px solid #dfe4e9; border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 18px; white-space: nowrap; }
.tile span, .note { color: #5b6875; font-size: 13px; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
th { text-align: left; font-weight: 600; font-size: 13px; color: #5b6875; }
th, td { padding: 5px 8px 5px 0; border-bottom: 1px solid #edf0f3; vertical-align: top; overflow-wrap: break-word; }
td.n, th.n { padding-right: 14px; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 13px/1.4 ui-monospace, Menlo, Consolas, monospace; }
.bar { background: #edf0f3; height: 14px; border-radius: 3px; margin-top: 3px; }
.bar div { height: 14px; border-radius: 3px; min-width: 1px; }
.stack { display: flex; height: 34px; border-radius: 4px; overflow: hidden; margin: 4px 0 14px; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
.axis { display: inline-block; border-radius: 3px; padding: 0 5px; margin: 1px 4px 1px 0; background: #e6eef6; font-size: 13px; }
.axis.tp { background: #fdebd9; } .axis.partial { background: #e7f1e3; } .axis.none { background: #f0f1f3; color: #5b6875; }
details { margin-top: 10px; } summary { cursor: pointer; color: #2f5d8a; }
svg { display: block; max-width: 100%; height: auto; }
@media (max-width: 760px) { section { overflow-x: auto; } table { min-width: 640px; } }
`;

/** A layout's text as a chip for each axis. */
function chips(layout: string): string {
  return layout.split(/, (?=[a-z_]+: )/).map((part) => {
    const kind = part === "Replicate"
      ? "none"
      : part.includes("Partial")
      ? "partial"
      : part.startsWith("tp")
      ? "tp"
      : "";
    return `<span class="axis ${kind}">${html(part)}</span>`;
  }).join("");
}

const bar = (share: number, color: string): string =>
  `<div class="bar">${
    share > 0 ? `<div style="width:${(100 * share).toFixed(2)}%;background:${color}"></div>` : ""
  }</div>`;

/** Most ranks that are drawn along each axis: beyond, a picture says no more. */
const DRAWN: Readonly<Record<OwnAxis, number>> = { pp: 1, dp_replicate: 4, dp_shard: 64, cp: 16, tp: 32 };

/** The mesh: a frame for each replica, in it a box for each shard, in it a column for each rank of `tp` and a line for each of `cp`. */
function meshPicture({ mesh }: MeshPlan): string {
  const drawn = (axis: OwnAxis) => Math.min(mesh[axis], DRAWN[axis]);
  const [replicas, shards, lines, columns] = [drawn("dp_replicate"), drawn("dp_shard"), drawn("cp"), drawn("tp")];
  const cell = 12, pad = 4, gap = 6, left = mesh.dp_replicate > 1 ? 110 : 0;
  const width = columns * cell + 2 * pad, height = lines * cell + 2 * pad;
  const fitting = Math.max(1, Math.floor((1040 - left) / (width + gap)));
  const rows = Math.ceil(shards / fitting),
    perRow = Math.ceil(shards / rows),
    replicaHeight = rows * (height + gap) + 10;
  const parts: string[] = [];
  for (let r = 0; r < replicas; r++) {
    if (left > 0) parts.push(`<text x="0" y="${r * replicaHeight + 16}">dp_replicate ${r}</text>`);
    for (let s = 0; s < shards; s++) {
      const x = left + s % perRow * (width + gap), y = r * replicaHeight + Math.floor(s / perRow) * (height + gap);
      parts.push(`<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="3" class="box"/>`);
      for (let c = 0; c < lines; c++) {
        for (let t = 0; t < columns; t++) {
          const light = 42 + 36 * (columns > 1 ? t / (columns - 1) : 0.3), hue = 208 + (c % 2) * 22;
          const at = `x="${x + pad + t * cell + 1}" y="${y + pad + c * cell + 1}"`;
          parts.push(
            `<rect ${at} width="${cell - 2}" height="${cell - 2}" rx="2" fill="hsl(${hue} 48% ${light.toFixed(0)}%)"/>`,
          );
        }
      }
    }
  }
  const size = [left + perRow * (width + gap), replicas * replicaHeight];
  const cut = AXES.filter((axis) => axis !== "pp" && mesh[axis] > DRAWN[axis]);
  const more = cut.length === 0
    ? ""
    : ` Drawn are the first ${cut.map((a) => `${DRAWN[a]} of ${mesh[a]} along ${a}`).join(", ")}.`;
  const stages = mesh.pp > 1
    ? ` Drawn is one of ${mesh.pp} places along the pipeline (pp), which all have as many ranks.`
    : "";
  const words = [
    ...(mesh.dp_replicate > 1 ? ["a frame of boxes for each replica (dp_replicate)"] : []),
    "a box for each data-parallel shard (dp_shard)",
    ...(mesh.cp > 1 ? ["a line in it for each part of the sequence (cp)"] : []),
    ...(mesh.tp > 1 ? ["a column in it for each part of the tensors (tp)"] : []),
    ...(mesh.ep > 1 ? [`and ${mesh.ep} neighbouring shards or lines share out the experts (ep)`] : []),
  ];
  return `<svg viewBox="0 0 ${size[0]} ${size[1]}" width="${size[0]}" height="${
    size[1]
  }" role="img" aria-label="ranks of the mesh">
<style>text { font: 13px sans-serif; fill: #5b6875; } .box { fill: #f5f7f9; stroke: #c9d2da; }</style>
${parts.join("\n")}
</svg>
<p class="note">Each small square is a rank: ${words.join(", ")}.${more}${stages}</p>`;
}

function memorySection(plan: MeshPlan): string {
  const rows = memoryRows(plan), { arena } = plan.memory;
  const share = (bytes: number) => 100 * bytes / arena;
  const stack = rows.map(({ name, bytes }, i) =>
    `<div title="${html(name)}: ${bytesText(bytes)}" style="width:${share(bytes).toFixed(3)}%;background:${
      MEMORY_COLORS[i]
    }"></div>`
  );
  const lines = rows.map(({ name, bytes }, i) =>
    `<tr><td><span class="key" style="background:${MEMORY_COLORS[i]}"></span>${html(name)}</td>` +
    `<td>${bar(bytes / arena, MEMORY_COLORS[i])}</td><td class="n">${bytesText(bytes)}</td>` +
    `<td class="n">${share(bytes).toFixed(1)} %</td></tr>`
  );
  const values = plan.largest.map((v) =>
    `<tr><td>${name(v.label)}${v.kept ? " (kept)" : ""}</td><td class="n">${bytesText(v.bytes)}</td></tr>`
  );
  return `<section><h2>Memory of a rank: ${bytesText(arena)}</h2>
${plan.device ? `<p>It ${deviceFitText(arena, plan.device)}.</p>` : ""}
<div class="stack">${stack.join("")}</div>
<table><colgroup><col style="width:32%"><col><col style="width:110px"><col style="width:80px"></colgroup>${
    lines.join("\n")
  }</table>
<details><summary>Largest values of ${name(plan.largestIn)}</summary>
<table><colgroup><col><col style="width:110px"></colgroup>${values.join("\n")}</table></details></section>`;
}

/** How long a step takes, by what. */
function timeSection(time: StepTime): string {
  const rows = stepTimeRows(time).map(([what, value]) =>
    `<tr><td>${html(what)}</td><td class="n">${html(value)}</td></tr>`
  );
  return `<section><h2>Time of a step: ${html(rangeText(time.least, time.most))}</h2>
<p>Estimated at ${html(speedsText(time.speeds))}.</p>
<table><colgroup><col><col style="width:220px"></colgroup>${rows.join("\n")}</table></section>
`;
}

function collectivesSection({ collectives }: MeshPlan): string {
  if (collectives.length === 0) return `<section><h2>Collectives of a step</h2><p>None.</p></section>`;
  const totals = collectiveTotals(collectives), most = Math.max(1, totals[0].bytes);
  const color = (op: string) => OP_COLORS[op] ?? "#8064a2";
  const lines = totals.map((c) =>
    `<tr><td><span class="key" style="background:${color(c.op)}"></span>${name(c.op)}</td>` +
    `<td>${html(c.axes.join(" "))} (${count(c.size)} ranks)</td><td>${c.dtype}</td><td class="n">${
      count(c.count)
    }</td>` +
    `<td>${bar(c.bytes / most, color(c.op))}</td><td class="n">${bytesText(c.bytes)}</td></tr>`
  );
  const places = collectives.map((c) =>
    `<tr><td>${name(`${c.section} ${c.where}`)}</td><td>${name(c.op)}${tensorsText(c)}</td><td>${
      html(c.axes.join(" "))
    }</td>` +
    `<td>${c.dtype}</td><td class="n">${count(c.count)}</td><td class="n">${bytesText(c.bytes)}</td></tr>`
  );
  const all = totals.reduce((n, c) => n + c.bytes, 0);
  return `<section><h2>Collectives of a step: each rank sends ${bytesText(all)}</h2>
<table><colgroup><col style="width:17%"><col style="width:24%"><col style="width:50px"><col style="width:70px"><col><col style="width:110px"></colgroup>
<tr><th>kind</th><th>over</th><th>type</th><th class="n">number</th><th></th><th class="n">sent</th></tr>
${lines.join("\n")}</table>
<details><summary>By place</summary>
<table><colgroup><col style="width:40%"><col style="width:17%"><col><col style="width:50px"><col style="width:70px"><col style="width:110px"></colgroup>
<tr><th>where</th><th>kind</th><th>over</th><th>type</th><th class="n">number</th><th class="n">sent</th></tr>
${places.join("\n")}</table></details></section>`;
}

function parameterRow(p: ParameterGroup): string {
  const times = p.names.length > 1 ? `<span class="note">${p.names.length} &times;</span> ` : "";
  const all = p.names.length === 1
    ? ""
    : `<details><summary>all ${p.names.length}</summary>${p.names.map((n) => name(n)).join("<br>")}</details>`;
  return `<tr><td>${times}${name(p.name)}${all}</td>` +
    `<td>[${p.shape.join(", ")}]<br><span class="note">rank: [${p.localShape.join(", ")}]${
      p.padded ? ", padded" : ""
    }</span></td>` +
    `<td>${chips(p.stored)}</td><td>${chips(p.used)}</td><td>${chips(p.gradient)}</td>` +
    `<td class="n">${bytesText(p.bytes)}</td></tr>`;
}

/** Stages and their timetable. */
function pipelineSection({ schedule, microbatches, stages, places, timetable }: PipelinePlan): string {
  const rows = places.map(({ slots, slotBytes, arenaBytes, flops }, place) => {
    const own = stages.flatMap((s, i) => s.place === place ? [`stage ${i}: ${name(modulesText(s.modules))}`] : []);
    return `<tr><td>pp ${place}</td><td>${own.join("<br>")}</td><td class="n">${slots} x ${bytesText(slotBytes)}</td>` +
      `<td class="n">${bytesText(arenaBytes)}</td><td class="n">${flopsText(flops)}</td></tr>`;
  });
  return `<section><h2>Pipeline: ${html(schedule)}, ${microbatches} microbatches in ${stages.length} stages</h2>
${timetablePicture(timetable)}
<table><tr><th>Place</th><th>Stages</th><th class="n">Slots</th><th class="n">Arena of a rank</th><th class="n">FLOPs of a rank</th></tr>
${rows.join("\n")}</table></section>
`;
}

/** A plan as it is called. */
const titleOf = (plan: MeshPlan): string => html(`${plan.model.name} on ${meshText(plan)}`);

/** The page. */
export function meshPlanPage(plan: MeshPlan): string {
  return `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>${
    titleOf(plan)
  }</title>
<style>${MESH_PLAN_STYLE}</style></head><body><main>
<h1>${titleOf(plan)}</h1>
${meshPlanSections(plan)}</main></body></html>
`;
}

/** What the page shows, without its heading. */
export function meshPlanSections(plan: MeshPlan): string {
  const { model, step, sections } = plan, sent = plan.collectives.reduce((n, c) => n + c.bytes, 0);
  const tiles = [
    ["parameters", count(model.parameters)],
    ["ranks", count(plan.ranks)],
    ["tokens in a step", count(step.tokens)],
    ["memory of a rank", bytesText(plan.memory.arena)],
    ["a rank computes in a step", flopsText(plan.flops)],
    ["a rank sends in a step", bytesText(sent)],
  ].map(([what, value]) => `<div class="tile"><b>${value}</b><span>${what}</span></div>`);
  const flops = sections.filter((s) => s.runs > 0).map((s) =>
    `<tr><td>${name(s.name)}</td><td class="n">${s.runs}</td><td class="n">${flopsText(s.flops)}</td>` +
    `<td class="n">${flopsText(s.recomputedFlops)}</td></tr>`
  );
  return `<p class="sub">${count(step.globalBatchSize)} sequences of ${
    count(step.seqLen)
  } tokens in ${step.microbatches} microbatch${step.microbatches > 1 ? "es" : ""}; ${
    html(plan.precision)
  }. Planned, not run.</p>
<div class="tiles">${tiles.join("")}</div>
<section><h2>Mesh</h2>${meshPicture(plan)}</section>
${memorySection(plan)}
${plan.time ? timeSection(plan.time) : ""}${collectivesSection(plan)}
${plan.pipeline ? pipelineSection(plan.pipeline) : ""}<section><h2>Parameters by layout</h2>
<table><colgroup><col style="width:25%"><col style="width:15%"><col><col><col><col style="width:90px"></colgroup>
<tr><th>parameter</th><th>shape</th><th>stored</th><th>used</th><th>gradient sum</th><th class="n">of a rank</th></tr>
${parameterGroups(plan.parameters).map(parameterRow).join("\n")}</table></section>
<section><h2>FLOPs of a rank</h2>
<table><colgroup><col><col style="width:160px"><col style="width:160px"><col style="width:220px"></colgroup>
<tr><th>section</th><th class="n">runs in a step</th><th class="n">each run</th><th class="n">of that, made again in backward</th></tr>
${flops.join("\n")}</table></section>
<section><h2>Checkpoints</h2>
<p>Bytes of tensors; ${html(diskSpeedText(plan.checkpoint))}.</p>
<table><colgroup><col style="width:25%"><col></colgroup>
${
    checkpointRows(plan.checkpoint).map(([what, value]) => `<tr><td>${html(what)}</td><td>${html(value)}</td></tr>`)
      .join("\n")
  }</table></section>
`;
}
