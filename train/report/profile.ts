/** Where the time of a recorded step went: the native side tells when each instruction ran, the compiler what it is and how much it
 * computes and touches. Together they make a table by kernel and kind of module.
 * @module */
import type { InstructionInfo } from "../../graph/passes/encode.ts";
import { scopeText, withoutNumbers } from "../../graph/print.ts";

/** An instruction that ran. */
export interface InstructionTime extends InstructionInfo {
  /** Its section: `microbatch` or `update`. */
  readonly section: string;
  /** Which action of the step ran it: a section runs once for each microbatch. */
  readonly action: number;
  /** Which microbatch of the step that is for; none for the update. */
  readonly microbatch?: number;
  /** 0: kernels. 1: collectives, beside them. */
  readonly stream: number;
  /** Nanoseconds of the machine's steady clock. */
  readonly beginNs: number;
  /** Nanoseconds of the machine's steady clock. */
  readonly endNs: number;
}

/** A recorded step. Milliseconds are those of `performance.now()`. */
export interface StepProfile {
  /** From 1. */
  readonly step: number;
  /** When the host began to wait for data. */
  readonly startMs: number;
  /** When it had them, and made the native call. */
  readonly calledMs: number;
  /** When that returned. */
  readonly endMs: number;
  /** Those of each stream in the order in which they ran. */
  readonly instructions: readonly InstructionTime[];
}

/** Part of a step that an instruction belongs to; what is made again is part of backward. */
export function phaseOf({ section, phase }: InstructionTime): "forward" | "backward" | "update" {
  return section === "update" ? "update" : phase === "forward" ? "forward" : "backward";
}

/** What the device can do, in billions a second. */
export interface DeviceRates {
  /** FLOP of a large matrix product. */
  readonly gflops: number;
  /** Bytes of memory. */
  readonly gbytes: number;
}

/** The calls of a kernel for modules of one kind, in the mean of the recorded steps. */
export interface KernelRow {
  readonly kernel: string;
  /** Module path with `*` for its numbers, or the section of what belongs to no module. */
  readonly module: string;
  readonly calls: number;
  readonly ms: number;
  /** Of the time of the native call. */
  readonly share: number;
  readonly gflops: number;
  readonly gbytes: number;
  /** The larger of the two rates as a share of what the device can do: above 1 where operands come from cache. */
  readonly ofDevice: number;
  /** Which of the two that is. */
  readonly bound: "product" | "memory";
}

const callMs = (profiles: readonly StepProfile[]): number => sum(profiles.map((p) => p.endMs - p.calledMs));
const instructionMs = ({ beginNs, endNs }: InstructionTime): number => (endNs - beginNs) / 1e6;
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);

/** Recorded steps by kernel and kind of module, the longest first. */
export function kernelRows(profiles: readonly StepProfile[], rates: DeviceRates): KernelRow[] {
  const groups = Map.groupBy(
    profiles.flatMap((p) => p.instructions),
    (i) => `${i.kernel} ${i.scope === "" ? i.section : withoutNumbers(scopeText(i))}`,
  );
  const total = callMs(profiles);
  return [...groups].map(([name, instructions]): KernelRow => {
    const [kernel, ...module] = name.split(" "), ms = sum(instructions.map(instructionMs));
    const gflops = sum(instructions.map((i) => i.flops)) / ms / 1e6;
    const gbytes = sum(instructions.map((i) => i.bytes)) / ms / 1e6;
    const [product, memory] = [gflops / rates.gflops, gbytes / rates.gbytes];
    return {
      kernel,
      module: module.join(" "),
      calls: instructions.length / profiles.length,
      ms: ms / profiles.length,
      share: ms / total,
      gflops,
      gbytes,
      ofDevice: Math.max(product, memory),
      bound: product > memory ? "product" : "memory",
    };
  }).toSorted((a, b) => b.ms - a.ms);
}

/** When an instruction ran, and on which stream. */
export type Interval = Pick<InstructionTime, "stream" | "beginNs" | "endNs">;

/** Milliseconds of collectives, and of those the ones in which no kernel ran, in the mean of the recorded steps. The instructions of a
 * stream are in the order in which they ran. */
export function commMs(
  profiles: readonly { readonly instructions: readonly Interval[] }[],
): { readonly all: number; readonly exposed: number } {
  let [all, exposed] = [0, 0];
  for (const { instructions } of profiles) {
    const [kernels, collectives] = [0, 1].map((stream) => instructions.filter((i) => i.stream === stream));
    let k = 0;
    for (const collective of collectives) {
      let free = collective.endNs - collective.beginNs;
      all += free;
      // Both lists are in order: kernels that ended before this collective began have to do with no later one.
      while (k < kernels.length && kernels[k].endNs <= collective.beginNs) k++;
      for (let j = k; j < kernels.length && kernels[j].beginNs < collective.endNs; j++) {
        free -= Math.min(kernels[j].endNs, collective.endNs) - Math.max(kernels[j].beginNs, collective.beginNs);
      }
      exposed += free;
    }
  }
  return { all: all / 1e6 / profiles.length, exposed: exposed / 1e6 / profiles.length };
}

/** The table of recorded steps, for people.
 * @param most kernels that get a line of their own */
export function profileText(profiles: readonly StepProfile[], rates: DeviceRates, most = 16): string {
  const rows = kernelRows(profiles, rates), { length } = profiles, total = callMs(profiles) / length;
  const ms = (n: number): string => n.toFixed(n < 10 ? 2 : 1),
    percent = (n: number): string => `${(100 * n).toFixed(1)}%`;
  const kernels = profiles.flatMap((p) => p.instructions).filter((i) => i.stream === 0), comm = commMs(profiles);
  const phases = Map.groupBy(kernels, phaseOf);
  const parts = [...phases].map(([phase, list]) => [phase, sum(list.map(instructionMs)) / length] as const);
  const between = total - sum(parts.map(([, time]) => time));
  const waited = sum(profiles.map((p) => p.calledMs - p.startMs)) / length;
  const steps = length === 1 ? `step ${profiles[0].step}` : `steps ${profiles[0].step} to ${profiles[length - 1].step}`;
  const rest = rows.slice(most),
    last: string[][] = rest.length === 0 ? [] : [[
      `${rest.length} more`,
      "",
      String(sum(rest.map((r) => r.calls))),
      ms(sum(rest.map((r) => r.ms))),
      percent(sum(rest.map((r) => r.share))),
    ]];
  const cells = [
    ["kernel", "module", "calls", "ms", "of step", "GFLOP/s", "GB/s", "of device"],
    ...rows.slice(0, most).map((r) => [
      r.kernel,
      r.module,
      String(r.calls),
      ms(r.ms),
      percent(r.share),
      r.gflops.toFixed(1),
      r.gbytes.toFixed(1),
      `${(100 * r.ofDevice).toFixed(0)}% ${r.bound}`,
    ]),
    ...last,
  ];
  const width = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const lines = cells.map((row) =>
    row.map((cell, i) => i < 2 ? cell.padEnd(width[i]) : cell.padStart(width[i])).join("  ").trimEnd()
  );
  return `Profile of ${steps}: ${ms(total)} ms a step (${
    [...parts, ["between instructions", between] as const].map(([name, time]) => `${name} ${ms(time)}`).join(", ")
  }), ${ms(waited)} ms wait for data${
    comm.all === 0
      ? ""
      : `\n  collectives took ${ms(comm.all)} ms beside the kernels; for ${
        ms(comm.exposed)
      } ms of that no kernel ran (${percent(1 - comm.exposed / comm.all)} hidden)`
  }
${lines.map((line) => `  ${line}`).join("\n")}
  of device: the larger of GFLOP/s by ${rates.gflops.toFixed(0)} and GB/s by ${rates.gbytes.toFixed(1)}, as measured`;
}
