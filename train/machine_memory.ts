/** Memory that a run may take on this machine, and the error of a run that needs more. Sizes are bytes.
 * @module */
import process from "node:process";
import type { Planned } from "./compile.ts";
import { bytesText, memoryText } from "./plan_report.ts";
import type { HostMemory } from "./step_program.ts";

/** A planned step with what the host holds of it. */
export type PlannedStep = Pick<Planned, "plan"> & HostMemory;

/** Memory of this machine, or of the group of processes (cgroup) whose limit is lower. */
export interface MachineMemory {
  /** All of it. */
  readonly totalBytes: number;
  /** Free now, or held by caches that give way: this process's share of it. */
  readonly availableBytes: number;
}

/** Memory as it is now. Needs `--allow-sys=systemMemoryInfo`.
 * @param processes of the run on this machine, which share what is free. */
export function machineMemory(processes = 1): MachineMemory {
  const { total, available } = Deno.systemMemoryInfo();
  const limit = process.constrainedMemory();
  return {
    totalBytes: Math.min(total, limit),
    availableBytes: Math.min(available / processes, Math.max(0, limit - Deno.memoryUsage().rss)),
  };
}

/** What a process needs beside its arena: Deno, the compiler, the tokenizer and its worker, buffers of the matrix product. */
export const REST_BYTES = 256 * 2 ** 20;

/** Memory of a whole run. */
export function neededBytes({ plan, host }: PlannedStep): number {
  return plan.arenaBytes + batchesBytes(host) + REST_BYTES;
}

/** All that the host holds of batches. */
function batchesBytes({ inputBytes, outputBytes, prefetchBytes }: HostMemory["host"]): number {
  return inputBytes + outputBytes + prefetchBytes;
}

/** Whether a run fits, in a line. */
export function fitText(step: PlannedStep, { totalBytes, availableBytes }: MachineMemory): string {
  const needed = neededBytes(step);
  const rest =
    `its arena, ${bytesText(batchesBytes(step.host))} for batches and ${bytesText(REST_BYTES)} for the rest ` +
    "of the process";
  const here = `${bytesText(availableBytes)} of this machine's ${bytesText(totalBytes)} are available`;
  return `a run needs ${bytesText(needed)}, ${rest}; ${here}: it ${needed <= availableBytes ? "fits" : "does not fit"}`;
}

/** A run that does not fit into memory; nothing was allocated for it. The message holds the plan. */
export class MemoryError extends Error {
  /** Tells it from other errors. */
  override readonly name = "MemoryError";

  /** The step as it would run.
   * @internal */
  readonly compiled: PlannedStep;
  /** What there was. */
  readonly memory: MachineMemory;

  /** @ignore */
  constructor(compiled: PlannedStep, memory: MachineMemory, fixes: readonly string[] = []) {
    const fix = fixes.length > 0 ? fixes.join("\n       ") : "a smaller batch, shorter sequences or a smaller model";
    super(
      `Cannot start: ${fitText(compiled, memory)}
${memoryText(compiled.plan)}
  expected: at most ${bytesText(memory.availableBytes)}
  fix: ${fix}   (out_of_memory)`,
    );
    this.compiled = compiled;
    this.memory = memory;
  }
}

/** Refuses a step that does not fit.
 * @throws {MemoryError} */
export function checkMemory(compiled: PlannedStep, memory: MachineMemory): void {
  if (neededBytes(compiled) > memory.availableBytes) throw new MemoryError(compiled, memory);
}
