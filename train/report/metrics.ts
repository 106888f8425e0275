/**
 * What a run reports: torchtitan's console lines, the same numbers under torchtitan's TensorBoard tags for files, and the
 * arithmetic behind them. Bytes are bytes, GiB are 2^30 of them, times are milliseconds unless a name says
 * otherwise; tps is tokens a second on one device. Between reports a step costs a few additions and no allocation.
 *
 * Unlike torchtitan, time per step divides by the steps that passed, not by `log_freq`, and the time of a validation
 * belongs to neither the steps around it nor their tps.
 * @module
 */
import { styleText } from "node:util";
import type { ProcessMemory } from "../../ffi/device.ts";

/** Memory of one device; on a CPU, of this process. */
export interface MemoryUse {
  /** Most bytes that the program has in use at once. */
  readonly activeBytes: number;
  /** Bytes taken from the system: what the console shows. */
  readonly reservedBytes: number;
  /** Bytes of the whole machine, or that this process may use of them. */
  readonly totalBytes: number;
}

/** Memory of a CPU that this process has; of a GPU, whoever takes it.
 * @param activeBytes of its program. @param limit what the process may use. */
export function memoryOf(activeBytes: number, limit: ProcessMemory): MemoryUse {
  const reservedBytes = limit.isGpu ? limit.totalBytes - limit.availableBytes : Deno.memoryUsage().rss;
  return { activeBytes, reservedBytes, totalBytes: limit.totalBytes };
}

/** Speed since the last report. */
export interface Speed {
  readonly tps: number;
  readonly stepSeconds: number;
  /** Mean wait for a batch. */
  readonly loadingSeconds: number;
  readonly loadingPercent: number;
}

/** Counts tokens and times between reports. Times are those of any steady clock, such as `performance.now()`. */
export class Throughput {
  #startMs: number;
  #tokens = 0;
  #steps = 0;
  #batches = 0;
  #loadingMs = 0;

  constructor(nowMs: number) {
    this.#startMs = nowMs;
  }

  /** Counts a batch that took `loadingMs` to get. */
  batch(tokens: number, loadingMs: number): void {
    this.#tokens += tokens;
    this.#batches += 1;
    this.#loadingMs += loadingMs;
  }

  /** Counts an optimizer step. */
  step(): void {
    this.#steps += 1;
  }

  /** Takes time that was spent on something else, such as a validation, out of the account. */
  exclude(ms: number): void {
    this.#startMs += ms;
  }

  /** The speed since the last call, and a new beginning. */
  take(nowMs: number): Speed {
    const seconds = (nowMs - this.#startMs) / 1000;
    const loadingSeconds = this.#loadingMs / 1000;
    const speed = {
      tps: this.#tokens / seconds,
      stepSeconds: seconds / this.#steps,
      loadingSeconds: loadingSeconds / this.#batches,
      loadingPercent: 100 * loadingSeconds / seconds,
    };
    this.#startMs = nowMs;
    this.#tokens =
      this.#steps =
      this.#batches =
      this.#loadingMs =
        0;
    return speed;
  }
}

/** What a training step has to tell. */
export interface StepResult {
  /** From 1. */
  readonly step: number;
  /** Mean loss over all valid tokens of the step. */
  readonly loss: number;
  /** Largest of the devices' mean losses; with one device, the loss. */
  readonly maxLoss: number;
  /** Norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Learning rate used in this step. */
  readonly lr: number;
  /** Tokens trained on since the first step, over all devices. */
  readonly tokensSeen: number;
  /** How often the text has been read, with a fraction where its documents are counted. */
  readonly epoch: number;
  /** The same of each source of a mixture. */
  readonly epochs: Readonly<Record<string, number>>;
  /** Documents that were left out, as they could not be used. */
  readonly skippedDocuments: number;
  /** Conversations that were cut, as they were longer than a row. */
  readonly cutDocuments: number;
  /** Share of the step's places that no document takes. */
  readonly padding: number;
}

/** What a validation has to tell. */
export interface ValidationResult {
  readonly step: number;
  readonly loss: number;
  readonly tokens: number;
  /** Bytes of their text; 0 where that is not known. */
  readonly bytes: number;
  /** Entropy of the same tokens' frequencies, in nats. */
  readonly unigramEntropy: number;
  /** How long it took. */
  readonly ms: number;
}

/** A report of training: results, speed and memory. */
export interface TrainReport extends StepResult, Speed {
  /** 10^12 FLOPs a second that the model needs; nothing recomputed counts. Null where the model does not tell. */
  readonly tflops: number | null;
  /** `tflops` as a share of the device's peak. */
  readonly mfuPercent: number | null;
  readonly memory: MemoryUse;
}

/** A report of a validation. */
export interface ValidationReport {
  readonly step: number;
  readonly loss: number;
  readonly unigramEntropy: number;
  /** The loss whatever the tokenizer, as bits for each byte of text. */
  readonly bitsPerByte: number | null;
  readonly tps: number;
  readonly memory: MemoryUse;
}

/** torchtitan's line for a step, behind it the epoch where documents are counted. Its orange and turquoise are the terminal's yellow and bright cyan here. */
export function trainLine(report: TrainReport, options: { colors: boolean; epochs?: boolean }): string {
  return inColors(options.colors, [
    ["red", `step: ${String(report.step).padStart(2)}`],
    ["green", `loss: ${report.loss.toFixed(5).padStart(8)}`],
    ["yellow", `grad_norm: ${report.gradNorm.toFixed(4).padStart(7)}`],
    ["cyanBright", `memory: ${memoryText(report.memory)}`],
    ["blue", `tps: ${grouped(report.tps, 0)}`],
    ["cyan", `tflops: ${report.tflops === null ? "N/A" : grouped(report.tflops, 2)}`],
    ["magenta", `mfu: ${report.mfuPercent?.toFixed(2) ?? "N/A"}%`],
    ...(options.epochs ? [["yellow", `epoch: ${epochText(report.epoch)}`] as [Color, string]] : []),
  ]);
}

/** With two digits, cut so that a pass that is not complete does not look so. */
function epochText(epoch: number): string {
  return (Math.floor(100 * epoch + 1e-9) / 100).toFixed(2);
}

/** torchtitan's line for a validation. */
export function validationLine(report: ValidationReport, options: { colors: boolean }): string {
  return inColors(options.colors, [
    ["yellow", `validate step: ${String(report.step).padStart(2)}`],
    ["green", `loss: ${report.loss.toFixed(4).padStart(7)}`],
    ["cyanBright", `memory: ${memoryText(report.memory)}`],
    ["blue", `tps: ${grouped(report.tps, 0)}`],
  ]);
}

type Color = Parameters<typeof styleText>[0];

function inColors(colors: boolean, fields: [Color, string][]): string {
  return fields.map(([color, text]) => colors ? styleText(color, text, { validateStream: false }) : text).join("  ");
}

const GIB = 2 ** 30;

function memoryText({ reservedBytes, totalBytes }: MemoryUse): string {
  return `${(reservedBytes / GIB).toFixed(2).padStart(5)}GiB(${(100 * reservedBytes / totalBytes).toFixed(2)}%)`;
}

function grouped(value: number, digits: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Are colors wanted: not when the user says no, when output is not a terminal, or when `NO_COLOR` is set. */
export function colorsWanted(disableColorPrinting: boolean): boolean {
  return !disableColorPrinting && !Deno.noColor && Deno.stdout.isTerminal();
}

/** A report of training under torchtitan's TensorBoard tags. */
export function trainTags(report: TrainReport): Record<string, number | null> {
  const sources = Object.entries(report.epochs);
  return {
    "step": report.step,
    "loss_metrics/global_avg_loss": report.loss,
    "loss_metrics/global_max_loss": report.maxLoss,
    "grad_norm": report.gradNorm,
    "throughput(tps)": report.tps,
    "tflops": report.tflops,
    "mfu(%)": report.mfuPercent,
    "time_metrics/end_to_end(s)": report.stepSeconds,
    "time_metrics/data_loading(s)": report.loadingSeconds,
    "time_metrics/data_loading(%)": report.loadingPercent,
    ...memoryTags("memory/", report.memory),
    "n_tokens_seen": report.tokensSeen,
    "epoch": report.epoch,
    ...(sources.length > 1 ? Object.fromEntries(sources.map(([name, epoch]) => [`epoch/${name}`, epoch])) : {}),
    "skipped_documents": report.skippedDocuments,
    "cut_documents": report.cutDocuments,
    "padding(%)": 100 * report.padding,
    "lr": report.lr,
  };
}

/** Loss in bits for each byte of text, of a loss in nats per token. */
export function bitsPerByte(
  { loss, tokens, bytes }: Pick<ValidationResult, "loss" | "tokens" | "bytes">,
): number | null {
  return bytes === 0 ? null : loss * tokens / bytes / Math.LN2;
}

/** A report of a validation under torchtitan's TensorBoard tags, and what is not torchtitan's under tags of its own. */
export function validationTags(report: ValidationReport): Record<string, number | null> {
  return {
    "step": report.step,
    "validation_metrics/loss": report.loss,
    "validation_metrics/unigram_entropy": report.unigramEntropy,
    "validation_metrics/bits_per_byte": report.bitsPerByte,
    "validation_metrics/throughput(tps)": report.tps,
    ...memoryTags("validation_metrics/memory/", report.memory),
  };
}

function memoryTags(prefix: string, { activeBytes, reservedBytes, totalBytes }: MemoryUse): Record<string, number> {
  return {
    [`${prefix}max_active(GiB)`]: activeBytes / GIB,
    [`${prefix}max_active(%)`]: 100 * activeBytes / totalBytes,
    [`${prefix}max_reserved(GiB)`]: reservedBytes / GIB,
    [`${prefix}max_reserved(%)`]: 100 * reservedBytes / totalBytes,
  };
}

/** Where the numbers of a report go, such as a file: each under its tag, and the step under `step`. */
export interface MetricsSink {
  write(values: Readonly<Record<string, number | null>>): void;
}

/** What {@linkcode Metrics} reports with, and to whom. */
export interface MetricsOptions {
  /** Steps between reports. */
  readonly logFreq: number;
  /** Reported whatever `logFreq` is. */
  readonly lastStep: number;
  /** Devices that share the tokens of a step, so that tokens a second are those of one. */
  readonly devices: number;
  /** FLOPs of forward and backward per token, as the model tells them; null where it does not. */
  readonly flopsPerToken: number | null;
  /** FLOPs a second that the device can do: of a GPU, what its data sheet says, as far as it is known; else a measured matrix product. */
  readonly peakFlops: number;
  /** Measures them again, for when a step was faster: the device was busy then. */
  readonly measurePeak: () => Promise<number>;
  /** Asked at each report. */
  readonly memory: () => MemoryUse;
  /** See {@linkcode colorsWanted}. */
  readonly colors: boolean;
  /** Do lines tell the epoch? */
  readonly epochs?: boolean;
  /** Receives each line, without its end. */
  readonly print: (line: string) => void;
  /** Where the numbers go. */
  readonly sinks: readonly MetricsSink[];
  /** Milliseconds of a steady clock, such as `performance.now`. */
  readonly now: () => number;
}

/** Reports a run: call {@linkcode batch} and {@linkcode step} as it goes. */
export class Metrics {
  readonly #options: MetricsOptions;
  readonly #throughput: Throughput;
  #peakFlops: number;

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#peakFlops = options.peakFlops;
    this.#throughput = new Throughput(options.now());
  }

  /** Is this step, counted from 1, reported? So its results must be read. */
  isReported(step: number): boolean {
    return step === 1 || step === this.#options.lastStep || step % this.#options.logFreq === 0;
  }

  /** Counts a batch, of all devices, that took `loadingMs` to get. */
  batch(tokens: number, loadingMs: number): void {
    this.#throughput.batch(tokens / this.#options.devices, loadingMs);
  }

  /** Counts a step, and reports it if it is to be reported. */
  async step(result: StepResult): Promise<void> {
    this.#throughput.step();
    if (!this.isReported(result.step)) return;
    const { flopsPerToken, memory, colors, epochs, print, sinks, now } = this.#options;
    const speed = this.#throughput.take(now());
    const flops = flopsPerToken === null ? null : speed.tps * flopsPerToken,
      tflops = flops === null ? null : flops / 1e12;
    if (flops !== null && flops > this.#peakFlops) await this.#raisePeak(flops);
    const mfuPercent = flops === null ? null : 100 * flops / this.#peakFlops;
    const report = { ...result, ...speed, tflops, mfuPercent, memory: memory() };
    print(trainLine(report, { colors, epochs }));
    const tags = trainTags(report);
    sinks.forEach((sink) => sink.write(tags));
  }

  /** Measures the peak again, as steps were faster; what they reached can be reached in any case. */
  async #raisePeak(flops: number): Promise<void> {
    const { measurePeak, print, now } = this.#options, begun = now(), before = this.#peakFlops;
    this.#peakFlops = Math.max(flops, await measurePeak());
    this.#throughput.exclude(now() - begun);
    const [was, is] = [before, this.#peakFlops].map((peak) => (peak / 1e9).toFixed(0));
    print(`  mfu is now of ${is} GFLOP/s: a step was faster than the ${was} that were measured before`);
  }

  /** Takes time that was spent on something else than training out of the account. */
  exclude(ms: number): void {
    this.#throughput.exclude(ms);
  }

  /** Reports a validation, whose time then does not count as training. */
  validation({ ms, ...result }: ValidationResult): void {
    const { devices, memory, colors, print, sinks } = this.#options;
    this.#throughput.exclude(ms);
    const tps = 1000 * result.tokens / devices / ms;
    const report = { ...result, bitsPerByte: bitsPerByte(result), tps, memory: memory() };
    print(validationLine(report, { colors }));
    const tags = validationTags(report);
    sinks.forEach((sink) => sink.write(tags));
  }
}
