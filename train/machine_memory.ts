/** Memory that a run needs, compared with what the native library says there is; and the error of a run that needs more. Sizes are bytes.
 * @module */
import type { ProcessMemory } from "../ffi/device.ts";
import type { Planned } from "./compile.ts";
import { bytesText, memoryText } from "./report/plan_report.ts";
import type { HostMemory } from "./step_plan.ts";

/** A planned step with what the host holds of it. */
export type PlannedStep = Pick<Planned, "plan"> & HostMemory;

/** What a process needs beside its arena: Deno, the compiler, the tokenizer and its worker; and for each thread what the matrix
 * product packs. */
const REST_BYTES = 256 * 2 ** 20, THREAD_BYTES = 4 * 2 ** 20;

/** Memory that a whole run needs.
 * @param memory as it is, so far as is known. */
export function neededBytes({ plan, host }: PlannedStep, memory?: ProcessMemory): {
  readonly all: number;
  /** What the host holds of batches. */
  readonly batches: number;
  /** What is copied of states for checkpoints. */
  readonly staging: number;
  /** Beside all this: what a process usually takes, or what this one has taken already. */
  readonly rest: number;
} {
  const rest = Math.max(REST_BYTES + plan.threads * THREAD_BYTES, memory?.ownBytes ?? 0);
  const batches = host.inputBytes + host.outputBytes + host.prefetchBytes, staging = host.stagingBytes;
  return { all: plan.arenaBytes + (memory?.isGpu ? 0 : batches + staging + rest), batches, staging, rest };
}

/** Whether a run fits, in a line.
 * @param memory that there is, as far as is known. */
export function fitText(step: PlannedStep, memory?: ProcessMemory): string {
  const { all, batches, staging, rest } = neededBytes(step, memory);
  const needs = memory?.isGpu
    ? `a run's arena needs ${bytesText(all)}`
    : `a run needs ${bytesText(all)}, its arena, ${bytesText(batches)} for batches${
      staging > 0 ? `, ${bytesText(staging)} for checkpoints` : ""
    } and ${bytesText(rest)} for the rest of the process`;
  if (!memory) return needs;
  const { totalBytes, availableBytes, file } = memory, total = bytesText(totalBytes);
  const here = `${bytesText(availableBytes)} of ${
    file ? `the ${total} that ${file} allows` : `this ${memory.isGpu ? "GPU" : "machine"}'s ${total}`
  }`;
  return `${needs}; ${here} are available: it ${all <= availableBytes ? "fits" : "does not fit"}`;
}

/** A run that does not fit into memory; nothing was allocated for it. The message holds the plan. */
export class MemoryError extends Error {
  /** Tells it from other errors. */
  override readonly name = "MemoryError";

  /** The step as it would run.
   * @internal */
  readonly compiled: PlannedStep;
  /** What there was. */
  readonly memory: ProcessMemory;

  /** @ignore */
  constructor(compiled: PlannedStep, memory: ProcessMemory, fixes: readonly string[] = []) {
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

/** Less than so many bytes are no buffer to speak of. */
const WAVE_BYTES = 256 * 2 ** 20;

/** A step that copies as much of its state ahead of the disk as memory allows, or at least 256 MiB; beside a GPU, all. */
export function withStagingThatFits<S extends PlannedStep>(step: S, memory: ProcessMemory): S {
  if (memory.isGpu) return step;
  const { stagingBytes } = step.host, room = memory.availableBytes - neededBytes(step, memory).all + stagingBytes;
  const fitting = Math.min(stagingBytes, Math.max(WAVE_BYTES, room));
  return fitting === stagingBytes ? step : { ...step, host: { ...step.host, stagingBytes: fitting } };
}

/** Refuses a step that does not fit.
 * @throws {MemoryError} */
export function checkMemory(compiled: PlannedStep, memory: ProcessMemory): void {
  if (neededBytes(compiled, memory).all > memory.availableBytes) throw new MemoryError(compiled, memory);
}
