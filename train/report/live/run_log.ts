/** What a file of metrics tells a page about its run, read again and again while the file grows: numbers in columns, so that a page gets
 * few bytes of each step. @module */
import { basename } from "@std/path";

/** The tags of a training report that a page shows, in the order of a row; the step comes first. */
export const COLUMNS = {
  step: "step",
  loss: "loss_metrics/global_avg_loss",
  maxLoss: "loss_metrics/global_max_loss",
  gradNorm: "grad_norm",
  lr: "lr",
  tps: "throughput(tps)",
  stepSeconds: "time_metrics/end_to_end(s)",
  loadingPercent: "time_metrics/data_loading(%)",
  memory: "memory/max_reserved(GiB)",
  memoryPercent: "memory/max_reserved(%)",
  tokens: "n_tokens_seen",
  mfu: "mfu(%)",
  epoch: "epoch",
} as const;

/** The same of a validation. */
export const VALIDATION_COLUMNS = {
  step: "step",
  loss: "validation_metrics/loss",
  unigramEntropy: "validation_metrics/unigram_entropy",
  bitsPerByte: "validation_metrics/bits_per_byte",
} as const;

/** What is new of a run; what is absent is not. */
export interface RunUpdate {
  /** Begins the run, or goes on with it behind step `from`: later steps of before do not count. */
  readonly begin?: Readonly<Record<string, unknown>>;
  /** Rows of {@linkcode COLUMNS}. */
  readonly rows?: readonly (readonly (number | null)[])[];
  /** Rows of {@linkcode VALIDATION_COLUMNS}. */
  readonly validations?: readonly (readonly (number | null)[])[];
  /** Steps and texts. */
  readonly samples?: readonly (readonly [number, string])[];
  /** What ranks have measured at a step, a number for each of them. */
  readonly ranks?: readonly Readonly<Record<string, unknown>>[];
  /** How the run ended. */
  readonly end?: Readonly<Record<string, unknown>>;
}

/** Rows of an update, at most: so that a page draws while a long run still comes. */
const MOST_ROWS = 2000;

/** A file of metrics as it grows. */
export class RunLog {
  readonly path: string;
  /** All that the file has told so far. */
  readonly updates: RunUpdate[] = [];
  #offset = 0;
  #rest = new Uint8Array();
  #inode: number | null = null;

  constructor(path: string) {
    this.path = path;
  }

  /** How people call it. */
  get name(): string {
    return basename(this.path);
  }

  /** Reads what is new. A file that was put aside for another one of its name begins anew.
   * @returns what is new, or "anew" where {@linkcode updates} begins again. */
  read(): readonly RunUpdate[] | "anew" {
    let file: Deno.FsFile;
    try {
      file = Deno.openSync(this.path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
    using _file = file;
    const { ino, size } = file.statSync(), isAnother = this.#inode !== null && ino !== this.#inode;
    const isAnew = isAnother || size < this.#offset;
    if (isAnew) {
      [this.#offset, this.#rest] = [0, new Uint8Array()];
      this.updates.length = 0;
    }
    this.#inode = ino;
    if (size === this.#offset) return isAnew ? "anew" : [];
    const bytes = new Uint8Array(this.#rest.length + size - this.#offset);
    bytes.set(this.#rest);
    file.seekSync(this.#offset, Deno.SeekMode.Start);
    let end = this.#rest.length;
    for (let n: number | null = 1; n && end < bytes.length; end += n ?? 0) n = file.readSync(bytes.subarray(end));
    this.#offset += end - this.#rest.length;
    const whole = bytes.subarray(0, end).lastIndexOf(10) + 1; // the end of the last line that is complete
    this.#rest = bytes.slice(whole, end);
    const added = updatesOf(new TextDecoder().decode(bytes.subarray(0, whole)).split("\n"));
    this.updates.push(...added);
    return isAnew ? "anew" : added;
  }
}

/** The updates in some lines; lines that are torn or of other kinds tell nothing. */
function updatesOf(lines: readonly string[]): RunUpdate[] {
  const updates: RunUpdate[] = [];
  let open: { -readonly [K in keyof RunUpdate]: unknown[] } = {}, count = 0;
  const close = () => {
    if (count > 0) updates.push(open as RunUpdate);
    [open, count] = [{}, 0];
  };
  const add = (kind: "rows" | "validations" | "samples" | "ranks", value: unknown) => {
    (open[kind] ??= []).push(value);
    if (++count >= MOST_ROWS) close();
  };
  for (const text of lines) {
    const line = objectOf(text);
    if (!line) continue;
    if (line.run) {
      close();
      updates.push({ begin: line.run as Record<string, unknown> });
    } else if (line.end) {
      close();
      updates.push({ end: line.end as Record<string, unknown> });
    } else if (typeof line.sample === "string") add("samples", [line.step, line.sample]);
    else if (line.ranks) add("ranks", line);
    else if (VALIDATION_COLUMNS.loss in line) add("validations", rowOf(line, VALIDATION_COLUMNS));
    else if (COLUMNS.loss in line) add("rows", rowOf(line, COLUMNS));
  }
  close();
  return updates;
}

function rowOf(line: Record<string, unknown>, columns: Readonly<Record<string, string>>): (number | null)[] {
  return Object.values(columns).map((tag) => typeof line[tag] === "number" ? Number(line[tag].toPrecision(6)) : null);
}

function objectOf(text: string): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
