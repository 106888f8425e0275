/**
 * Keeps a cache within a size: before a file is brought, those that were not read for the longest time go, but none that
 * somebody reads. It works on a folder that libtitan has for itself, and says so there.
 * @module
 */
import { dirname, join } from "@std/path";
import { DataError } from "../error.ts";
import { isMissing } from "../source.ts";
import { isFile, removeIfThere, replace, takeLock } from "./cache.ts";

/** Tells a folder that libtitan may remove files from. */
const MARK = "libtitan-cache.txt";
const MARK_TEXT =
  "libtitan keeps files of the hub here that it streams, and removes the oldest when the folder is full.\n";

/** A content in the cache. */
interface Content {
  readonly path: string;
  /** What it takes, or will take once it is whole. */
  readonly bytes: number;
  /** Milliseconds. */
  readonly lastRead: number;
}

/** Sees to it that a folder is one to remove files from: one that libtitan has made, or an empty one.
 * @throws {DataError} when it holds something else. */
export async function claim(folder: string): Promise<void> {
  if (await isFile(join(folder, MARK))) return;
  try {
    await Deno.mkdir(folder, { recursive: true });
    for await (const { name } of Deno.readDir(folder)) {
      if (name.startsWith(MARK)) continue; // another rank is about to claim it
      throw new DataError({
        code: "bad_option",
        what: `Cannot keep streamed files in ${folder}: it holds ${name}, which libtitan has not put there`,
        expected: "an empty folder, or one that libtitan has made, as it removes files from it",
        fix: "name another folder: data.cache_dir",
      });
    }
    await replace(join(folder, MARK), (path) => Deno.writeTextFile(path, MARK_TEXT));
  } catch (error) {
    // Two ranks that claim it at once see each other's files.
    if (error instanceof DataError && await isFile(join(folder, MARK))) return;
    throw error;
  }
}

/** Says that a content is read, as long as the file is open, and that it was read now.
 * @param path it was opened by. */
export async function reading(file: Deno.FsFile): Promise<void> {
  await file.lock(false);
  await file.utime(new Date(), new Date()).catch(() => {}); // a cache that one may only read has no order to keep
}

/** Makes room for a content that is to be filled, and keeps it until it is disposed of.
 * @param path of what is incomplete.
 * @param limit bytes that all contents may take.
 * @throws {DataError} when too much of the cache is being read. */
export async function makeRoom(folder: string, path: string, bytes: number, limit: number): Promise<AsyncDisposable> {
  await using _lock = await takeLock(join(folder, ".locks", "room.lock"), { wait: true });
  const others = (await contents(folder)).filter((content) => content.path !== path);
  let taken = others.reduce((sum, content) => sum + content.bytes, bytes);
  for (const content of others.sort((a, b) => a.lastRead - b.lastRead)) {
    if (taken <= limit) break;
    if (await removed(content.path)) taken -= content.bytes;
  }
  if (taken > limit) throw full(folder, bytes, taken - bytes, limit);
  await Deno.mkdir(dirname(path), { recursive: true });
  await Deno.writeTextFile(sizeFile(path), String(bytes));
  const file = await Deno.open(path, { create: true, read: true, write: true });
  await reading(file);
  return {
    async [Symbol.asyncDispose]() {
      file.close();
      if (!await isFile(path)) await removeIfThere(sizeFile(path)); // it is whole, or was wrong
    },
  };
}

/** Where the size is written that an incomplete content will have. */
function sizeFile(path: string): string {
  return path.replace(/\.incomplete$/, ".size");
}

/** All contents of a cache. */
async function contents(folder: string): Promise<Content[]> {
  const found: Content[] = [];
  for (const repository of await namesIn(folder)) {
    const blobs = join(folder, repository, "blobs");
    for (const name of await namesIn(blobs)) {
      if (name.endsWith(".size")) continue;
      const path = join(blobs, name);
      try {
        const { size, mtime } = await Deno.lstat(path);
        const bytes = name.endsWith(".incomplete") ? Math.max(size, await sizeOf(path)) : size;
        found.push({ path, bytes, lastRead: mtime?.getTime() ?? 0 });
      } catch (error) {
        if (!isMissing(error)) throw error; // it got its name, or went, meanwhile
      }
    }
  }
  return found;
}

async function sizeOf(path: string): Promise<number> {
  try {
    return Number(await Deno.readTextFile(sizeFile(path)));
  } catch (error) {
    if (isMissing(error)) return 0;
    throw error;
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

/** Removes a content unless somebody reads or fills it. Names that led to it lead nowhere then, until it comes again. */
async function removed(path: string): Promise<boolean> {
  try {
    using file = await Deno.open(path, { read: true, write: true });
    if (!await file.tryLock(true)) return false;
    await Deno.remove(path);
    if (path.endsWith(".incomplete")) await removeIfThere(sizeFile(path));
  } catch (error) {
    if (!isMissing(error)) throw error; // another was faster
  }
  return true;
}

function full(folder: string, bytes: number, used: number, limit: number): DataError {
  const gb = (n: number) => `${(n / 1e9).toPrecision(3)} GB`;
  return new DataError({
    code: "cache_full",
    what: `There is no room for a file of ${gb(bytes)} in ${folder}: of ${gb(limit)}, ${gb(used)} are being read`,
    expected: "room for all files that the ranks of this host read at once",
    fix: `set data.cache_size to at least "${Math.ceil((used + bytes) / 1e9)}GB", or lower data.lanes`,
  });
}
