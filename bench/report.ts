/** Bench arithmetic and text: what the contestants print is parsed, summarised and laid out as a table.
 * Rates are tokens per second and GFLOP/s, memory is GB (1e9 bytes).
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

/** What one process reported. */
export interface Run {
  /** Tokens per second of its median step. */
  readonly tokensPerSecond: number;
  /** Tokens per second of its fastest step. */
  readonly best?: number;
  /** Largest resident memory, GB. */
  readonly peakGb?: number;
  /** GFLOP/s of a 2048 x 2048 x 2048 product right after the steps. */
  readonly productGflops?: number;
}

/** Reads the last line that contains `tokens/s N`; `best N`, `peak GB N` and `product GF/s N` may stand beside it.
 * @throws Error when no line does. */
export function parseRun(output: string): Run {
  const line = output.split("\n").findLast((text) => /tokens\/s\s+\d/.test(text));
  if (line === undefined) {
    throw new Error(
      `No result in what it printed\n  expected: a line with "tokens/s N"\n  got: ${output.trim() || "nothing"}`,
    );
  }
  const number = (label: string): number | undefined => {
    const match = line.match(new RegExp(`(?:^|\\s)${label}\\s+(\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)(?=\\s|$)`));
    return match ? Number(match[1]) : undefined;
  };
  const tokensPerSecond = number("tokens/s");
  if (!tokensPerSecond) throw new Error(`Not a rate: "${line.trim()}"\n  expected: "tokens/s N" with N above 0`);
  return {
    tokensPerSecond,
    best: number("best"),
    peakGb: number("peak GB"),
    productGflops: number("product GF/s"),
  };
}

/** A peer given on the command line as `name=COMMAND`.
 * @throws Error when either part is missing. */
export function parsePeer(text: string): { name: string; command: string } {
  const cut = text.indexOf("=");
  const [name, command] = [text.slice(0, cut).trim(), text.slice(cut + 1).trim()];
  if (cut < 1 || !name || !command) {
    throw new Error(`Cannot read --peer "${text}"\n  expected: name=COMMAND\n  fix: --peer "mine=./train --steps 5"`);
  }
  return { name, command };
}

/** The middle value, or the mean of the middle two.
 * @throws RangeError on an empty list. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("No median of no values");
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** One contestant's runs in one line. */
export interface Summary {
  readonly name: string;
  /** Median over rounds of each round's median step, tokens per second. */
  readonly median: number;
  /** Fastest step of all rounds, tokens per second. */
  readonly best?: number;
  /** Largest of all rounds, GB. */
  readonly peakGb?: number;
  /** Median over rounds, GFLOP/s. */
  readonly productGflops?: number;
  /** The step's FLOP rate divided by the product's, median over rounds. */
  readonly share?: number;
  /** The first contestant's rate divided by this one's, round by round, then the median: load that comes and
   * goes hits both sides of a round. */
  readonly ratio: number;
}

/** Summarises rounds: `runs[name][r]` is what `name` reported in round r. The first name is the one that others
 * are compared with.
 * @throws RangeError when the contestants did not run equally often. */
export function summarise(runs: ReadonlyMap<string, readonly Run[]>, size: Size): Summary[] {
  const [reference] = runs.values();
  const flopsPerToken = llama("debug", size).flopsPerToken(size.seqLen);
  const defined = (values: readonly (number | undefined)[]) => values.filter((value) => value !== undefined);
  return [...runs].map(([name, rounds]) => {
    if (rounds.length !== reference.length) {
      throw new RangeError(
        `"${name}" ran ${rounds.length} times\n  expected: ${reference.length}, as the first contestant`,
      );
    }
    const over = (values: readonly number[], pick: (values: readonly number[]) => number) =>
      values.length === 0 ? undefined : pick(values);
    const largest = (values: readonly number[]) => Math.max(...values);
    return {
      name,
      median: median(rounds.map((run) => run.tokensPerSecond)),
      best: over(defined(rounds.map((run) => run.best)), largest),
      peakGb: over(defined(rounds.map((run) => run.peakGb)), largest),
      productGflops: over(defined(rounds.map((run) => run.productGflops)), median),
      share: over(
        defined(
          rounds.map(({ tokensPerSecond, productGflops }) =>
            productGflops && tokensPerSecond * flopsPerToken / (productGflops * 1e9)
          ),
        ),
        median,
      ),
      ratio: median(rounds.map((run, r) => reference[r].tokensPerSecond / run.tokensPerSecond)),
    };
  });
}

/** A Markdown table of the summaries, aligned for a terminal. */
export function table(summaries: readonly Summary[]): string {
  const show = (value: number | undefined, digits: number) => value === undefined ? "-" : value.toFixed(digits);
  const rows = [
    ["", "tokens/s", "best", "peak GB", "product GF/s", "share", `${summaries[0].name} is`],
    ...summaries.map((s, index) => [
      s.name,
      show(s.median, 0),
      show(s.best, 0),
      show(s.peakGb, 2),
      show(s.productGflops, 0),
      show(s.share, 2),
      index === 0 ? "" : `${s.ratio.toFixed(2)} x`,
    ]),
  ];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, c) => c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c])).join(" | ")} |`;
  const rule = `| ${widths.map((width, c) => c === 0 ? "-".repeat(width) : "-".repeat(width - 1) + ":").join(" | ")} |`;
  return [line(rows[0]), rule, ...rows.slice(1).map(line)].join("\n");
}
