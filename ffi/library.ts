/** Finds and opens the native library: on first use, never at import. `--allow-ffi=FILE` is all it needs.
 * @module */
import { ABI_VERSION, symbols } from "./symbols.ts";

/** The native functions. */
export type Symbols = Deno.DynamicLibrary<typeof symbols>["symbols"];

/** The opened library. */
export interface Library {
  /** Where it lies. */
  readonly path: string;
  /** Its own version, `"0.1.0"`. */
  readonly version: string;
  /** Its functions. */
  readonly symbols: Symbols;
}

/** Somewhere the library may be: a path, or why there is none. */
export interface Candidate {
  /** What the message calls it. */
  readonly name: string;
  /** Path of a library, which may not be there. */
  readonly path?: string;
  /** Why there is no path. */
  readonly reason?: string;
}

/** No candidate is a library that can be used; the message lists each and why. */
export class LibraryError extends Error {
  /** Tells it from other errors. */
  override readonly name = "LibraryError";
}

let opened: Library | undefined;

/** The native library, opened at the first call and kept.
 * @throws {LibraryError} if there is none, or only one of another version. */
export function library(): Library {
  return opened ??= openFirst(candidates());
}

/** Where to look, in order. A TITAN_LIB that is set is the only place: what it names is used or refused. */
export function candidates(): Candidate[] {
  const name = "TITAN_LIB";
  const readable = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  const path = readable ? Deno.env.get(name) : undefined;
  if (path) return [{ name, path }];
  return [{ name, reason: readable ? "not set" : "not looked at, for want of --allow-env=TITAN_LIB" }, checkout()];
}

function checkout(): Candidate {
  const name = "the checkout's build folder";
  const url = new URL(`../build/libtitan.${Deno.build.os === "darwin" ? "dylib" : "so"}`, import.meta.url);
  if (url.protocol !== "file:") return { name, reason: `none, this module comes from ${url.origin}` };
  return { name, path: decodeURIComponent(url.pathname) };
}

/** Opens the library at the first place that has one.
 * @throws {LibraryError} that lists every place and why it is not used. */
export function openFirst(candidates: readonly Candidate[]): Library {
  const reasons: string[] = [];
  for (const { name, path, reason } of candidates) {
    if (path === undefined) {
      reasons.push(`${name}: ${reason}`);
      continue;
    }
    try {
      return open(path);
    } catch (error) {
      reasons.push(`${name}, ${path}: ${error instanceof Error ? error.message.trim() : error}`);
    }
  }
  throw new LibraryError(
    [
      "Cannot open the native library libtitan",
      ...reasons.map((reason) => `  - ${reason}`),
      `  expected: a library with ABI version ${ABI_VERSION} at one of these places`,
      "  fix: run `deno task build` in a checkout, or set TITAN_LIB to the library's path and run with " +
      "`--allow-env=TITAN_LIB --allow-ffi=PATH` (`deno task train` allows build/ only)",
    ].join("\n"),
  );
}

function open(path: string): Library {
  checkVersion(path);
  const { symbols: functions } = Deno.dlopen(path, symbols);
  const text = new Uint8Array(64);
  functions.titan_version(text, BigInt(text.length));
  return { path, version: new TextDecoder().decode(text.subarray(0, text.indexOf(0))), symbols: functions };
}

/** Asks for the version alone first: a library of another version may lack the other functions. */
function checkVersion(path: string): void {
  const { titan_abi_version } = symbols;
  const probe = Deno.dlopen(path, { titan_abi_version });
  const version = probe.symbols.titan_abi_version();
  probe.close();
  if (version !== ABI_VERSION) {
    throw new Error(`it is of another version: its ABI version is ${version}, this package's is ${ABI_VERSION}`);
  }
}
