/**
 * Draws the loss curve of a run: `plot_loss.ts METRICS_JSONL SVG`. Of the file's last run it shows the training loss, the
 * validation losses, and the unigram entropy of the held-out tokens. Lines that were torn are left out, with a warning.
 * The picture in README.md is made by
 *
 *     npx -y deno task train --metrics.log_freq 1 --validation.freq 25 --job.dump_folder build/readme
 *     npx -y deno run --allow-read --allow-write=docs tools/plot_loss.ts build/readme/metrics.jsonl docs/loss.svg
 *     npx -y deno fmt docs/loss.svg
 *
 * Losses are nats per token; the picture is in pixels, from its top left corner.
 * @module
 */
import type { Config } from "../train/config/config.ts";
import { parseJsonLines } from "../train/report/json_lines.ts";
import { escaped, sheet, TEXT, ticks } from "./svg.ts";
import { runTool } from "./tool.ts";

/** A loss at a step. */
export interface Point {
  readonly step: number;
  readonly loss: number;
}

/** What is drawn. */
export interface Curve {
  readonly title: string;
  readonly tokensPerStep: number;
  readonly training: readonly Point[];
  readonly validation: readonly Point[];
  /** Absent where there is no validation. */
  readonly unigramEntropy?: number;
}

/** The lines of a file's last run. Of a run that went on from a checkpoint, with those of the runs before up to that step. */
function linesOfRun(lines: readonly Record<string, unknown>[]): readonly Record<string, unknown>[] {
  const start = lines.findLastIndex((line) => "run" in line), own = lines.slice(start + 1);
  const from = (lines[start]?.run as { from?: number } | undefined)?.from;
  if (from === undefined) return own;
  return [...linesOfRun(lines.slice(0, start)).filter((line) => line.step as number <= from), ...own];
}

/** The last run in the lines of a file of metrics.
 * @throws {SyntaxError} when the file holds no run with a finite loss. */
export function lastRun(
  lines: readonly Record<string, unknown>[],
): Pick<Curve, "training" | "validation" | "unigramEntropy"> & { config: Config } {
  const start = lines.findLastIndex((line) => "run" in line), own = linesOfRun(lines);
  const points = (tag: string): Point[] =>
    own.filter((line) => typeof line[tag] === "number")
      .map((line) => ({ step: line.step as number, loss: line[tag] as number }));
  const training = points("loss_metrics/global_avg_loss");
  if (start < 0 || training.length === 0) {
    throw new SyntaxError("Cannot draw a loss curve: the file has no run with a finite loss; is it a metrics.jsonl?");
  }
  const { config } = lines[start].run as { config: Config };
  const unigramEntropy = points("validation_metrics/unigram_entropy").at(-1)?.loss;
  return { config, training, validation: points("validation_metrics/loss"), unigramEntropy };
}

const [width, height] = [760, 420];
const frame = { left: 64, right: 736, top: 52, bottom: 364 };
const colors = { training: "#1f6feb", validation: "#d1570b", entropy: "#57606a", grid: "#e4e8ec" };

/** The curve as a picture. */
export function lossSvg({ title, tokensPerStep, training, validation, unigramEntropy }: Curve): string {
  const losses = [...training, ...validation].map((p) => p.loss).concat(unigramEntropy ?? []);
  const lastStep = Math.max(...training.map((p) => p.step), 2);
  const low = Math.floor(Math.min(...losses)), high = Math.max(Math.ceil(Math.max(...losses)), low + 1);
  const x = (step: number): string => (frame.left + step / lastStep * (frame.right - frame.left)).toFixed(1);
  const y = (loss: number): string =>
    (frame.bottom - (loss - low) / (high - low) * (frame.bottom - frame.top)).toFixed(1);
  const text = (at: string, content: string, style = ""): string => `<text ${at} ${style}>${escaped(content)}</text>`;
  const middle = 'text-anchor="middle"', stepLabel = `step (${tokensPerStep.toLocaleString("en-US")} tokens each)`;

  const parts = [
    text(`x="${frame.left}" y="30"`, title, 'font-size="17" font-weight="600"'),
    ...ticks(low, high, 6).flatMap((loss) => [
      `<path d="M${frame.left} ${y(loss)}H${frame.right}" stroke="${colors.grid}"/>`,
      text(`x="${frame.left - 10}" y="${y(loss)}" dy="0.35em"`, String(loss), 'text-anchor="end"'),
    ]),
    ...ticks(0, lastStep, 8).map((step) => text(`x="${x(step)}" y="${frame.bottom + 22}"`, String(step), middle)),
    text(`x="${(frame.left + frame.right) / 2}" y="${height - 12}"`, stepLabel, middle),
    text(`transform="translate(20 ${(frame.top + frame.bottom) / 2}) rotate(-90)"`, "loss (nats per token)", middle),
    `<path d="M${frame.left} ${frame.bottom}H${frame.right}" stroke="${TEXT}"/>`,
  ];
  const legend: { name: string; color: string; mark: (at: number) => string }[] = [];

  const line = training.map((p) => `${x(p.step)} ${y(p.loss)}`).join("L");
  const stroke = `fill="none" stroke="${colors.training}" stroke-width="2" stroke-linejoin="round"`;
  parts.push(`<path d="M${line}" ${stroke}/>`);
  legend.push({
    name: `training, ${training.at(-1)!.loss.toFixed(2)} at the end`,
    color: colors.training,
    mark: (at) => `<path d="M490 ${at}h24" ${stroke}/>`,
  });
  if (validation.length > 0) {
    const dot = (cx: string | number, cy: string | number) =>
      `<circle cx="${cx}" cy="${cy}" r="4.5" fill="${colors.validation}" stroke="white"/>`;
    parts.push(...validation.map((p) => dot(x(p.step), y(p.loss))));
    legend.push({
      name: `held-out text, ${validation.at(-1)!.loss.toFixed(2)} at the end`,
      color: colors.validation,
      mark: (at) => dot(502, at),
    });
  }
  if (unigramEntropy !== undefined) {
    const dashed = `stroke="${colors.entropy}" stroke-width="1.5" stroke-dasharray="6 4"`;
    parts.push(`<path d="M${frame.left} ${y(unigramEntropy)}H${frame.right}" ${dashed}/>`);
    legend.push({
      name: `its unigram entropy, ${unigramEntropy.toFixed(2)}`,
      color: colors.entropy,
      mark: (at) => `<path d="M490 ${at}h24" ${dashed}/>`,
    });
  }
  const legendHeight = 24 * legend.length + 8;
  parts.push(`<rect x="482" y="${frame.top + 2}" width="${frame.right - 482}" height="${legendHeight}" fill="white"/>`);
  legend.forEach(({ name, color, mark }, i) => {
    const at = frame.top + 16 + 24 * i;
    parts.push(mark(at), text(`x="524" y="${at}" dy="0.35em"`, name, `fill="${color}"`));
  });
  return sheet(title, [width, height], parts);
}

if (import.meta.main) {
  Deno.exit(runTool("tools/plot_loss.ts METRICS_JSONL SVG", Deno.args, (metrics, picture) => {
    const lines = parseJsonLines(Deno.readTextFileSync(metrics), metrics);
    const { config, training, validation, unigramEntropy } = lastRun(lines);
    const { local_batch_size, global_batch_size, seq_len } = config.training;
    const svg = lossSvg({
      title: config.job.description,
      tokensPerStep: Math.max(local_batch_size, global_batch_size) * seq_len,
      training,
      validation,
      unigramEntropy,
    });
    Deno.writeTextFileSync(picture, svg);
  }));
}
