/**
 * Configures and builds the native library with CMake in a folder of its own, and puts what comes out into `build/`, whole: ranks that
 * run keep the file that they opened, and a build that is interrupted leaves what was there. A stamp says what it was built from, so
 * that the next call can tell in a few milliseconds that there is nothing to do.
 * @module
 */
import { createHash } from "node:crypto";
import { type Facts, findCompilerProblem } from "./setup_plan.ts";
import { runStep, StepError } from "./run_step.ts";

/** Where things are; paths are relative to the repository root. */
export const BUILD = "build";
/** Where CMake works. */
export const TREE = `${BUILD}/cmake`;
const SOURCE = "csrc";
const STAMP = `${BUILD}/.stamp`;
/** What CMake's folder was made with. */
const TOOLS = `${TREE}/.tools`;
/** There while a build is under way, and after one that did not end. */
const UNFINISHED = `${TREE}/.unfinished`;
const LIBRARY = `libtitan.${Deno.build.os === "darwin" ? "dylib" : "so"}`;
/** Modules: of communication, each built where what it stands on is found, and of GPUs, built where it is asked for. */
export const MODULES = ["mpi", "gloo", "cuda"] as const;
type ModuleName = typeof MODULES[number];
const moduleFile = (name: ModuleName) => `libtitan_${name}.so`;

/** What a library follows from: the text of every native source file, where it can run, and the libraries that it was linked to.
 * Which compiler made it is no part of that, so a host without one can use it too. */
export interface Stamp {
  sources: string;
  platform: string;
  blas?: string;
  mpi?: string;
  gloo?: string;
  cuda?: string;
  /** Processor levels, by the variable TITAN_LEVELS; all where it is not set. */
  levels?: string;
}

/** How a library that lies there stands to the sources and this machine: it is what a build would give, or as good for a run, but
 * linked to another BLAS or MPI than this machine has, or of other sources, or there is none. */
export type State = "current" | "usable" | "stale";

/** The stamp of the sources and the machine as they are now. */
export function currentStamp({ blas, mpi, gloo, cuda }: Facts, source = SOURCE): Stamp {
  const hash = createHash("sha256");
  for (const path of nativeSources(source)) hash.update(path).update("\0").update(Deno.readFileSync(path)).update("\0");
  const real = (path?: string) => path && Deno.realPathSync(path);
  const platform = `${Deno.build.os} ${Deno.build.arch}`, levels = Deno.env.get("TITAN_LEVELS") || undefined;
  return {
    sources: hash.digest("hex"),
    platform,
    blas: real(blas),
    mpi: real(mpi),
    gloo: real(gloo),
    cuda: real(cuda),
    levels,
  };
}

/** How the library that lies there stands to a stamp. A BLAS or MPI that this machine lacks may be where the library finds it. */
export function stateOf(stamp: Stamp): State {
  const last = readJson<Stamp>(STAMP);
  const isSame = (["sources", "platform", "levels"] as const).every((part) => last?.[part] === stamp[part]);
  if (!last || !isSame || !exists(`${BUILD}/${LIBRARY}`)) return "stale";
  const isOther = (part: "blas" | ModuleName) => stamp[part] !== undefined && stamp[part] !== last[part];
  return isOther("blas") || MODULES.some(isOther) ? "usable" : "current";
}

/** Whether a module lies there. */
export function hasModule(name: ModuleName): boolean {
  return exists(`${BUILD}/${moduleFile(name)}`);
}

/** Configures and builds; with another compiler than last time, or in another place, from the beginning, with other libraries what they
 * concern.
 * @throws {StepError} with the tool's whole output where it fails. */
export async function build(facts: Facts, stamp: Stamp): Promise<void> {
  await checkCompiler(facts);
  const last = readJson<Stamp>(STAMP), tools = toolsOf(facts), reason = whyAnew(readJson<Tools>(TOOLS), tools);
  if (reason) {
    console.error(`${reason}: everything is compiled anew`);
    remove(TREE);
  }
  Deno.mkdirSync(TREE, { recursive: true });
  Deno.writeTextFileSync(TOOLS, JSON.stringify(tools));
  // What CMake once found it keeps; forgetting it is the only way to make it look again.
  const parts = ["blas", "levels", ...MODULES] as const;
  if (parts.some((part) => last?.[part] !== stamp[part])) remove(`${TREE}/CMakeCache.txt`);
  // A library whose linking was interrupted may be newer than its objects, and a module may be of a library that is gone.
  if (exists(UNFINISHED)) remove(`${TREE}/${LIBRARY}`);
  MODULES.forEach((name) => remove(`${TREE}/${moduleFile(name)}`));
  Deno.writeTextFileSync(UNFINISHED, "");
  const generator = exists(`${TREE}/CMakeCache.txt`) ? [] : facts.make?.endsWith("ninja") ? ["-G", "Ninja"] : [];
  const options = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DTITAN_BLAS=auto",
    ...(stamp.levels ? [`-DTITAN_LEVELS=${stamp.levels}`] : []),
    ...(["mpi", "gloo"] as const).map((name) => `-DTITAN_${name.toUpperCase()}=${facts[name] ? "auto" : "none"}`),
    `-DTITAN_CUDA=${facts.cuda ?? "none"}`,
  ];
  const configure = ["-S", SOURCE, "-B", TREE, ...generator, ...options];
  const jobs = String(navigator.hardwareConcurrency);
  await runStep("Configuring the native library", ["cmake", ...configure]);
  await runStep("Building the native library", ["cmake", "--build", TREE, "--target", "titan", "--parallel", jobs]);
  if (!exists(`${TREE}/${LIBRARY}`)) throw new Error(`CMake finished, but there is no ${TREE}/${LIBRARY}`);
  Deno.removeSync(UNFINISHED);
  // The stamp goes first and comes last: between, the library is not taken for what it may not be.
  remove(STAMP);
  for (const file of MODULES.map(moduleFile)) {
    if (exists(`${TREE}/${file}`)) put(file);
    else remove(`${BUILD}/${file}`);
  }
  put(LIBRARY);
  Deno.writeTextFileSync(`${STAMP}.new`, JSON.stringify(stamp));
  Deno.renameSync(`${STAMP}.new`, STAMP);
}

/** Puts a file that CMake made where it is used, at once. */
function put(name: string): void {
  Deno.copyFileSync(`${TREE}/${name}`, `${BUILD}/${name}.new`);
  Deno.renameSync(`${BUILD}/${name}.new`, `${BUILD}/${name}`);
}

/** @throws {StepError} where the compiler is known to be too old. */
async function checkCompiler({ compiler, packageManager, root }: Facts): Promise<void> {
  const args = ["-dM", "-E", "-x", "c++", "/dev/null"]; // all that it defines by itself
  const { stdout } = await new Deno.Command(compiler!, { args, stdin: "null", stderr: "null" }).output();
  const problem = findCompilerProblem({ compiler, packageManager, root }, new TextDecoder().decode(stdout));
  if (problem) throw new StepError(problem);
}

/** What CMake's folder depends on: its own place, and tools with the size and age of their files, as an upgrade keeps the path. */
interface Tools {
  place: string;
  compiler: string;
  cmake: string;
  make: string;
}

function toolsOf({ compiler, cmake, make }: Facts): Tools {
  return { place: Deno.cwd(), compiler: identity(compiler!), cmake: identity(cmake!), make: identity(make!) };
}

function identity(path: string): string {
  const { size, mtime } = Deno.statSync(path);
  return `${path}:${size}:${mtime?.getTime()}`;
}

/** Why what was compiled cannot be built upon. */
function whyAnew(last: Tools | undefined, tools: Tools): string | undefined {
  if (!last) return undefined;
  if (last.place !== tools.place) return `This checkout was in ${last.place} before, which CMake cannot follow`;
  const changed = (["compiler", "cmake", "make"] as const).find((name) => last[name] !== tools[name]);
  return changed && `${{ compiler: "The C++ compiler", cmake: "CMake", make: "Make or Ninja" }[changed]} has changed`;
}

/** Paths of the native sources in a folder, but of tests. What editors leave beside sources is none. */
export function nativeSources(folder: string): string[] {
  const paths: string[] = [];
  for (const entry of Deno.readDirSync(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isFile && /^\w+\.(cpp|h|cu|def|cmake|txt)$/.test(entry.name)) paths.push(path);
    else if (entry.isDirectory && entry.name !== "tests") paths.push(...nativeSources(path));
  }
  return paths.sort();
}

/** What a file of JSON holds; undefined where it is not there, or its writing did not end. */
function readJson<T>(path: string): T | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch {
    return undefined;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function remove(path: string): void {
  if (exists(path)) Deno.removeSync(path, { recursive: true });
}
