/** What a run takes, and how far it is: a bar on a terminal, below the lines that it prints, and one line in a log.
 * @module */
import type { TrainableModel } from "../../model/loss.ts";
import { bytesText } from "./plan_report.ts";

const count = (n: number): string => n.toLocaleString("en-US");

/** How far a run is. */
export interface Progress {
  readonly step: number;
  readonly steps: number;
  /** Seconds until it is done; null where that is not known yet. */
  readonly secondsLeft: number | null;
}

/** A time in its two largest units. */
export function durationText(seconds: number): string {
  const s = Math.round(seconds), [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86_400)];
  if (s < 60) return `${s} s`;
  if (m < 60) return m < 10 ? `${m} min ${s % 60} s` : `${m} min`;
  return d > 0 ? `${d} d ${h % 24} h` : `${h} h ${m % 60} min`;
}

/** The bar in a line of so many characters at most. */
export function progressText({ step, steps, secondsLeft }: Progress, width: number): string {
  const share = steps > 0 ? step / steps : 1;
  const left = secondsLeft === null ? "" : `  ${durationText(secondsLeft)} to go`;
  const [before, behind] = [`step ${count(step)} of ${count(steps)} `, ` ${Math.floor(100 * share)} %${left}`];
  const cells = Math.min(40, width - before.length - behind.length - 2);
  if (cells < 4) return `${before.trimEnd()}${behind}`.slice(0, width);
  const done = Math.round(cells * share);
  return `${before}[${"#".repeat(done)}${".".repeat(cells - done)}]${behind}`;
}

/** Tells from the steps that were made when the others will be. The first step is left out, which takes longer. */
export class StepClock {
  readonly #now: () => number;
  #first: { readonly step: number; readonly ms: number } | undefined;

  /** @param now milliseconds of a steady clock. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Counts a step, with all that came since the one before. */
  at(step: number, steps: number): Progress {
    const ms = this.#now();
    this.#first ??= { step, ms };
    const made = step - this.#first.step, each = (ms - this.#first.ms) / 1000 / made;
    return { step, steps, secondsLeft: made === 0 ? null : each * (steps - step) };
  }
}

/** A terminal, as far as a bar needs it. */
export interface BarTerminal {
  readonly write: (text: string) => void;
  /** Characters of a line. */
  readonly width: () => number;
}

const CLEAR = "\r\x1b[K";

/** Milliseconds from one drawing to the next. */
const DRAW_MS = 200;

/** A bar in the last line of a terminal. What is printed meanwhile comes above it. */
export class ProgressBar implements Disposable {
  readonly #before = { log: console.log, error: console.error };
  readonly #terminal: BarTerminal;
  readonly #now: () => number;
  #text = "";
  #drawn = -Infinity;

  /** Takes the console over. */
  constructor(terminal: BarTerminal, now: () => number = () => performance.now()) {
    this.#terminal = terminal;
    this.#now = now;
    for (const name of ["log", "error"] as const) {
      const print = this.#before[name];
      console[name] = (...data) => {
        if (this.#text !== "") terminal.write(CLEAR);
        print(...data);
        if (this.#text !== "") terminal.write(this.#text);
      };
    }
  }

  /** Draws how far it is, unless that was done just now. */
  set(progress: Progress): void {
    const now = this.#now();
    if (now - this.#drawn < DRAW_MS) return;
    this.#drawn = now;
    this.#text = progressText(progress, this.#terminal.width() - 1);
    this.#terminal.write(CLEAR + this.#text);
  }

  /** Takes the bar away, and gives the console back. */
  [Symbol.dispose](): void {
    if (this.#text !== "") this.#terminal.write(CLEAR);
    Object.assign(console, this.#before);
  }
}

/** What a run will take, in a line.
 * @param asked `gflops`: speed of a large matrix product on each device, which no step is faster than. `save`: bytes of a checkpoint,
 * and how many there will be at once. */
export function takesText(
  model: TrainableModel,
  asked: {
    readonly steps: number;
    readonly tokensPerStep: number;
    readonly seqLen: number;
    readonly devices: number;
    readonly gflops: number;
    readonly arenaBytes: number;
    readonly save?: { readonly bytes: number; readonly count: number };
  },
): string {
  const { steps, devices, gflops, arenaBytes, save } = asked, tokens = steps * asked.tokensPerStep;
  const flops = model.flopsPerToken?.(asked.seqLen);
  const least = flops === undefined
    ? ""
    : `, at least ${durationText(tokens * flops / (devices * gflops * 1e9))} of steps`;
  const saves = save && `${count(save.count)} checkpoint${save.count === 1 ? "" : "s"} of ${bytesText(save.bytes)}`;
  return `${count(steps)} step${steps === 1 ? "" : "s"}, ${count(tokens)} tokens${least}, ${
    bytesText(arenaBytes)
  } of memory${devices > 1 ? " on each rank" : ""}${saves ? `, and on the disk up to ${saves}` : ""}`;
}
