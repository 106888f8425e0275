/** Bench arithmetic and text: what the contestants print is parsed, summarised and laid out as a table.
 * Rates are tokens per second and GFLOP/s, memory is GB (1e9 bytes), times are seconds.
 * @module */

import { llama } from "../model/llama.ts";
import sizes from "./sizes.json" with { type: "json" };

/** A benchmarked Llama, and its batch: `batch` sequences of `seqLen` tokens. */
export interface Size {
  readonly dim: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly ffnHiddenDim: number;
  readonly vocabSize: number;
  readonly batch: number;
  readonly seqLen: number;
}

/** Looks a size up in `bench/sizes.json`.
 * @throws RangeError when there is none of that name. */
export function sizeNamed(name: string): Size {
  if (!Object.hasOwn(sizes, name)) {
    throw new RangeError(
      `No size is named "${name}"\n  expected: one of ${
        Object.keys(sizes).join(", ")
      }\n  fix: add it to bench/sizes.json`,
    );
  }
  return sizes[name as keyof typeof sizes];
}

/** What one process reported, and what was measured around it. */
export interface Run {
  /** Tokens per second of its median step. */
  readonly tokensPerSecond: number;
  /** Tokens per second of its fastest step. */
  readonly best?: number;
  /** Largest resident memory, GB. */
  readonly peakGb?: number;
  /** Seconds spent on compiling the step. */
  readonly compileSeconds?: number;
  /** What was run, with its version. */
  readonly version?: string;
  /** From the start of the process to the end of its first step. */
  readonly firstStepSeconds?: number;
  /** GFLOP/s of a 2048 x 2048 x 2048 product of the same dtype, by this library: mean of right before and right after. */
  readonly productGflops?: number;
}

/** Reads the last line that contains `tokens/s N`; `best N`, `peak GB N`, `compile s N` and, at its end, `version TEXT`
 * may stand beside it.
 * @throws Error when no line does. */
export function parseRun(output: string): Run {
  const line = output.split("\n").findLast((text) => /tokens\/s\s+\d/.test(text));
  if (line === undefined) {
    throw new Error(
      `No result in what it printed\n  expected: a line with "tokens/s N"\n  got: ${output.trim() || "nothing"}`,
    );
  }
  const tokensPerSecond = numberAfter("tokens/s", line);
  if (!tokensPerSecond) throw new Error(`Not a rate: "${line.trim()}"\n  expected: "tokens/s N" with N above 0`);
  return {
    tokensPerSecond,
    best: numberAfter("best", line),
    peakGb: numberAfter("peak GB", line),
    compileSeconds: numberAfter("compile s", line),
    version: line.match(/\sversion\s+(.+?)\s*$/)?.[1],
  };
}

/** The number behind a label; undefined where the label is not in the line. */
export function numberAfter(label: string, line: string): number | undefined {
  const match = line.match(new RegExp(`(?:^|\\s)${label}\\s+(\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)(?=\\s|$)`, "m"));
  return match ? Number(match[1]) : undefined;
}

/** The middle value, or the mean of the middle two.
 * @throws RangeError on an empty list. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("No median of no values");
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** A size in a dtype, and what each contestant reported in each round. */
export interface Case {
  readonly size: string;
  readonly dtype: string;
  readonly contestants: readonly { readonly name: string; readonly runs: readonly Run[] }[];
}

/** All that a bench measured: what `--json` writes and `--from` reads. */
export interface Results {
  /** When it began, ISO 8601. */
  readonly date: string;
  readonly machine: string;
  readonly rounds: number;
  readonly steps: number;
  readonly cases: readonly Case[];
}

/** One contestant's runs in one line. */
export interface Summary {
  readonly name: string;
  /** Median over rounds of each round's median step, tokens per second. */
  readonly median: number;
  /** Fastest step of all rounds, tokens per second. */
  readonly best?: number;
  /** The first contestant's rate divided by this one's, round by round, then the median: load that comes and
   * goes hits both sides of a round. */
  readonly ratio: number;
  /** FLOPs that the model needs, GFLOP/s: `median` times the model's FLOPs per token. */
  readonly gflops: number;
  /** The step's FLOP rate divided by the product's, median over rounds. */
  readonly share?: number;
  /** Largest of all rounds, GB. */
  readonly peakGb?: number;
  /** Median over rounds, seconds. */
  readonly firstStepSeconds?: number;
  /** Median over rounds, seconds. */
  readonly compileSeconds?: number;
}

/** Summarises a case. Its first contestant is the one that others are compared with.
 * @throws RangeError when the contestants did not run equally often. */
export function summarise({ size, contestants }: Case): Summary[] {
  const { runs: reference } = contestants[0];
  const flopsPerToken = llama("debug", sizeNamed(size)).flopsPerToken(sizeNamed(size).seqLen);
  return contestants.map(({ name, runs }) => {
    if (runs.length !== reference.length) {
      throw new RangeError(
        `"${name}" ran ${runs.length} times\n  expected: ${reference.length}, as the first contestant`,
      );
    }
    const over = (pick: (values: number[]) => number, of: (run: Run) => number | undefined) => {
      const values = runs.map(of).filter((value) => value !== undefined);
      return values.length === 0 ? undefined : pick(values);
    };
    const largest = (values: number[]) => Math.max(...values);
    const rate = median(runs.map((run) => run.tokensPerSecond));
    return {
      name,
      median: rate,
      best: over(largest, (run) => run.best),
      ratio: median(runs.map((run, r) => reference[r].tokensPerSecond / run.tokensPerSecond)),
      gflops: rate * flopsPerToken / 1e9,
      share: over(
        median,
        ({ tokensPerSecond, productGflops }) =>
          productGflops && tokensPerSecond * flopsPerToken / (productGflops * 1e9),
      ),
      peakGb: over(largest, (run) => run.peakGb),
      firstStepSeconds: over(median, (run) => run.firstStepSeconds),
      compileSeconds: over(median, (run) => run.compileSeconds),
    };
  });
}

/** A Markdown table of cases, aligned for a terminal. */
export function table(cases: readonly Case[]): string {
  const show = (value: number | undefined, digits: number) => value === undefined ? "-" : value.toFixed(digits);
  const ours = cases[0]?.contestants[0].name;
  const rows = [
    ["size", "", "tokens/s", "best", `${ours} is`, "share", "GFLOP/s", "peak GB", "first step s", "compile s"],
    ...cases.flatMap((each) =>
      summarise(each).map((s, index) => [
        index === 0 ? `${each.size} ${each.dtype}` : "",
        s.name,
        show(s.median, 0),
        show(s.best, 0),
        index === 0 ? "" : `${s.ratio.toFixed(2)} x`,
        show(s.share, 2),
        show(s.gflops, 0),
        show(s.peakGb, 2),
        show(s.firstStepSeconds, 1),
        show(s.compileSeconds, 1),
      ])
    ),
  ];
  const isText = (column: number) => column < 2;
  const widths = rows[0].map((_, c) => Math.max(3, ...rows.map((row) => row[c].length)));
  const pad = (cell: string, c: number) => isText(c) ? cell.padEnd(widths[c]) : cell.padStart(widths[c]);
  const line = (row: readonly string[]) => `| ${row.map(pad).join(" | ")} |`;
  const rule = `| ${widths.map((w, c) => isText(c) ? "-".repeat(w) : "-".repeat(w - 1) + ":").join(" | ")} |`;
  return [line(rows[0]), rule, ...rows.slice(1).map(line)].join("\n");
}

const [BEGIN, END] = ["<!-- figures: `deno task bench --readme` writes them -->", "<!-- end of figures -->"];

/** A README with these results between its markers, in place of older ones.
 * @throws Error when it has no markers. */
export function withFigures(readme: string, results: Results): string {
  const [from, to] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (from < 0 || to < from) {
    throw new Error(`No place for the figures\n  expected: a line "${BEGIN}" and after it a line "${END}"`);
  }
  const { date, machine, rounds, steps, cases } = results;
  const versions = new Map(
    cases.flatMap((c) => c.contestants).map(({ name, runs }) => [name, runs.find((run) => run.version)?.version]),
  );
  const facts = [
    `Measured on ${date.slice(0, 10)}`,
    machine,
    `${rounds} rounds of ${steps} steps`,
    ...[...versions].filter(([, version]) => version).map(([name, version]) => `${name}: ${version}`),
  ];
  const list = facts.map((fact) => `- ${fact}`).join("\n");
  const picture = "![Tokens per second of each contestant, by size and dtype](speed.svg)";
  return `${readme.slice(0, from)}${BEGIN}\n\n${list}\n\n${table(cases)}\n\n${picture}\n\n${readme.slice(to)}`;
}
