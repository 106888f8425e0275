/**
 * Files of one JSON object per line, such as `metrics.jsonl`: written line by line while a run goes on, and read by tools.
 * @module
 */
import { RecordFile } from "./record_file.ts";

/** What {@linkcode JsonLines} takes. */
export interface JsonLinesOptions {
  /** Receives, once each, that the file cannot be written, and that it can be again. */
  readonly warn: (text: string) => void;
}

/**
 * A file with one JSON object per line, of one run or of several after another: each begins with a line `{"run": ...}`.
 * Lines are written as {@linkcode RecordFile} does it. Numbers that are not finite are `null`, since JSON has no NaN.
 */
export class JsonLines implements Disposable {
  readonly #file: RecordFile;

  /** Makes missing folders and writes the run's first line. Needs `--allow-read` and `--allow-write`.
   * @throws {Error} when the file cannot be written: a run is then not to start. */
  constructor(path: string, run: Record<string, unknown>, { warn }: JsonLinesOptions) {
    this.#file = new RecordFile(path, lineOf({ run }), { unit: "lines", before: endOfTornLine, warn });
  }

  /** Appends a line. When that fails it says so, and the line comes with the next that can be written. */
  write(values: Record<string, unknown>): void {
    this.#file.write(lineOf(values));
  }

  /** Writes what is kept, or says how much that is: then it is lost. */
  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function lineOf(values: Record<string, unknown>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(values) + "\n");
}

/** What ends the file's last line, of which a crash of the machine may have left a part. */
function endOfTornLine(file: Deno.FsFile, size: number): Uint8Array {
  if (size === 0) return new Uint8Array();
  const last = new Uint8Array(1);
  file.seekSync(size - 1, Deno.SeekMode.Start);
  return file.readSync(last) === 1 && last[0] === 10 ? new Uint8Array() : Uint8Array.of(10);
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
