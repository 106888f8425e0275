/** Where one's own text lies: the files that paths, folders and patterns name. @module */
import { DataError } from "./error.ts";
import { isMissing, reading } from "./source.ts";

/** Names of the files that are taken of a folder. */
const TEXT_FILES = /\.(txt|md|jsonl)$/i;

/** Which files of a folder are taken. */
export interface Taken {
  readonly names: RegExp;
  /** The same for people. */
  readonly kinds: string;
}

/** Those of one's own text. */
const TEXTS: Taken = { names: TEXT_FILES, kinds: ".txt, .md or .jsonl" };

/** The files that paths and patterns name, each once and sorted; of a folder, those of `taken` (by default `.txt`, `.md` and `.jsonl`) in
 * it and below. In a pattern `*` and `?` stand for anything but `/`, and `**` for any folders; names that begin with a dot are left
 * out unless the pattern spells the dot.
 * @throws {DataError} when a path or a pattern names no file. */
export async function expand(patterns: readonly string[], taken: Taken = TEXTS): Promise<string[]> {
  const files = new Set<string>();
  for (const pattern of patterns) {
    const found = /[*?]/.test(pattern) ? await matches(pattern) : await named(pattern, taken.names);
    if (found.length === 0) throw nothing(pattern, taken);
    for (const file of found) files.add(file);
  }
  return [...files].sort();
}

/** The file of a path, or those of a folder. */
async function named(path: string, names: RegExp): Promise<string[]> {
  let info: Deno.FileInfo;
  try {
    info = await reading(path, () => Deno.stat(path));
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
  if (!info.isDirectory) return info.isFile ? [path] : [];
  const files = await walk(path.endsWith("/") ? path : `${path}/`, ["**"]);
  return files.filter((file) => names.test(file));
}

async function matches(pattern: string): Promise<string[]> {
  const parts = pattern.split("/");
  const fixed = parts.findIndex((part) => /[*?]/.test(part));
  return await walk(parts.slice(0, fixed).map((part) => `${part}/`).join(""), parts.slice(fixed));
}

/** The files below `folder` ("" or with a slash at its end) whose path from there fits `parts`. */
async function walk(folder: string, parts: readonly string[]): Promise<string[]> {
  const [part, ...rest] = parts;
  let entries: Deno.DirEntry[];
  try {
    entries = await reading(folder || ".", () => Array.fromAsync(Deno.readDir(folder || ".")));
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
  const files: string[] = [];
  if (part === "**") files.push(...await walk(folder, rest.length > 0 ? rest : ["*"]));
  for (const { name } of entries) {
    const path = folder + name;
    const isFolder = await isDirectory(path);
    if (part === "**") {
      if (isFolder && !name.startsWith(".")) files.push(...await walk(`${path}/`, parts));
    } else if (fits(name, part)) {
      if (rest.length === 0 && !isFolder) files.push(path);
      if (rest.length > 0 && isFolder) files.push(...await walk(`${path}/`, rest));
    }
  }
  return files;
}

/** Follows links, which entries of a folder do not; one that leads nowhere is no folder. */
async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await reading(path, () => Deno.stat(path))).isDirectory;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

function fits(name: string, part: string): boolean {
  if (name.startsWith(".") && !part.startsWith(".")) return false;
  const source = part.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${source}$`, "su").test(name);
}

/** The error of what names no file. */
export function nothing(pattern: string, { kinds }: Taken = TEXTS): DataError {
  return new DataError({
    code: "no_such_file",
    what: `Cannot find ${kinds === TEXTS.kinds ? "a text file" : "a file"} at ${JSON.stringify(pattern)}`,
    expected: `a file, a folder with ${kinds}, or a pattern such as notes/*.md or notes/**/*.txt`,
    fix: `correct the path, which is taken from ${Deno.cwd()}`,
  });
}
