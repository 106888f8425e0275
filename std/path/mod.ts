/** Stand-in for `@std/path` over Node's own. @module */
import { posix } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** Joins the parts with `/` and removes `.` and `..`. */
export const join: (...parts: string[]) => string = posix.join;
/** Makes an absolute path, from the working directory where no part is absolute. */
export const resolve: (...parts: string[]) => string = posix.resolve;
/** Removes `.`, `..` and doubled slashes. */
export const normalize: (path: string) => string = posix.normalize;
/** The path that leads from one folder to another path. */
export const relative: (from: string, to: string) => string = posix.relative;
/** The folder of a path. */
export const dirname: (path: string) => string = posix.dirname;
/** The last part of a path, without `suffix` where given. */
export const basename: (path: string, suffix?: string) => string = posix.basename;
/** The extension of a path with its dot, or "". */
export const extname: (path: string) => string = posix.extname;
/** Whether a path starts at the root. */
export const isAbsolute: (path: string) => boolean = posix.isAbsolute;

/** The path of a `file:` URL. */
export function fromFileUrl(url: string | URL): string {
  return fileURLToPath(url);
}

/** The `file:` URL of an absolute path. */
export function toFileUrl(path: string): URL {
  return pathToFileURL(path);
}
