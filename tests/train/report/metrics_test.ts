import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { llama } from "../../../model/llama.ts";
import {
  memoryOf,
  type MemoryUse,
  Metrics,
  type MetricsSink,
  Throughput,
  trainLine,
  type TrainReport,
  trainTags,
  validationLine,
} from "../../../train/report/metrics.ts";
import { JsonLines } from "../../../train/report/json_lines.ts";

const GIB = 2 ** 30;
const memory: MemoryUse = { activeBytes: GIB, reservedBytes: 1.5 * GIB, totalBytes: 16 * GIB };
const report: TrainReport = {
  step: 7,
  loss: 7.123456,
  maxLoss: 7.5,
  gradNorm: 1.23456,
  lr: 0.002,
  tokensSeen: 14336,
  epoch: 1.999,
  epochs: {},
  skippedDocuments: 0,
  cutDocuments: 0,
  padding: 0.25,
  tps: 4095.6,
  stepSeconds: 0.5,
  loadingSeconds: 0.01,
  loadingPercent: 2,
  tflops: 1234.5678,
  mfuPercent: 33.666,
  memory,
};
const plain = { colors: false };

Deno.test("the line of a step has torchtitan's fields, order and widths", () => {
  assertEquals(
    trainLine(report, plain),
    "step:  7  loss:  7.12346  grad_norm:  1.2346  memory:  1.50GiB(9.38%)  tps: 4,096  tflops: 1,234.57  mfu: 33.67%",
  );
  assertEquals(
    trainLine({ ...report, step: 1200, loss: 10.5, gradNorm: 123.4, tps: 1e6, tflops: 0.291 }, plain),
    "step: 1200  loss: 10.50000  grad_norm: 123.4000  memory:  1.50GiB(9.38%)  tps: 1,000,000  tflops: 0.29  mfu: 33.67%",
  );
});

Deno.test("where documents are counted, a line ends with the epoch, which is whole when the pass is", () => {
  const epochs = (epoch: number) => trainLine({ ...report, epoch }, { colors: false, epochs: true }).split("  ").at(-1);
  assertEquals([0, 1.999, 2, 0.7].map(epochs), ["epoch: 0.00", "epoch: 1.99", "epoch: 2.00", "epoch: 0.70"]);
});

Deno.test("the line of a validation has torchtitan's fields, order and widths", () => {
  assertEquals(
    validationLine({ step: 7, loss: 5.43216, unigramEntropy: 6, bitsPerByte: 2, tps: 12000, memory }, plain),
    "validate step:  7  loss:  5.4322  memory:  1.50GiB(9.38%)  tps: 12,000",
  );
});

Deno.test("each field has its color, and without colors the line is the same text", () => {
  const line = trainLine(report, { colors: true });
  // deno-lint-ignore no-control-regex -- terminals are told colors by control characters
  const escapes = /\x1b\[(\d+)m/g;
  assertEquals(line.replace(escapes, ""), trainLine(report, plain));
  const codes = [...line.matchAll(escapes)].map(([, code]) => code).filter((code) => code !== "39");
  assertEquals(codes, ["31", "32", "33", "96", "34", "36", "35"]);
});

Deno.test("FLOPs per token, from which MFU is made, are torchtitan's", () => {
  const debug = llama("debugmodel");
  assertEquals([2048, 4096, 8192].map((S) => debug.flopsPerToken(S)), [71_585_280, 109_334_016, 184_831_488]);
  assertEquals(llama("8B").flopsPerToken(8192), 57_914_449_920);
  assertEquals(llama("llama2/70B").flopsPerToken(2048), 428_393_152_512);
});

Deno.test("speed is counted from report to report", () => {
  const throughput = new Throughput(1000);
  throughput.batch(2048, 20);
  throughput.batch(2048, 60);
  throughput.step();
  throughput.step();
  assertEquals(throughput.take(3000), { tps: 2048, stepSeconds: 1, loadingSeconds: 0.04, loadingPercent: 4 });
  throughput.batch(100, 0);
  throughput.step();
  assertEquals(throughput.take(3100), { tps: 1000, stepSeconds: 0.1, loadingSeconds: 0, loadingPercent: 0 });
});

Deno.test("time spent on something else is not counted", () => {
  const throughput = new Throughput(0);
  throughput.batch(1000, 0);
  throughput.step();
  throughput.exclude(9000);
  assertEquals(throughput.take(10_000).tps, 1000);
});

/** A run on a clock that is set by hand. */
function run(logFreq: number, sinks: readonly MetricsSink[] = [], flopsPerToken: number | null = 1e9, devices = 1) {
  const clock = { ms: 0 }, peaks: number[] = [];
  const lines: string[] = [];
  const metrics = new Metrics({
    logFreq,
    lastStep: 8,
    devices,
    flopsPerToken,
    peakFlops: 4e12,
    measurePeak: () => {
      clock.ms += 500;
      return Promise.resolve(peaks.shift()!);
    },
    memory: () => memory,
    colors: false,
    print: (line) => lines.push(line),
    sinks,
    now: () => clock.ms,
  });
  const step = (n: number) => {
    clock.ms += 1000;
    metrics.batch(2000, 10);
    return metrics.step({
      step: n,
      loss: 7,
      maxLoss: 7,
      gradNorm: 1,
      lr: 1e-3,
      tokensSeen: 2000 * n,
      epoch: 0,
      epochs: {},
      skippedDocuments: 0,
      cutDocuments: 0,
      padding: 0.25,
    });
  };
  return { clock, peaks, lines, metrics, step };
}

Deno.test("step 1 is reported, then every log_freq steps, and the last", () => {
  const { lines, step } = run(3);
  for (let n = 1; n <= 8; n++) step(n);
  assertEquals(lines.map((line) => line.slice(0, 8)), ["step:  1", "step:  3", "step:  6", "step:  8"]);
});

Deno.test("MFU is the model's FLOPs over the device's peak, and speed does not depend on log_freq", () => {
  const { lines, step } = run(3);
  for (let n = 1; n <= 6; n++) step(n);
  for (const line of lines) assertEquals(line.split("  ").slice(-3), ["tps: 2,000", "tflops: 2.00", "mfu: 50.00%"]);
});

Deno.test("a step that is faster than the peak has it measured again, outside of the time of steps", async () => {
  const { peaks, lines, step } = run(1, [], 4e9);
  peaks.push(20e12, 1e12);
  await step(1); // 8 TFLOP/s on a device that could do 4
  await step(2);
  const [said, ...steps] = lines;
  assertEquals(said, "  mfu is now of 20000 GFLOP/s: a step was faster than the 4000 that were measured before");
  for (const line of steps) assertEquals(line.split("  ").slice(-3), ["tps: 2,000", "tflops: 8.00", "mfu: 40.00%"]);
});

Deno.test("a step that is faster than the peak each time it is measured has an MFU of 100 %", async () => {
  const { peaks, lines, step } = run(1, [], 4e9);
  peaks.push(1e12);
  await step(1);
  await step(2);
  assertEquals(lines.length, 3);
  for (const line of lines.slice(1)) assertEquals(line.split("  ").at(-1), "mfu: 100.00%");
});

Deno.test("a model that does not tell its FLOPs has no MFU", () => {
  const { lines, step } = run(1, [], null);
  step(1);
  assertEquals(lines[0].split("  ").slice(-3), ["tps: 2,000", "tflops: N/A", "mfu: N/A%"]);
});

Deno.test("speed is that of one device", () => {
  const { lines, metrics, step } = run(1, [], 1e9, 4);
  step(1);
  assertEquals(lines[0].split("  ").slice(-3), ["tps: 500", "tflops: 0.50", "mfu: 12.50%"]);
  metrics.validation({ step: 1, loss: 7, tokens: 2000, bytes: 0, unigramEntropy: 6, ms: 1000 });
  assertEquals(lines[1].split("  ").at(-1), "tps: 500");
});

Deno.test("a validation has its own speed and does not slow training down", () => {
  const { clock, lines, metrics, step } = run(1);
  step(1);
  clock.ms += 500;
  metrics.validation({ step: 1, loss: 6, tokens: 4000, bytes: 10_000, unigramEntropy: 6.5, ms: 500 });
  step(2);
  assert(lines[1].startsWith("validate step:  1  loss:  6.0000  ") && lines[1].endsWith("  tps: 8,000"), lines[1]);
  assertEquals(lines[2].split("  ").at(-3), "tps: 2,000");
});

/** Nothing is to be warned of. */
const warn = (text: string) => assert(false, text);

const json = (text: string) => text.trimEnd().split("\n").map((line) => JSON.parse(line));

Deno.test("JSON lines carry torchtitan's tags", async () => {
  const path = `${await Deno.makeTempDir()}/new/folder/metrics.jsonl`;
  const { step, metrics } = run(1, [new JsonLines(path, { description: "a run" }, { warn })]);
  step(1);
  metrics.validation({ step: 1, loss: 6, tokens: 4000, bytes: 10_000, unigramEntropy: 6.5, ms: 500 });
  const [header, train, validation] = json(await Deno.readTextFile(path));
  assertEquals(header, { run: { description: "a run" } });
  assertEquals(train, {
    "step": 1,
    "loss_metrics/global_avg_loss": 7,
    "loss_metrics/global_max_loss": 7,
    "grad_norm": 1,
    "throughput(tps)": 2000,
    "tflops": 2,
    "mfu(%)": 50,
    "time_metrics/end_to_end(s)": 1,
    "time_metrics/data_loading(s)": 0.01,
    "time_metrics/data_loading(%)": 1,
    "memory/max_active(GiB)": 1,
    "memory/max_active(%)": 6.25,
    "memory/max_reserved(GiB)": 1.5,
    "memory/max_reserved(%)": 9.375,
    "n_tokens_seen": 2000,
    "epoch": 0,
    "skipped_documents": 0,
    "cut_documents": 0,
    "padding(%)": 25,
    "lr": 0.001,
  });
  assertEquals(validation, {
    "step": 1,
    "validation_metrics/loss": 6,
    "validation_metrics/unigram_entropy": 6.5,
    "validation_metrics/bits_per_byte": 2.4 / Math.LN2,
    "validation_metrics/throughput(tps)": 8000,
    "validation_metrics/memory/max_active(GiB)": 1,
    "validation_metrics/memory/max_active(%)": 6.25,
    "validation_metrics/memory/max_reserved(GiB)": 1.5,
    "validation_metrics/memory/max_reserved(%)": 9.375,
  });
});

Deno.test("a loss that is not a number is null in JSON and NaN on the console", async () => {
  const path = await Deno.makeTempFile();
  new JsonLines(path, {}, { warn }).write(trainTags({ ...report, loss: NaN }));
  assertEquals(json(await Deno.readTextFile(path))[1]["loss_metrics/global_avg_loss"], null);
  assert(trainLine({ ...report, loss: NaN }, plain).startsWith("step:  7  loss:      NaN  "));
});

Deno.test("the memory of a process on a CPU is what it has now, of what it may use", () => {
  const { activeBytes, reservedBytes, totalBytes } = memoryOf(123, {
    ...{ totalBytes: 2 ** 40, availableBytes: 0, ownBytes: 0, file: "" },
  });
  assertEquals([activeBytes, totalBytes], [123, 2 ** 40]);
  assert(reservedBytes > 1e6 && reservedBytes < totalBytes);
});

Deno.test("the memory of a GPU is what is taken of it, by whomever", () => {
  const memory = { totalBytes: 80e9, availableBytes: 50e9, ownBytes: 0, file: "" };
  assertEquals(memoryOf(123, { ...memory, isGpu: true }), { activeBytes: 123, reservedBytes: 30e9, totalBytes: 80e9 });
});

Deno.test("a report takes the time since the one before into account", () => {
  const { clock, lines, step } = run(2);
  step(1);
  clock.ms += 2000;
  step(2);
  assertAlmostEquals(Number(lines[1].match(/tps: (\d+)/)![1]), 667);
});
