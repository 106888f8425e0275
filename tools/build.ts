/**
 * Configures and builds the native library with CMake, and remembers what it was built from, so that the next call can
 * tell in a few milliseconds that there is nothing to do.
 * @module
 */
import { createHash } from "node:crypto";
import type { Facts } from "./setup_plan.ts";
import { runStep } from "./run_step.ts";

/** Where things are; paths are relative to the repository root. */
export const BUILD = "build";
const SOURCE = "csrc";
const STAMP = `${BUILD}/.stamp`;
const LIBRARY = `${BUILD}/libtitan.${Deno.build.os === "darwin" ? "dylib" : "so"}`;
const MODULE = `${BUILD}/libtitan_mpi.so`;

/** What a build depends on: the text of every native source file, the place and the tools, and BLAS and MPI. */
export interface Stamp {
  sources: string;
  machine: string;
  libraries: string;
}

/** The stamp of the sources and the machine as they are now. */
export function currentStamp(facts: Facts, source = SOURCE): Stamp {
  const hash = createHash("sha256");
  for (const path of nativeSources(source)) hash.update(path).update("\0").update(Deno.readFileSync(path)).update("\0");
  const { compiler, cmake, make, blas, mpi } = facts;
  const machine = [Deno.cwd(), ...[compiler, cmake, make].map(identity)].join(" ");
  return { sources: hash.digest("hex"), machine, libraries: [blas, mpi].map(identity).join(" ") };
}

/** Whether the library that lies there was built from exactly this. */
export function isUpToDate(stamp: Stamp): boolean {
  const last = lastStamp();
  const isSame = (part: keyof Stamp) => last?.[part] === stamp[part];
  return isSame("sources") && isSame("machine") && isSame("libraries") && exists(LIBRARY);
}

/** Whether the communication module over MPI lies there. */
export function hasModule(): boolean {
  return exists(MODULE);
}

/** Configures and builds; with another compiler than last time from the beginning, with another BLAS or MPI what it concerns.
 * @throws {Error} with the tool's whole output where it fails. */
export async function build(facts: Facts, stamp: Stamp): Promise<void> {
  const last = lastStamp();
  // What CMake once found it keeps; forgetting it is the only way to make it look again.
  if (last?.libraries !== stamp.libraries || last.machine !== stamp.machine) remove(`${BUILD}/CMakeCache.txt`);
  if (last?.machine !== stamp.machine) remove(`${BUILD}/CMakeFiles`);
  const generator = exists(`${BUILD}/CMakeCache.txt`) ? [] : facts.make?.endsWith("ninja") ? ["-G", "Ninja"] : [];
  const configure = ["-S", SOURCE, "-B", BUILD, ...generator, "-DCMAKE_BUILD_TYPE=Release", "-DTITAN_BLAS=auto"];
  const jobs = String(navigator.hardwareConcurrency);
  await runStep("Configuring the native library", ["cmake", ...configure]);
  await runStep("Building the native library", ["cmake", "--build", BUILD, "--target", "titan", "--parallel", jobs]);
  if (!exists(LIBRARY)) throw new Error(`CMake finished, but there is no ${LIBRARY}`);
  Deno.writeTextFileSync(STAMP, JSON.stringify(stamp));
}

function nativeSources(folder: string): string[] {
  const paths: string[] = [];
  for (const entry of Deno.readDirSync(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isFile) paths.push(path);
    else if (entry.isDirectory && path !== `${SOURCE}/tests`) paths.push(...nativeSources(path));
  }
  return paths.sort();
}

function lastStamp(): Stamp | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(STAMP));
  } catch {
    return undefined; // never built, or a build that did not end
  }
}

/** A path with the size and age of the file: an upgraded compiler has the same path. */
function identity(path: string | undefined): string {
  if (path === undefined) return "-";
  const { size, mtime } = Deno.statSync(path);
  return `${path}:${size}:${mtime?.getTime()}`;
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
