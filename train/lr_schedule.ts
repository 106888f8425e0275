/**
 * Learning rate over the run: linear warm-up, a stable phase, then decay to a floor, as torchtitan does it.
 * A pure function of the step; the factor multiplies `optimizer.lr`. Steps count from 0 here, from 1 in logs.
 * @module
 */

/** Shape of the decay from 1 to the floor. */
export type DecayType = "linear" | "sqrt" | "cosine";

/** Lengths are in optimizer steps. */
export interface LrScheduleOptions {
  /** Length of the warm-up; cut to `totalSteps`. */
  readonly warmupSteps: number;
  /** Length of the whole schedule. */
  readonly totalSteps: number;
  /** Share of `totalSteps` that decays, cut to what the warm-up leaves; null: all of that. */
  readonly decayRatio: number | null;
  /** Along which curve it decays. */
  readonly decayType: DecayType;
  /** Where the decay ends, as a fraction of the peak. */
  readonly minLrFactor: number;
}

/** How many steps each phase lasts: they add up to `totalSteps + 1`, so that the last step still learns. */
export interface LrPhases {
  readonly warmup: number;
  readonly stable: number;
  readonly decay: number;
}

/** Splits the schedule into its phases. */
export function lrPhases({ warmupSteps, totalSteps, decayRatio }: LrScheduleOptions): LrPhases {
  const warmup = Math.min(warmupSteps, totalSteps);
  const decay = Math.min(askedDecaySteps(totalSteps, decayRatio), totalSteps - warmup);
  return { warmup, stable: totalSteps + 1 - warmup - decay, decay };
}

/** The decay that `decayRatio` asks for, in steps, before it is cut: a half rounds to the even neighbour. */
export function askedDecaySteps(totalSteps: number, decayRatio: number | null): number {
  if (decayRatio === null) return totalSteps;
  const exact = totalSteps * decayRatio;
  const isHalf = exact % 1 === 0.5;
  return isHalf ? 2 * Math.round(exact / 2) : Math.round(exact);
}

/**
 * Factor on the peak learning rate at a step, counted from 0. Beyond `totalSteps` it stays at the floor.
 *
 * @example A run of 10 steps, 2 of them warm-up
 * ```ts
 * import { assertEquals } from "@std/assert";
 * const options = { warmupSteps: 2, totalSteps: 10, decayRatio: null, decayType: "linear", minLrFactor: 0 } as const;
 * assertEquals([0, 1, 2, 3, 9].map((step) => lrFactor(step, options)), [0.5, 1, 1, 0.875, 0.125]);
 * ```
 */
export function lrFactor(step: number, options: LrScheduleOptions): number {
  const { warmup, stable, decay } = lrPhases(options);
  if (step < warmup) return (step + 1) / warmup;
  if (step < warmup + stable) return 1;
  const progress = Math.min(1, (step + 1 - warmup - stable) / decay);
  return options.minLrFactor + (1 - options.minLrFactor) * remaining(progress, options.decayType);
}

/** What is left of the way from the floor to the peak, after a share of the decay. */
function remaining(progress: number, decayType: DecayType): number {
  switch (decayType) {
    case "linear":
      return 1 - progress;
    case "sqrt":
      return 1 - Math.sqrt(progress);
    case "cosine":
      return (1 + Math.cos(Math.PI * progress)) / 2;
  }
}
