import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  checkMemory,
  fitText,
  machineMemory,
  MemoryError,
  neededBytes,
  REST_BYTES,
} from "../../train/machine_memory.ts";
import { memoryText } from "../../train/plan_report.ts";
import { compileStep } from "../../train/step_program.ts";
import { tinyLlama } from "../model/tiny.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const step = {
  model: tinyLlama(),
  optimizer,
  dtype: "f32",
  batch: 2,
  seqLen: 16,
  accumulation: 1,
  threads: 1,
} as const;
const compiled = compileStep(step), { host } = compiled;
const needed = compiled.plan.arenaBytes + host.inputBytes + host.outputBytes + host.prefetchBytes + REST_BYTES;

Deno.test("this machine has memory, of which part is available", () => {
  const { totalBytes, availableBytes } = machineMemory();
  assert(availableBytes > 2 ** 26 && availableBytes < totalBytes && totalBytes <= Deno.systemMemoryInfo().total);
});

Deno.test("a run needs its arena, its batches and the rest of the process", () => {
  assertEquals(neededBytes(compiled), needed);
  const memory = { totalBytes: 2 ** 34, availableBytes: needed };
  assertStringIncludes(fitText(compiled, memory), "16.0 GiB are available: it fits");
  const less = { ...memory, availableBytes: needed - 1 };
  assertStringIncludes(fitText(compiled, less), "16.0 GiB are available: it does not fit");
});

Deno.test("what the host holds grows with the microbatches of a step and with the loader's batches, the arena does not", () => {
  const tokens = step.batch * step.seqLen, more = compileStep({ ...step, accumulation: 1001 });
  assertEquals(more.plan.arenaBytes, compiled.plan.arenaBytes);
  assertEquals(more.host.inputBytes - host.inputBytes, 1000 * 3 * 4 * tokens); // tokens, targets, positions
  assertEquals(host.prefetchBytes, 4 * 4 * 4 * tokens); // four batches of four arrays
  const evaluating = compileStep({ ...step, evaluate: { batch: 64, seqLen: 16 } });
  assertEquals(evaluating.host.inputBytes, 3 * 4 * 64 * 16);
});

Deno.test("a step is refused when a byte is missing, with its plan and what to change", () => {
  const memory = { totalBytes: 2 ** 34, availableBytes: needed };
  checkMemory(compiled, memory);
  const error = assertThrows(
    () => checkMemory(compiled, { ...memory, availableBytes: needed - 1 }),
    MemoryError,
    "Cannot start: a run needs",
  );
  assertStringIncludes(error.message, `\n${memoryText(compiled.plan)}\n  expected: at most `);
  assertStringIncludes(error.message, "\n  fix: a smaller batch");
  const { message } = new MemoryError(compiled, memory, ["this", "or that"]);
  assert(message.endsWith("\n  fix: this\n       or that   (out_of_memory)"), message);
});
