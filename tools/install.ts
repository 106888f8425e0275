/**
 * Makes this machine ready for a package that comes from a server or from npm: builds the native library from the package's own sources in a folder of
 * the user's cache, where `ffi/library.ts` finds it, and writes nothing elsewhere. A program's first use runs this file, which installs
 * nothing; the command `setup` runs it too, and may. In a checkout that command does what `deno task setup` does.
 * @module
 */
import { COMMAND, IS_CHECKOUT, PROCESSOR, userFolder } from "../ffi/library.ts";
import { NATIVE_SOURCES } from "../ffi/native_sources.ts";
import { processorFeatures } from "../ffi/processor.ts";
import { BUILD, TREE } from "./build.ts";
import { isUnwritable } from "./keep_deno.ts";
import { StepError } from "./run_step.ts";
import { messageOf, setup, setupOptions } from "./setup.ts";

const USAGE = "Usage: setup [--again] [--mpi] [--gloo] [--cuda]\n" +
  "  builds the native library for this machine, where that has not been done; --again looks anew at what is installed,\n" +
  "  --mpi and --gloo also make ready for runs of several processes\n" +
  "  --cuda also builds the module for NVIDIA's GPUs, by their toolkit";

/** Builds the sources at an address. What changes from one version of the package to the next is in the folder's name.
 * @throws {StepError} that says what is missing, or failed. */
export async function install(address: URL, args: readonly string[], mayInstall: boolean): Promise<void> {
  const folder = userFolder();
  if (folder === undefined) {
    const expected = "the variable HOME or XDG_CACHE_HOME";
    throw new StepError(`There is no place to build libtitan in\n  expected: ${expected}\n  fix: set XDG_CACHE_HOME`);
  }
  try {
    Deno.mkdirSync(folder, { recursive: true });
    using lock = Deno.openSync(`${folder}/.lock`, { write: true, create: true });
    lock.lockSync(true); // programs that start together fetch and build once
    await Promise.all(NATIVE_SOURCES.map((path) => fetchSource(new URL(path, address), `${folder}/${path}`)));
    Deno.chdir(folder);
    await setup({ ...setupOptions(args), mayInstall, anew: `${COMMAND} setup --again` });
    const features = Deno.env.get("TITAN_LEVELS") === "native" ? processorFeatures() : undefined;
    if (features !== undefined) Deno.writeTextFileSync(`${BUILD}/${PROCESSOR}`, features);
    else await Deno.remove(`${BUILD}/${PROCESSOR}`).catch(() => {});
    // What CMake leaves is many times the library, and this version is not built again.
    await Deno.remove(TREE, { recursive: true }).catch(() => {});
  } catch (error) {
    if (error instanceof StepError && error.message.includes("No space left on device")) {
      const expected = "room for 400 MB while it is built, of which 10 MB stay",
        fix = "make room, or set XDG_CACHE_HOME to another folder";
      const what = `${error.message}\nCannot build libtitan in ${folder}: its disk is full`;
      throw new StepError(`${what}\n  expected: ${expected}\n  fix: ${fix}`);
    }
    if (!isUnwritable(error)) throw error;
    const expected = "a cache that this user may write to";
    const fix = "set XDG_CACHE_HOME to a folder that takes files, or TITAN_LIB to the path of a library";
    throw new StepError(`Cannot build libtitan in ${folder}: ${error.message}\n  expected: ${expected}\n  fix: ${fix}`);
  }
}

async function fetchSource(url: URL, path: string): Promise<void> {
  const bytes = await fetch(url).then(async (response) => {
    if (response.ok) return await response.bytes();
    await response.body?.cancel();
    throw new Error(`its server answers ${response.status}`);
  }).catch((error: Error) => {
    const expected = "a native source of this package", fix = "try again, or set TITAN_LIB to the path of a library";
    throw new StepError(`Cannot fetch ${url}: ${error.message}\n  expected: ${expected}\n  fix: ${fix}`);
  });
  Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  Deno.writeFileSync(path, bytes);
}

/** The command `setup`.
 * @returns the exit code. */
export async function run(args: readonly string[], mayInstall = true): Promise<number> {
  const unknown = args.find((arg) => !["--again", "--mpi", "--gloo", "--cuda"].includes(arg));
  const root = new URL("../", import.meta.url);
  if (unknown !== undefined) {
    const isHelp = unknown === "--help", what = `setup has no ${unknown}`;
    if (isHelp) console.log(USAGE);
    else {console.error(
        `error: ${what}\n  expected: --again, --mpi, --gloo, --cuda\n  fix: write one of them\n\n${USAGE}`,
      );}
    return isHelp ? 0 : 1;
  }
  try {
    if (IS_CHECKOUT) {
      Deno.chdir(root);
      await setup({ ...setupOptions(args), mayInstall });
    } else {
      await install(root, args, mayInstall);
    }
    return 0;
  } catch (error) {
    const message = messageOf(error);
    if (message === undefined) throw error;
    console.error(message);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await run(Deno.args, false));
