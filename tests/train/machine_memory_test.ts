import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { checkMemory, fitText, MemoryError, neededBytes, withStagingThatFits } from "../../train/machine_memory.ts";
import { bytesText, memoryText } from "../../train/report/plan_report.ts";
import { compileStep } from "../../train/step_plan.ts";
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
const compiled = compileStep(step), { host } = compiled, { all: needed, rest, batches } = neededBytes(compiled);
const machine = { totalBytes: 2 ** 34, ownBytes: 2 ** 27, file: "" };

Deno.test("a run needs its arena, and what the rest of the process takes, which each thread adds to", () => {
  const MIB = 2 ** 20, four = compileStep({ ...step, threads: 4 });
  assertEquals([needed - batches - compiled.plan.arenaBytes, rest], [260 * MIB, 260 * MIB]);
  assertEquals(neededBytes(four).rest, 272 * MIB);
  // A process that has taken more than usual needs that.
  const [few, many] = [100 * MIB, 300 * MIB].map((ownBytes) => ({ ...machine, ownBytes, availableBytes: 2 ** 30 }));
  assertEquals([neededBytes(compiled, few).rest, neededBytes(compiled, many).rest], [260 * MIB, 300 * MIB]);
});

Deno.test("what the host holds grows with the microbatches of a step and with the loader's batches, the arena does not", () => {
  const tokens = step.batch * step.seqLen, more = compileStep({ ...step, accumulation: 1001 });
  assertEquals(more.plan.arenaBytes, compiled.plan.arenaBytes);
  assertEquals(more.host.inputBytes - host.inputBytes, 1000 * 3 * 4 * tokens); // tokens, targets, positions
  assertEquals(host.prefetchBytes, 4 * 4 * 4 * tokens); // four batches of four arrays
  const evaluating = compileStep({ ...step, evaluate: { batch: 64, seqLen: 16 } });
  assertEquals(evaluating.host.inputBytes, 3 * 4 * 64 * 16);
  assertEquals(batches, host.inputBytes + host.outputBytes + host.prefetchBytes);
});

Deno.test("what is copied for checkpoints beside training counts, and is as much as memory allows, but no less than a wave", () => {
  const MIB = 2 ** 20, checkpoint = { folder: "nowhere", async: true };
  const { shareBytes, stagingBytes } = compileStep({ ...step, checkpoint }).host;
  const { parameter, moment } = compiled.plan.categories;
  assert(shareBytes > 0 && shareBytes <= parameter + moment && stagingBytes >= shareBytes);
  assertEquals(neededBytes(compileStep({ ...step, checkpoint })).all, needed + stagingBytes);
  assertEquals(compileStep({ ...step, checkpoint: { ...checkpoint, loadOnly: true } }).host.stagingBytes, 0);
  const large = { ...compiled, host: { ...host, stagingBytes: 1024 * MIB } };
  const staging = (availableBytes: number) =>
    withStagingThatFits(large, { ...machine, ownBytes: 0, availableBytes }).host.stagingBytes / MIB;
  assertEquals([needed + 2048 * MIB, needed + 512 * MIB, needed].map(staging), [1024, 512, 256]);
});

Deno.test("a GPU holds a run's arena alone: batches and copies for checkpoints are in memory of its host", () => {
  const { arenaBytes } = compiled.plan, gpu = { ...machine, availableBytes: arenaBytes, isGpu: true };
  const large = { ...compiled, host: { ...host, stagingBytes: 2 ** 40 } };
  checkMemory(withStagingThatFits(large, gpu), gpu);
  assertEquals(withStagingThatFits(large, gpu).host.stagingBytes, 2 ** 40);
  const text = `a run's arena needs ${bytesText(arenaBytes)}; ${
    bytesText(arenaBytes)
  } of this GPU's 16.0 GiB are available`;
  assertEquals(fitText(large, gpu), `${text}: it fits`);
  assertThrows(() => checkMemory(large, { ...gpu, availableBytes: arenaBytes - 1 }), MemoryError, "it does not fit");
});

Deno.test("whether a run fits is told with the limit that decides it", () => {
  const fits = { ...machine, availableBytes: needed }, file = "/sys/fs/cgroup/memory.max";
  const start =
    `a run needs ${bytesText(needed)}, its arena, ${bytesText(batches)} for batches and 260.0 MiB for the rest ` +
    "of the process";
  assertEquals(fitText(compiled), start);
  assertEquals(
    fitText(compiled, fits),
    `${start}; ${bytesText(needed)} of this machine's 16.0 GiB are available: it fits`,
  );
  assertEquals(
    fitText(compiled, { ...fits, availableBytes: needed - 1, file }),
    `${start}; ${bytesText(needed)} of the 16.0 GiB that ${file} allows are available: it does not fit`,
  );
});

Deno.test("a step is refused when a byte is missing, with its plan and what to change", () => {
  const memory = { ...machine, availableBytes: needed };
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
