/** How long a step takes on a device that is not at hand, by what it computes and touches: each kernel takes as long as its arithmetic,
 * or as its memory if that is longer; an exchange takes as long as its bytes on their link.
 * @module */
import { type KernelName, kernels } from "../../graph/kernels.ts";
import type { InstructionInfo } from "../../graph/passes/encode.ts";
import type { Exchange } from "../../parallel/exchanges.ts";
import { table } from "./plan_report.ts";

/** What a device and its links do in practice. */
export interface DeviceSpeeds {
  /** FLOP a second, of a large product. */
  readonly flops: number;
  /** Bytes a second of its memory; without it, memory takes no time. */
  readonly bandwidth?: number;
  /** Bytes a second that a rank sends over an axis of the mesh; `other` are the axes that are not named. */
  readonly links: Readonly<Record<string, number>>;
  /** How many tokens a run trains on. */
  readonly tokens?: number;
}

/** Kernels of a section that a step runs. */
export interface TimedSection {
  /** How often. */
  readonly runs: number;
  readonly instructions: readonly Pick<InstructionInfo, "kernel" | "flops" | "bytes">[];
}

/** Where the time of a step goes. All but `tokens` and `steps` are seconds. */
export interface StepTime {
  readonly speeds: DeviceSpeeds;
  /** Kernels that arithmetic limits. */
  readonly arithmetic: number;
  /** Those that memory limits. */
  readonly memory: number;
  /** Both by the kernel's name, the longest first. */
  readonly kernels: readonly (readonly [name: string, seconds: number])[];
  /** How long a rank of a pipeline waits for others. */
  readonly waiting: number;
  /** Exchanges by the axes that they go over, the longest first. `null`: no link of these axes is known. */
  readonly exchanges: readonly { readonly axes: readonly string[]; readonly seconds: number | null }[];
  /** A step in which exchanges hide behind kernels as far as they can. */
  readonly least: number;
  /** One in which none does. */
  readonly most: number;
  /** Tokens and steps of the whole run. */
  readonly run: { readonly tokens: number; readonly steps: number } | null;
}

/** What a time is made of. */
export interface StepTimeOptions {
  readonly speeds: DeviceSpeeds;
  readonly sections: readonly TimedSection[];
  /** Those of a whole step. */
  readonly collectives: readonly Pick<Exchange, "axes" | "bytes">[];
  /** Tokens of a step. */
  readonly tokens: number;
  /** How much longer a pipeline takes than a rank of it computes. Default 1. */
  readonly stretch?: number;
}

/** The time of a step. */
export function stepTime({ speeds, sections, collectives, tokens, stretch = 1 }: StepTimeOptions): StepTime {
  let [arithmetic, memory] = [0, 0];
  const byName = new Map<string, number>();
  for (const { runs, instructions } of sections) {
    for (const { kernel, flops, bytes } of instructions) {
      if (kernels[kernel as KernelName].collective) continue;
      const computes = flops / speeds.flops, moves = speeds.bandwidth ? bytes / speeds.bandwidth : 0;
      if (computes >= moves) arithmetic += runs * computes;
      else memory += runs * moves;
      byName.set(kernel, (byName.get(kernel) ?? 0) + runs * Math.max(computes, moves));
    }
  }
  const byAxes = new Map<string, { axes: readonly string[]; seconds: number | null }>();
  for (const { axes, bytes } of collectives) {
    const speed = linkOf(speeds, axes), known = byAxes.get(String(axes))?.seconds ?? 0;
    byAxes.set(String(axes), { axes, seconds: speed === undefined ? null : known + bytes / speed });
  }
  const exchanges = [...byAxes.values()].toSorted((a, b) => (b.seconds ?? 0) - (a.seconds ?? 0));
  const kernelTime = arithmetic + memory, waiting = kernelTime * (stretch - 1);
  const sending = exchanges.reduce((sum, { seconds }) => sum + (seconds ?? 0), 0);
  return {
    speeds,
    arithmetic,
    memory,
    kernels: [...byName].toSorted(([, a], [, b]) => b - a),
    waiting,
    exchanges,
    least: Math.max(kernelTime + waiting, sending),
    most: kernelTime + waiting + sending,
    run: speeds.tokens === undefined ? null : { tokens: speeds.tokens, steps: Math.ceil(speeds.tokens / tokens) },
  };
}

/** The slowest link of some axes; undefined where none is known. */
function linkOf({ links }: DeviceSpeeds, axes: readonly string[]): number | undefined {
  const speeds = axes.map((axis) => links[axis.replace(/ .*$/, "")] ?? links.other);
  return speeds.includes(undefined as never) ? undefined : Math.min(...speeds);
}

const significant = (n: number) => Number(n.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 9 });

/** A time in the unit that suits it. */
export function durationText(seconds: number): string {
  const units = [[86400, "days"], [3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "us"]] as const;
  if (seconds < 1e-6) return "less than 1 us";
  // Two of a unit read better than a hundred of the one below.
  const [size, unit] = units.find(([size]) => seconds >= 2 * size) ?? units.at(-1)!;
  return `${significant(seconds / size)} ${unit}`;
}

/** Two times as one where they read alike. */
export function rangeText(least: number, most: number): string {
  const [from, to] = [durationText(least), durationText(most)];
  return from === to ? from : `${from} to ${to}`;
}

/** A rate in the unit that suits it: `3 TB/s`. */
export function rateText(perSecond: number, unit: string): string {
  const power = Math.max(0, Math.min(5, Math.floor(Math.log10(perSecond) / 3)));
  return `${significant(perSecond / 1000 ** power)} ${["", "k", "M", "G", "T", "P"][power]}${unit}/s`;
}

/** At which speeds, in a line. */
export function speedsText({ flops, bandwidth, links }: DeviceSpeeds): string {
  const named = Object.entries(links).map(([axis, speed]) =>
    `${axis === "other" ? "links" : `links of ${axis}`} of ${rateText(speed, "B")}`
  );
  const memory = bandwidth ? `${rateText(bandwidth, "B")} of memory` : "memory that takes no time (--device-bandwidth)";
  return [rateText(flops, "FLOP"), memory, ...named].join(", ");
}

/** Where the time goes, in the order in which it is shown. */
export function stepTimeRows(time: StepTime): readonly (readonly [string, string])[] {
  const { arithmetic, memory, waiting, exchanges, least, most, run } = time;
  return [
    ["kernels, limited by arithmetic", durationText(arithmetic)],
    ...(memory > 0 ? [["kernels, limited by memory", durationText(memory)] as const] : []),
    ...(waiting > 0 ? [["waiting for other stages", durationText(waiting)] as const] : []),
    ...exchanges.map(({ axes, seconds }) =>
      [`exchanges over ${axes.join(" ")}`, seconds === null ? "not known: --link" : durationText(seconds)] as const
    ),
    [exchanges.length > 0 ? "a step, exchanges behind kernels or not" : "a step", rangeText(least, most)],
    ...(run
      ? [
        [
          `${run.tokens.toLocaleString("en-US")} tokens in ${run.steps.toLocaleString("en-US")} steps`,
          rangeText(least * run.steps, most * run.steps),
        ] as const,
      ]
      : []),
  ];
}

/** The time of a step as text. */
export function stepTimeText(time: StepTime): string {
  const kernels = table(time.kernels.map(([name, seconds]) => [name, durationText(seconds)]));
  return `Time (estimated at ${speedsText(time.speeds)})\n${table(stepTimeRows(time))}\nTime of kernels\n${kernels}`;
}
