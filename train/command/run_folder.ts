/**
 * The dump folder of a run: one run at a time writes into it, and what an earlier run left there stays.
 * @module
 */
import type { Config } from "../config/config.ts";
import { basename, dirname, extname, join, resolve } from "@std/path";
import { mkdirSync } from "node:fs";
import { ConfigError } from "../config/config.ts";

/** Who holds a folder, as its lock file says. */
interface Holder {
  readonly pid: number;
  readonly host?: string;
  readonly since: string;
}

const LOCK = "run.lock";

/** A dump folder that no other run writes into until it is disposed of. The operating system holds the lock for this process, so it
 * ends with the process, however that ends. */
export class RunFolder implements Disposable {
  readonly path: string;
  readonly #lock: Deno.FsFile;
  /** The first folder that was made for it. */
  readonly #made: string | undefined;

  private constructor(path: string, lock: Deno.FsFile, made: string | undefined) {
    this.path = path;
    this.#lock = lock;
    this.#made = made;
  }

  /** Makes the folder where it is missing, and locks it.
   * @param warn receives that the file system has no locks.
   * @throws {ConfigError} when it cannot be written, or another run has it. */
  static open(path: string, warn: (text: string) => void): RunFolder {
    let made: string | undefined;
    try {
      if (statOf(path)?.isFile) throw new Error("it is a file");
      made = mkdirSync(path, { recursive: true });
      const lock = openLocked(join(path, LOCK), warn);
      if (lock) return new RunFolder(path, lock, made);
    } catch (error) {
      throw new ConfigError([{
        code: "cannot_write",
        what: `Cannot write into the dump folder ${path}: ${(error as Error).message}`,
        expected: "a folder that can be written to, or a place for one",
        fix: "set job.dump_folder to another",
      }]);
    }
    throw inUse(path);
  }

  /** Makes way for a file or folder of this run: what an earlier run has left under its name gets a number, the latest the highest.
   * @returns where that is now, if there was anything. */
  keepEarlier(name: string): string | undefined {
    const path = join(this.path, name);
    if (isEmpty(path)) return undefined;
    const folder = dirname(path), end = extname(path), start = basename(path, end);
    const numbers = [...Deno.readDirSync(folder)].map(({ name }) =>
      name.startsWith(`${start}.`) && name.endsWith(end) ? name.slice(start.length + 1, name.length - end.length) : ""
    ).filter((number) => /^\d+$/.test(number)).map(Number);
    const kept = join(folder, `${start}.${Math.max(0, ...numbers) + 1}${end}`);
    Deno.renameSync(path, kept);
    return kept;
  }

  /** Lets others have the folder; where this run has made it and left nothing, there is none again. */
  [Symbol.dispose](): void {
    try {
      Deno.removeSync(join(this.path, LOCK));
      if (this.#made === undefined) return;
      for (let path = resolve(this.path); path.length >= this.#made.length; path = dirname(path)) Deno.removeSync(path);
    } catch { // it has files, or is gone
    } finally {
      this.#lock.close();
    }
  }
}

/** The lock file, locked and with this process's name; undefined where another process has it. */
function openLocked(path: string, warn: (text: string) => void): Deno.FsFile | undefined {
  for (;;) {
    const file = Deno.openSync(path, { read: true, write: true, create: true });
    try {
      if (!tryLock(file, warn)) {
        file.close();
        return undefined;
      }
      // Whoever had it may have removed the file between the two calls: then it is another one by now.
      if (statOf(path)?.ino === file.statSync().ino) {
        const holder: Holder = { pid: Deno.pid, host: hostName(), since: new Date().toISOString() };
        file.truncateSync();
        file.writeSync(new TextEncoder().encode(`${JSON.stringify(holder)}\n`));
        return file;
      }
      file.close();
    } catch (error) {
      file.close();
      throw error;
    }
  }
}

function tryLock(file: Deno.FsFile, warn: (text: string) => void): boolean {
  try {
    return file.tryLockSync(true);
  } catch (error) {
    warn(`The dump folder cannot be locked (${(error as Error).message}): see to it that no other run writes there`);
    return true;
  }
}

function inUse(path: string): ConfigError {
  let by = "";
  try {
    const { pid, host, since }: Holder = JSON.parse(Deno.readTextFileSync(join(path, LOCK)));
    by = `: process ${pid}${host === undefined ? "" : ` on ${host}`}, since ${since}`;
  } catch { // it has not written its name yet, or is gone by now
  }
  return new ConfigError([{
    code: "folder_in_use",
    what: `Another run writes into the dump folder ${path}${by}`,
    expected: "one run in a folder at a time",
    fix: `give this one a folder of its own, such as --job.dump_folder ${join(path, "NAME")}, or stop the other`,
  }]);
}

/** Is there nothing to lose: no file, an empty one, an empty folder, or a device? */
function isEmpty(path: string): boolean {
  const found = statOf(path);
  if (found?.isDirectory) return Deno.readDirSync(path)[Symbol.iterator]().next().done === true;
  return !found?.isFile || found.size === 0;
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined;
  }
}

/** The name of this host, as far as this process may know it. */
function hostName(): string | undefined {
  if (Deno.permissions.querySync({ name: "sys", kind: "hostname" }).state === "granted") return Deno.hostname();
  try {
    return Deno.readTextFileSync("/etc/hostname").trim();
  } catch {
    return undefined;
  }
}

/** Prints what is worth a word and ends nothing. */
export const warn = (text: string): void => console.log(`warning: ${text}`);

/** The folder of a run that writes into one. */
export function openFolder({ job, metrics, profiling, checkpoint }: Config): RunFolder | undefined {
  const writes = metrics.jsonl_file !== "" || job.save_config_file !== null || metrics.enable_tensorboard ||
    profiling.enable_profiling ||
    checkpoint.enable;
  if (!writes) return undefined;
  return RunFolder.open(job.dump_folder, warn);
}
