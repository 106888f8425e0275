/** Which steps of a run are recorded, in cycles as PyTorch's profiler has them, and what is left of each cycle: a table, the same as JSON, and a
 * trace file.
 * @module */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { traceJson } from "./chrome_trace.ts";
import { type DeviceRates, kernelRows, profileText, type StepProfile } from "./profile.ts";

/** Which steps are recorded: the last `active` of every `freq`, after `warmup` that are recorded and thrown away. */
export interface ProfileCycle {
  readonly freq: number;
  readonly warmup: number;
  readonly active: number;
}

/** What happens to a step, counted from 1. */
export function profileAction(step: number, { freq, warmup, active }: ProfileCycle): "wait" | "warm up" | "record" {
  const left = freq - 1 - (step - 1) % freq; // steps of the cycle behind this one
  return left < active ? "record" : left < active + warmup ? "warm up" : "wait";
}

/** What {@linkcode Profiler} is made with. */
export interface ProfilerOptions extends ProfileCycle {
  /** Receives `iteration_N/rank0_trace.json`, which the first rank writes for all, and its table as `profile.json`; null on the others. */
  readonly folder: string | null;
  /** The recorded steps of every rank, where there are several: all call it at the end of a cycle; those that write nothing get none. */
  readonly gather?: (own: readonly StepProfile[]) => Promise<readonly (readonly StepProfile[])[] | undefined>;
  /** What else the first rank says of the recorded steps of all ranks: lines below the table, and a page beside the trace. */
  readonly pipeline?: (ranks: readonly (readonly StepProfile[])[]) => { readonly text: string; readonly page?: string };
  readonly rates: DeviceRates;
  /** Receives the table of a cycle, and the path of its trace. */
  readonly print: (text: string) => void;
}

/** Gathers recorded steps; at the end of a cycle it prints their table and writes their trace. That a trace cannot be written, as on
 * a full disk, stands below the table, and the run goes on. */
export class Profiler {
  readonly #options: ProfilerOptions;
  #recorded: StepProfile[] = [];

  /** Makes the folder, so that a run that cannot write there ends before it starts. */
  constructor(options: ProfilerOptions) {
    this.#options = options;
    if (options.folder !== null) mkdirSync(options.folder, { recursive: true });
  }

  /** Takes a step that was to be recorded. */
  async add(profile: StepProfile): Promise<void> {
    const { folder, rates, print, freq, active } = this.#options, { step } = profile;
    if (profileAction(step, this.#options) !== "record") return;
    this.#recorded.push(profile);
    if (step % freq !== 0) return;
    // After a resume the cycle's first steps are another run's.
    const recorded = this.#recorded.slice(-active);
    this.#recorded = [];
    const ranks = await (this.#options.gather?.(recorded) ?? Promise.resolve([recorded]));
    if (!ranks || folder === null) return;
    const path = `${folder}/iteration_${step}/rank0_trace.json`;
    const table = { steps: recorded.map(({ step }) => step), rates, kernels: kernelRows(recorded, rates) };
    const problem = written(path, traceJson(ranks)) ??
      written(`${dirname(path)}/profile.json`, `${JSON.stringify(table, null, 2)}\n`);
    const where = problem === undefined
      ? `${path} (open it in https://ui.perfetto.dev)`
      : `none, as ${path} cannot be written: ${problem}`;
    print(`${profileText(recorded, rates)}\n  trace: ${where}`);
    const pipeline = this.#options.pipeline?.(ranks);
    if (!pipeline) return;
    const picture = `${folder}/iteration_${step}/pipeline.html`, { text, page } = pipeline;
    const missing = page === undefined ? undefined : written(picture, page);
    const drawn = missing === undefined ? picture : `none, as ${picture} cannot be written: ${missing}`;
    print(page === undefined ? text : `${text}\n  picture: ${drawn}`);
  }
}

/** Writes a file whole or not at all, in folders that are made for it.
 * @returns why that is impossible. */
function written(path: string, text: string): string | undefined {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  } catch (error) {
    try {
      rmSync(path); // a part of a trace opens nowhere
    } catch { // there is none
    }
    return (error as Error).message;
  }
}
