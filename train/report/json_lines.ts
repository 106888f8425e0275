/**
 * Files of one JSON object per line, such as `metrics.jsonl`: written line by line while a run goes on, and read by tools.
 * A write that fails, as on a full disk, does not end the run and leaves no part of a line behind.
 * @module
 */
import { dirname } from "@std/path";

/** Lines that are kept for a later attempt while the file cannot be written: some 6 MB. */
const MOST_KEPT = 10_000;

/** What {@linkcode JsonLines} takes. */
export interface JsonLinesOptions {
  /** Receives, once each, that the file cannot be written, and that it can be again. */
  readonly warn: (text: string) => void;
}

/**
 * A file with one JSON object per line, of one run or of several after another: each begins with a line `{"run": ...}`.
 * What the file has stays. A line is with the system when {@linkcode write} returns, so a crash loses none; one that
 * could not be written is kept, and comes before the next. Numbers that are not finite are `null`, since JSON has no NaN.
 */
export class JsonLines implements Disposable {
  readonly #path: string;
  readonly #options: JsonLinesOptions;
  /** Lines that are not in the file yet. */
  readonly #kept: string[] = [];
  #lost = 0;
  #failed = false;

  /** Makes missing folders and writes the run's first line. Needs `--allow-read` and `--allow-write`.
   * @throws {Error} when the file cannot be written: a run is then not to start. */
  constructor(path: string, run: Record<string, unknown>, options: JsonLinesOptions) {
    this.#path = path;
    this.#options = options;
    Deno.mkdirSync(dirname(path), { recursive: true });
    this.#add({ run });
    this.#flush();
  }

  /** Appends a line. When that fails it says so, and the line comes with the next that can be written. */
  write(values: Record<string, unknown>): void {
    this.#add(values);
    try {
      this.#flush();
    } catch (error) {
      if (!this.#failed) this.#options.warn(`Cannot write ${this.#path}: ${(error as Error).message}; the run goes on`);
      this.#failed = true;
      return;
    }
    if (!this.#failed) return;
    const lost = this.#lost > 0 ? `, but for ${this.#lost} lines that were too many to keep` : "";
    this.#options.warn(`${this.#path} can be written again, and has all that came meanwhile${lost}`);
    [this.#failed, this.#lost] = [false, 0];
  }

  /** Writes what is kept, or says how much that is: then it is lost. */
  [Symbol.dispose](): void {
    if (this.#kept.length === 0) return;
    try {
      this.#flush();
    } catch (error) {
      const { message } = error as Error, lines = this.#kept.length + this.#lost;
      this.#options.warn(`The last ${lines} lines of ${this.#path} are lost, as it cannot be written: ${message}`);
    }
  }

  #add(values: Record<string, unknown>): void {
    this.#kept.push(JSON.stringify(values) + "\n");
    if (this.#kept.length <= MOST_KEPT) return;
    this.#kept.shift();
    this.#lost++;
  }

  /** Appends what is kept, each line whole or not at all. The file is opened anew, as it may have been moved away. */
  #flush(): void {
    using file = Deno.openSync(this.#path, { read: true, append: true, create: true });
    for (; this.#kept.length > 0; this.#kept.shift()) appendLine(file, this.#kept[0]);
  }
}

function appendLine(file: Deno.FsFile, line: string): void {
  const { size } = file.statSync();
  try {
    let bytes = new TextEncoder().encode(endsLine(file, size) ? line : `\n${line}`);
    while (bytes.length > 0) bytes = bytes.subarray(file.writeSync(bytes));
  } catch (error) {
    try {
      file.truncateSync(size);
    } catch { // the next line then completes this one
    }
    throw error;
  }
}

/** Is the file empty, or its last line complete? A crash of the machine may have left a part of one. */
function endsLine(file: Deno.FsFile, size: number): boolean {
  if (size === 0) return true;
  const last = new Uint8Array(1);
  file.seekSync(size - 1, Deno.SeekMode.Start);
  return file.readSync(last) === 1 && last[0] === 10;
}

/** The objects of a file of JSON lines. Lines that hold none are left out, which one warning says.
 * @param text of the file. @param name of the file, for people. @param warn receives the warning. */
export function parseJsonLines(
  text: string,
  name: string,
  warn: (text: string) => void = console.error,
): Record<string, unknown>[] {
  const objects: Record<string, unknown>[] = [], broken: number[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    const value = objectOf(line);
    if (value) objects.push(value);
    else broken.push(i + 1);
  });
  if (broken.length > 0) {
    const more = broken.length > 1 ? ` (nor ${broken.length - 1} more, the last at ${broken.at(-1)})` : "";
    warn(`warning: ${name}:${broken[0]} is no line of JSON and is left out${more}`);
  }
  return objects;
}

function objectOf(line: string): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
