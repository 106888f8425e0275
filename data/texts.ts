/** Plain text files of one's own: every file is a document. @module */
import { DataError } from "./error.ts";
import type { Document, Take } from "./c4.ts";
import { isMissing, reading } from "./source.ts";

const decoder = new TextDecoder("utf-8", { fatal: true });

/** Reads files as documents, in order.
 * @throws {DataError} when a file is missing or is not UTF-8. */
export async function* readTexts(files: readonly string[], take: Take): AsyncGenerator<Document, void> {
  for (let index = take.offset; index < files.length; index += take.every) {
    if (index >= take.from) yield { index, text: await readText(files[index]) };
  }
}

async function readText(file: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await reading(file, () => Deno.readFile(file));
  } catch (error) {
    if (isMissing(error)) throw nothing(file);
    throw error;
  }
  try {
    return decoder.decode(bytes);
  } catch {
    throw new DataError({
      code: "bad_document",
      what: `Cannot read ${file}: it is not UTF-8`,
      expected: "plain text",
      fix: "leave the file out, or convert it",
    });
  }
}

/** The files that paths and patterns name, each once and sorted. In a pattern `*` and `?` stand for anything but `/`,
 * and `**` for any folders; names that begin with a dot are left out unless the pattern spells the dot.
 * @throws {DataError} when a path or a pattern names no file. */
export async function expand(patterns: readonly string[]): Promise<string[]> {
  const files = new Set<string>();
  for (const pattern of patterns) {
    const found = /[*?]/.test(pattern) ? await matches(pattern) : await isFile(pattern) ? [pattern] : [];
    if (found.length === 0) throw nothing(pattern);
    for (const file of found) files.add(file);
  }
  return [...files].sort();
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await reading(path, () => Deno.stat(path))).isFile;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
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

function nothing(pattern: string): DataError {
  return new DataError({
    code: "no_such_file",
    what: `Cannot find a text file at ${JSON.stringify(pattern)}`,
    expected: "the path of a file, or a pattern such as notes/*.md or notes/**/*.txt",
    fix: `correct the path, which is taken from ${Deno.cwd()}`,
  });
}
