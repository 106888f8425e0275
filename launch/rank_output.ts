/** What ranks print, put together for one console: whole lines, each with the rank it comes from, and of a job that failed the error
 * that began it first.
 * @module */

/** `[rank2] ` before every line of a text. */
export function prefixed(text: string, rank: number): string {
  return text.replace(/^/gm, `[rank${rank}] `);
}

/** Bytes as they come become whole lines. */
export class Lines {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /** The lines that these bytes complete. */
  add(bytes: Uint8Array): string[] {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop()!;
    return lines;
  }

  /** What is left at the end. */
  end(): string[] {
    const rest = this.#rest + this.#decoder.decode();
    this.#rest = "";
    return rest === "" ? [] : [rest];
  }
}

/** Which rank ended a job, and how. */
export interface Cause {
  readonly rank: number;
  /** Its exit code: 128 + n where signal n ended it. */
  readonly code: number;
}

/** Reads `INDEX CODE`, which a rank's end left: the cause of a job's, if it is the first that was no success.
 * @param firstRank the rank whose index is 0. */
export function causeOf(end: string, firstRank = 0): Cause | undefined {
  const [index, code] = end.split(" ").map(Number);
  return code === 0 ? undefined : { rank: firstRank + index, code };
}

const BEGINS_ERROR = /^(\[rank\d+\] )?(error: |.*\bUncaught\b)/;
/** Said by who fails because another has. */
const FOLLOWS = /cannot end: rank \d+ |this rank gave up before: /;
/** Does an error say that another rank has failed before? */
export function follows(text: string): boolean {
  return FOLLOWS.test(text);
}

/** Does an error say of another rank that it cannot speak for itself any more? */
export function isLast(text: string): boolean {
  return / has not been heard of for /.test(text);
}

/** Exit codes beyond are of processes that a signal ended. */
const SIGNALLED = 128;
/** Of an error that is told in short. */
const SHORT = 160;

/** The errors of all ranks, held back until the job has ended. */
export class Errors {
  readonly #texts = new Map<number, string[]>(); // in the order of their first lines

  /** Takes a line that a rank wrote on stderr; false if it is not about an error, and may be printed at once. */
  add(rank: number, line: string): boolean {
    if (!this.#texts.has(rank)) {
      if (!BEGINS_ERROR.test(line)) return false;
      this.#texts.set(rank, []);
    }
    this.#texts.get(rank)!.push(line.replace(`[rank${rank}] `, ""));
    return true;
  }

  /** Has any rank failed? */
  get any(): boolean {
    return this.#texts.size > 0;
  }

  /** What is to be printed of a job that failed: first the error that began it, in full, then the others, in short. */
  report(cause?: Cause): string[] {
    const texts = [...this.#texts].map(([rank, lines]) => ({ rank, text: lines.join("\n") }));
    const roots = texts.filter(({ text }) => !follows(text)), own = texts.some(({ rank }) => rank === cause?.rank);
    const unsaid = cause && !own && (cause.code > SIGNALLED || roots.length === 0);
    const root = unsaid
      ? { rank: cause.rank, text: causeText(cause) }
      : roots.find(({ rank }) => rank === cause?.rank) ?? roots[0] ?? texts[0];
    if (!root) return [];
    const others = texts.filter(({ rank }) => rank !== root.rank);
    const same = others.filter(({ text }) => text === root.text).map(({ rank }) => rank);
    return [
      prefixed(root.text, root.rank),
      ...(same.length > 0 ? [`The same on rank${same.length === 1 ? "" : "s"} ${same.join(", ")}`] : []),
      ...others.filter(({ text }) => text !== root.text).map(({ rank, text }) =>
        prefixed(`then ${inShort(text)}`, rank)
      ),
    ];
  }
}

function causeText({ code }: Cause): string {
  const signal = code - SIGNALLED;
  if (signal <= 0) return `error: this process ended with exit code ${code}, without a word   (rank_ended)`;
  const fix = signal === 9
    ? "see whether the machine ran out of memory (dmesg), if nobody killed it"
    : "look for what sent the signal; it may be a defect of libtitan";
  return `error: this process was killed by signal ${signal}\n  expected: every rank to run to its end\n  fix: ${fix}   (rank_ended)`;
}

function inShort(text: string): string {
  const [line] = text.split("\n");
  return line.length <= SHORT ? line : `${line.slice(0, SHORT)}...`;
}
