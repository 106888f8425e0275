/** Finds and opens the native library: on first use, never at import. `--allow-ffi=FILE` is all it needs.
 * @module */
import { VERSION } from "./native_sources.ts";
import { processorFeatures } from "./processor.ts";
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

/** The native library, opened at the first call and kept. Where the package comes from a server and this machine has no library yet, the
 * first call builds one into the user's cache, if the program may run commands.
 * @throws {LibraryError} if there is none, or only one of another version. */
export function library(): Library {
  return opened ??= openOrBuild();
}

function openOrBuild(): Library {
  const places = candidates(), isAsked = places.length === 1; // TITAN_LIB names one
  if (!isAsked && mayBuild()) buildWhereNeeded(`${userFolder()}/build`);
  return openFirst(places);
}

/** Builds where there is nothing yet, for this processor alone, which takes half the time; and where another machine that has the same
 * cache built for its own processor, for all. */
function buildWhereNeeded(folder: string): void {
  const features = processorFeatures(), built = textOf(`${folder}/${PROCESSOR}`);
  if (!has(`${folder}/${FILE}`)) {
    console.error(`libtitan has no native library for this machine yet: it builds one, once, in ${folder}`);
    if (build(features === undefined ? "" : "native")) return;
    const expected = "what that message expects";
    const fix = `what it says; then this program, or \`${COMMAND} setup\`, builds`;
    const what = "The native library libtitan could not be built: a message above says why";
    throw new LibraryError(`${what}\n  expected: ${expected}\n  fix: ${fix}`);
  }
  if (features === undefined || built === undefined || built === features) return;
  console.error(`The native library in ${folder} was built for another processor: libtitan builds it anew, for all`);
  if (!build("")) console.error("warning: the library for another processor is used, which may be slower on this one");
}

/** The file beside a library that says for which processor alone it was built. */
export const PROCESSOR = ".processor";
const FILE = `libtitan.${Deno.build.os === "darwin" ? "dylib" : "so"}`;
/** Where this package lies: a checkout, a server, npm's folder, or in a program that `deno compile` made. */
const PACKAGE = new URL("../", import.meta.url);
/** The package for npm is JavaScript. */
const isOfNpm = import.meta.url.endsWith(".js");
/** Is this a checkout, which has its library in a folder of its own? */
export const IS_CHECKOUT: boolean = PACKAGE.protocol === "file:" && !isOfNpm;
/** How the command line is called where this is no checkout. */
export const COMMAND: string = isOfNpm ? "npx titan" : `deno run -A ${PACKAGE}mod.ts`;

/** Where to look, in order. A TITAN_LIB that is set is the only place: what it names is used or refused.
 * @param isCompiled is this a program that `deno compile` made? */
export function candidates(isCompiled: boolean = Deno.build.standalone): Candidate[] {
  const name = "TITAN_LIB", path = variable(name);
  if (path) return [{ name, path }];
  const isReadable = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  const asked = { name, reason: isReadable ? "not set" : "not looked at, for want of --allow-env=TITAN_LIB" };
  if (isCompiled) return [asked, { ...inCheckout(), name: "this program itself" }, besideProgram(), inUserCache()];
  return [asked, IS_CHECKOUT ? inCheckout() : inUserCache()];
}

function inCheckout(): Candidate {
  return { name: "the checkout's build folder", path: decodeURIComponent(new URL(`build/${FILE}`, PACKAGE).pathname) };
}

function besideProgram(): Candidate {
  return { name: "the folder of this program", path: Deno.execPath().replace(/[^/]*$/, FILE) };
}

function inUserCache(): Candidate {
  const name = "the user's cache", folder = userFolder();
  if (folder !== undefined) return { name, path: `${folder}/build/${FILE}` };
  return { name, reason: "none is known, for want of --allow-env=XDG_CACHE_HOME,HOME or of such a variable" };
}

/** The folder of the user's cache for a library of this package's version and for this kind of machine; undefined where the environment
 * names no cache. */
export function userFolder(): string | undefined {
  const home = variable("HOME"), cache = variable("XDG_CACHE_HOME") || (home && `${home}/.cache`);
  return cache ? `${cache}/libtitan/${VERSION}-abi${ABI_VERSION}-${Deno.build.os}-${Deno.build.arch}` : undefined;
}

function variable(name: string): string | undefined {
  const isReadable = Deno.permissions.querySync({ name: "env", variable: name }).state === "granted";
  return isReadable ? Deno.env.get(name) : undefined;
}

function has(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function textOf(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}

/** May this program build a library? A checkout's is built by its tasks. */
function mayBuild(): boolean {
  const mayRun = () => Deno.permissions.querySync({ name: "run", command: Deno.execPath() }).state === "granted";
  return !IS_CHECKOUT && !Deno.build.standalone && userFolder() !== undefined && mayRun();
}

/** Another process builds: this one waits, and what that one prints is seen.
 * @param levels of processors, where the environment names none; all where it is empty. @returns whether it did. */
function build(levels: string): boolean {
  const args = ["run", "--quiet", "--no-config", "--no-lock", "-A", new URL("tools/install.ts", PACKAGE).href];
  const env = { TITAN_LEVELS: variable("TITAN_LEVELS") || levels };
  const options = { args, env, stdin: "null", stdout: "null", stderr: "inherit" } as const;
  return new Deno.Command(Deno.execPath(), options).outputSync().success;
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
      `  fix: ${howToGet()}, or set TITAN_LIB to the library's path and run with \`--allow-env=TITAN_LIB --allow-ffi=PATH\`` +
      (IS_CHECKOUT ? " (`deno task train` allows build/ only)" : ""),
    ].join("\n"),
  );
}

function howToGet(): string {
  if (Deno.build.standalone) {
    return `compile with \`--include build/${FILE}\` of a checkout, or put that file beside the program`;
  }
  if (IS_CHECKOUT) return "run `deno task build` in a checkout";
  return userFolder() === undefined
    ? "set XDG_CACHE_HOME to a folder for the library that is then built"
    : `run \`${COMMAND} setup\``;
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
