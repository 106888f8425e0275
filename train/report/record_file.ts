/**
 * Files that grow record by record while a run goes on. A write that fails, as on a full disk, does not end the run and
 * leaves no part of a record behind.
 * @module
 */
import { dirname } from "@std/path";

/** Records that are kept for a later attempt while the file cannot be written: some 6 MB. */
const MOST_KEPT = 10_000;

/** What {@linkcode RecordFile} takes. */
export interface RecordFileOptions {
  /** What people call the records: "lines". */
  readonly unit: string;
  /** What has to stand before the next record, seen by the file's end. */
  readonly before: (file: Deno.FsFile, size: number) => Uint8Array;
  /** Receives, once each, that the file cannot be written, and that it can be again. */
  readonly warn: (text: string) => void;
}

/**
 * A file to which records are appended, each whole or not at all. What the file has stays. A record is with the system
 * when {@linkcode write} returns, so a crash loses none; one that could not be written is kept, and comes before the next.
 */
export class RecordFile implements Disposable {
  readonly #path: string;
  readonly #options: RecordFileOptions;
  /** Records that are not in the file yet. */
  readonly #kept: Uint8Array[] = [];
  #lost = 0;
  #failed = false;

  /** Makes missing folders and writes the first record. Needs `--allow-read` and `--allow-write`.
   * @throws {Error} when the file cannot be written: a run is then not to start. */
  constructor(path: string, first: Uint8Array, options: RecordFileOptions) {
    this.#path = path;
    this.#options = options;
    Deno.mkdirSync(dirname(path), { recursive: true });
    this.#add(first);
    this.#flush();
  }

  /** Appends a record. When that fails it says so, and the record comes with the next that can be written. */
  write(record: Uint8Array): void {
    const { unit, warn } = this.#options;
    this.#add(record);
    try {
      this.#flush();
    } catch (error) {
      if (!this.#failed) warn(`Cannot write ${this.#path}: ${(error as Error).message}; the run goes on`);
      this.#failed = true;
      return;
    }
    if (!this.#failed) return;
    const lost = this.#lost > 0 ? `, but for ${this.#lost} ${unit} that were too many to keep` : "";
    warn(`${this.#path} can be written again, and has all that came meanwhile${lost}`);
    [this.#failed, this.#lost] = [false, 0];
  }

  /** Writes what is kept, or says how much that is: then it is lost. */
  [Symbol.dispose](): void {
    if (this.#kept.length === 0) return;
    const { unit, warn } = this.#options;
    try {
      this.#flush();
    } catch (error) {
      const { message } = error as Error, count = this.#kept.length + this.#lost;
      warn(`The last ${count} ${unit} of ${this.#path} are lost, as it cannot be written: ${message}`);
    }
  }

  #add(record: Uint8Array): void {
    this.#kept.push(record);
    if (this.#kept.length <= MOST_KEPT) return;
    this.#kept.shift();
    this.#lost++;
  }

  /** Appends what is kept. The file is opened anew, as it may have been moved away. */
  #flush(): void {
    using file = Deno.openSync(this.#path, { read: true, append: true, create: true });
    for (; this.#kept.length > 0; this.#kept.shift()) this.#append(file, this.#kept[0]);
  }

  #append(file: Deno.FsFile, record: Uint8Array): void {
    const { size } = file.statSync();
    try {
      for (const part of [this.#options.before(file, size), record]) {
        for (let rest = part; rest.length > 0;) rest = rest.subarray(file.writeSync(rest));
      }
    } catch (error) {
      try {
        file.truncateSync(size);
      } catch { // a part of the record stays
      }
      throw error;
    }
  }
}
