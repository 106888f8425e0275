/** What a run says before it starts: its header, and with `--dry-run` its whole plan.
 * @module */
import type { DeviceInfo } from "../ffi/device.ts";
import { opOf } from "../graph/builder.ts";
import { type Graph, numel } from "../graph/ir.ts";
import { flopsOf } from "../graph/op.ts";
import type { Block, MemoryPlan } from "../graph/passes/memory.ts";
import { CHUNK_ROWS } from "../graph/passes/tile.ts";
import type { TrainableModel } from "../model/loss.ts";
import { numParameters } from "../model/module.ts";
import type { Compiled } from "./compile.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** Bytes in the unit that suits them. */
export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, bytes > 0 ? Math.floor(Math.log2(bytes) / 10) : 0);
  return `${(bytes / 1024 ** unit).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/** Device and native library in a line; a slower path that is taken says so. */
export function deviceText(device: DeviceInfo, gflops: number): string {
  const blas = device.blasIsBuiltin
    ? "the built-in matrix product (no BLAS was found when libtitan was built: slower)"
    : device.blas;
  const level = `level ${device.level}${device.levelIsForced ? ", forced by TITAN_CPU" : ""}`;
  return `${device.processor}, ${device.threads} threads, ${level} (${device.vectorBits}-bit vectors), ${blas}, ` +
    `${gflops.toFixed(0)} GFLOP/s in a product of 1024^3 (f32)`;
}

/** Model and step in a line. */
export function modelText(model: TrainableModel, tokensPerStep: number, seqLen: number): string {
  const flops = model.flopsPerToken?.(seqLen);
  const perToken = flops === undefined ? "" : `, ${(flops / 1e6).toFixed(1)} MFLOP per token`;
  return `${count(numParameters(model))} parameters, ${count(tokensPerStep)} tokens per step${perToken}`;
}

/** FLOPs of a graph as it will run, recomputation included. */
export function graphFlops(graph: Graph): number {
  return graph.nodes.reduce((sum, node) => sum + flopsOf(opOf(node.op), node), 0);
}

/** Most bytes alive at once in the region that sections share, split into what forward keeps for backward and the rest. */
function peakOf(blocks: readonly Block[]): { kept: number; other: number } {
  let peak = { kept: 0, other: 0 };
  for (const { first } of blocks) {
    const alive = blocks.filter((b) => b.first <= first && first <= b.last);
    const sum = (kept: boolean) => alive.filter((b) => b.kept === kept).reduce((n, b) => n + b.bytes, 0);
    const now = { kept: sum(true), other: sum(false) };
    if (now.kept + now.other > peak.kept + peak.other) peak = now;
  }
  return peak;
}

function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  const right = Math.max(...rows.map(([, value]) => value.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value.padStart(right)}`).join("\n");
}

/** Planned memory by category. */
export function memoryText(plan: MemoryPlan): string {
  const { parameter, gradient, moment, sum, transient } = plan.categories;
  const microbatch = plan.sections.find((s) => s.graph.name === "microbatch") ?? plan.sections[0];
  const peak = peakOf(microbatch.blocks);
  const largest = microbatch.blocks.toSorted((a, b) => b.bytes - a.bytes).slice(0, 10);
  return `Memory (bytes are planned; nothing else is allocated while training)
${
    table([
      ["parameters", bytesText(parameter)],
      ["gradient sums", bytesText(gradient)],
      ["moments", bytesText(moment)],
      ["sums of loss and tokens", bytesText(sum)],
      ["kept for backward, at the peak", bytesText(peak.kept)],
      ["transient, at the peak", bytesText(peak.other)],
      ["gaps", bytesText(transient - peak.kept - peak.other)],
      ["arena", `${bytesText(plan.arenaBytes)} = ${count(plan.arenaBytes)} B`],
    ])
  }
Largest values of a microbatch
${table(largest.map((b) => [b.label, bytesText(b.bytes)] as const))}`;
}

/** Slower paths that a step takes, a line each; none where everything runs as it is meant to. */
export function slowPaths({ graphs }: Compiled): string[] {
  return graphs.flatMap(({ name, nodes }) => {
    const copies = nodes.filter((n) => n.op === "copy"),
      whole = nodes.filter((n) => n.op === "cross_entropy")
        .filter((n) => numel(n.inputs[1].shape) > CHUNK_ROWS);
    return [
      ...copies.slice(0, 1).map((n) =>
        `${name} copies ${count(copies.length)} values, since a kernel cannot follow their strides; first in ${n.scope}`
      ),
      ...whole.map((n) => `${name} holds all logits of ${n.scope} at once, since what uses them is not row by row`),
    ];
  });
}

/** The plan of a step. */
export function planText(model: TrainableModel, compiled: Compiled, tokensPerStep: number, seqLen: number): string {
  const { plan, program } = compiled;
  const sections = program.sections.map((s, i) => {
    const gflop = graphFlops(plan.sections[i].graph) / 1e9;
    return [
      s.name,
      `${count(s.instructions.length)} instructions, ${gflop.toFixed(gflop < 10 ? 3 : 1)} GFLOP`,
    ] as const;
  });
  return `Model
  ${modelText(model, tokensPerStep, seqLen)}
Sections (FLOPs as they run)
${table(sections)}
${memoryText(plan)}
Program
  ${[`${count(program.bytes.length)} B for ${plan.threads} threads`, ...slowPaths(compiled)].join("\n  ")}`;
}
