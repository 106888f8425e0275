/** The plan of a step as text: sections with their FLOPs, memory by what it is for, the largest values. What `--dry-run` prints,
 * and what a run that does not fit is refused with.
 * @module */
import type { ProgramMemory } from "../../ffi/program.ts";
import { opOf } from "../../graph/builder.ts";
import type { Graph } from "../../graph/ir.ts";
import { flopsOf } from "../../graph/op.ts";
import type { Allocation, MemoryPlan, SectionMemory } from "../../graph/passes/memory.ts";
import type { TrainableModel } from "../../model/loss.ts";
import type { Compiled } from "../compile.ts";
import { modelText, slowPaths } from "./header.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** Bytes in the unit that suits them. */
export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = Math.min(units.length - 1, bytes > 0 ? Math.floor(Math.log2(bytes) / 10) : 0);
  return `${(bytes / 1024 ** unit).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

/** A device that a plan was compared with. */
export interface DeviceFit {
  /** Memory of the device. */
  readonly bytes: number;
  /** That is left of it for the arena of a rank. */
  readonly room: number;
  /** That is taken of it beside the arena, by what it is for. */
  readonly taken: Readonly<Record<string, number>>;
  /** Does the arena of a rank fit into it? */
  readonly fits: boolean;
}

/** Compares the arena of a rank with the memory of a device, if one is given. */
export function deviceFit(arenaBytes: number, bytes?: number, taken: DeviceFit["taken"] = {}): DeviceFit | null {
  if (bytes === undefined) return null;
  const room = Object.values(taken).reduce((left, part) => left - part, bytes);
  return { bytes, room, taken, fits: arenaBytes <= room };
}

/** The comparison in a line. */
export function deviceFitText(arenaBytes: number, device: DeviceFit | null): string {
  if (!device) return "not compared with a memory: --device-memory 80GB says whether a rank fits";
  const { bytes, room, taken, fits } = device, rest = bytesText(Math.abs(room - arenaBytes));
  const beside = Object.entries(taken).map(([name, part]) => `${bytesText(part)} for ${name}`).join(", ");
  return `${fits ? "fits" : "does not fit"}: a rank needs ${bytesText(arenaBytes)} of a device's ${
    bytesText(bytes)
  }, ` +
    (fits ? `which leaves ${rest}` : `${rest} too much`) + (beside && ` beside ${beside}`);
}

const HUGE_PAGE = 2 << 20;

/** That much of a program's arena lies in small pages, in a line; none where the system has given huge ones, as far as they fit. */
export function smallPages({ arenaBytes, hugeBytes }: Pick<ProgramMemory, "arenaBytes" | "hugeBytes">): string[] {
  const small = arenaBytes - hugeBytes, few = Math.max(2 * HUGE_PAGE, arenaBytes / 10);
  if (small <= few) return [];
  return [
    `${bytesText(small)} of the arena's ${
      bytesText(arenaBytes)
    } are in small pages, since the system gave no huge ones ` +
    "(see /sys/kernel/mm/transparent_hugepage/enabled; the ranks of a busy host get few)",
  ];
}

/** FLOPs of a graph as it will run, recomputation included. */
export function graphFlops(graph: Graph): number {
  return graph.nodes.reduce((sum, node) => sum + flopsOf(opOf(node.op), node), 0);
}

/** Most bytes that a section has alive at once in the region that sections share, by what they are for. */
function peakOf(allocations: readonly Allocation[]): Record<Allocation["use"] | "all", number> {
  let peak = { kept: 0, gathered: 0, transient: 0, scratch: 0, all: 0 }, there: Allocation[] = [];
  const meet = (a: Allocation, b: Allocation) => a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
  for (const own of allocations.toSorted((a, b) => a.first - b.first)) {
    there = [...there.filter((b) => b.held >= own.first), own];
    const alive = there.filter((b) => b.last >= own.first);
    // What is still on its way counts, unless the next to travel lies there already.
    const held = there.filter((b) => b.last < own.first && !alive.some((a) => meet(a, b)));
    const now = { kept: 0, gathered: 0, transient: 0, scratch: 0, all: 0 };
    for (const { use, bytes } of [...alive, ...held]) {
      now[use] += bytes;
      now.all += bytes;
    }
    if (now.all > peak.all) peak = now;
  }
  return peak;
}

/** Rows of a name and a value, both aligned. */
export function table(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  const right = Math.max(...rows.map(([, value]) => value.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value.padStart(right)}`).join("\n");
}

/** Planned bytes by what they are for, at the moment when most is alive; they add up to the arena. */
export interface MemoryUse {
  readonly parameters: number;
  readonly gradientSums: number;
  readonly moments: number;
  /** Sums of loss and tokens. */
  readonly sums: number;
  /** What modules remember beside parameters. */
  readonly buffers: number;
  /** What a run can make again. */
  readonly caches: number;
  /** What stages keep of all microbatches under way. */
  readonly activations: number;
  readonly kept: number;
  /** Parameters that other ranks store, while they are here. */
  readonly gathered: number;
  readonly transient: number;
  readonly scratch: number;
  readonly gaps: number;
  readonly arena: number;
}

/** What memory is for, and the section that needs most of the region that sections share. */
export function memoryUse(plan: MemoryPlan): { readonly use: MemoryUse; readonly largest: SectionMemory } {
  const { parameter, gradient, moment, sum, buffer, cache, activation, gathered: once, transient: shared } =
    plan.categories;
  const end = (s: SectionMemory) => s.allocations.reduce((n, b) => Math.max(n, b.offset + b.bytes), 0);
  // The shared region is as large as the section that needs most of it: mostly that of forward and backward.
  const largest = plan.sections.reduce((a, b) => end(b) > end(a) ? b : a);
  const { kept, gathered: now, transient, scratch, all } = peakOf(largest.allocations), gaps = shared - all;
  const others = { sums: sum, buffers: buffer, caches: cache, activations: activation };
  const states = { parameters: parameter, gradientSums: gradient, moments: moment, ...others };
  return { use: { ...states, kept, gathered: once + now, transient, scratch, gaps, arena: plan.arenaBytes }, largest };
}

/** `activations of stages, 4 slots of 1.2 MiB`. */
export function slotsText({ slots: { count, bytes } }: Pick<MemoryPlan, "slots">): string {
  return `activations of stages, ${count} slot${count === 1 ? "" : "s"} of ${bytesText(bytes)}`;
}

/** Planned memory by what it is for, at the moment when most is alive, and the largest values by module path. */
export function memoryText(plan: MemoryPlan): string {
  const { use, largest } = memoryUse(plan);
  const values = largest.allocations.toSorted((a, b) => b.bytes - a.bytes).slice(0, 10);
  return `Memory (bytes are planned; nothing else is allocated while training)
${
    table([
      ["parameters", bytesText(use.parameters)],
      ["gradient sums", bytesText(use.gradientSums)],
      ["moments", bytesText(use.moments)],
      ["sums of loss and tokens", bytesText(use.sums)],
      ...(use.buffers > 0 ? [["buffers", bytesText(use.buffers)] as const] : []),
      ...(use.caches > 0 ? [["caches", bytesText(use.caches)] as const] : []),
      ...(use.activations > 0 ? [[slotsText(plan), bytesText(use.activations)] as const] : []),
      ["kept for backward, at the peak", bytesText(use.kept)],
      ...(use.gathered > 0 ? [["gathered parameters, at the peak", bytesText(use.gathered)] as const] : []),
      ["transient, at the peak", bytesText(use.transient)],
      ["scratch of kernels, at the peak", bytesText(use.scratch)],
      ["gaps", bytesText(use.gaps)],
      ["arena", `${bytesText(use.arena)} = ${count(use.arena)} B`],
    ])
  }
Largest values of ${largest.graph.name}
${table(values.map((b) => [b.use === "kept" ? `${b.label}, kept` : b.label, bytesText(b.bytes)] as const))}`;
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
