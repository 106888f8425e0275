/**
 * Makes this machine ready: installs what is missing (Debian, as root), then builds the native library into `build/`.
 * Once that is done a call says nothing and takes a few milliseconds. With `--again` it looks anew: it tries again to
 * install what is missing, and lets CMake decide what is out of date. With `--mpi` or `--gloo` it also installs MPI or Gloo
 * where there is none; where there is, the communication module `libtitan_mpi` or `libtitan_gloo` is built with the library.
 * With `--cuda` it also builds `libtitan_cuda`, for NVIDIA's GPUs, where it finds their toolkit, and fetches libraries of theirs that
 * the system lacks; it says how to get a toolkit where there is none.
 * A rank never builds, and needs nothing of this but the library.
 * @module
 */
import { isLaunched, LaunchError, type World, worldOf } from "../launch/world.ts";
import { BUILD, build, currentStamp, hasModule, MODULES, stateOf, TREE } from "./build.ts";
import { provideCudaLibraries } from "./cuda_libraries.ts";
import { isUnwritable, keepDeno } from "./keep_deno.ts";
import { runStep, StepError } from "./run_step.ts";
import { type Facts, missing, nameAll, nextStep, type PackageManager, rankRefusal, type Wanted } from "./setup_plan.ts";

/** How a checkout looks anew and builds. */
export const ANEW = "npx -y deno task build";

/** Looks for the tools and libraries of a build; starts no process.
 * @param anew the command that looks anew and builds. @param wanted what is asked for: a module for GPUs takes minutes to build. */
export function gatherFacts(anew: string = ANEW, wanted: Wanted = {}): Facts {
  const os = Deno.build.os;
  return {
    os,
    root: Deno.uid() === 0,
    packageManager: (["apt-get", "dnf", "pacman", "brew"] as PackageManager[]).find((name) => onPath(name)),
    compiler: onPath(Deno.env.get("CXX") ?? "c++") ?? onPath("g++") ?? onPath("clang++"),
    cmake: onPath("cmake"),
    make: onPath("ninja") ?? onPath("make"),
    blas: findBlas(os),
    mpi: onPath("mpicxx"),
    gloo: findGloo(),
    cuda: wanted.cuda || hasModule("cuda") ? findNvcc() : undefined,
    anew,
  };
}

function onPath(name: string): string | undefined {
  if (name.includes("/")) return firstFile([name]);
  return firstFile((Deno.env.get("PATH") ?? "").split(":").map((folder) => `${folder}/${name}`));
}

function findBlas(os: string): string | undefined {
  if (os === "darwin") return "/System/Library/Frameworks/Accelerate.framework";
  const triplet = `${Deno.build.arch}-linux-gnu`;
  return firstFile([
    `/usr/lib/${triplet}/openblas-openmp/libopenblas.so`, // Debian, Ubuntu
    "/usr/lib64/libopenblaso.so", // Fedora: o for OpenMP
    "/usr/lib/libopenblas.so", // Arch
    `${Deno.env.get("MKLROOT") ?? "/opt/intel/oneapi/mkl/latest"}/lib/libmkl_rt.so`,
  ]);
}

function findGloo(): string | undefined {
  const folders = [
    "/usr/local/lib",
    "/usr/lib",
    `/usr/lib/${Deno.build.arch}-linux-gnu`,
    "/usr/lib64",
    "/opt/homebrew/lib",
  ];
  return firstFile(folders.flatMap((folder) => [`${folder}/libgloo.so`, `${folder}/libgloo.dylib`]));
}

/** NVIDIA's compiler: of the toolkit that CUDA_HOME or CUDA_PATH names, else of PATH, else where installers put it. */
function findNvcc(): string | undefined {
  for (const name of ["CUDA_HOME", "CUDA_PATH"]) {
    const folder = Deno.env.get(name);
    if (folder) return firstFile([`${folder}/bin/nvcc`]);
  }
  return onPath("nvcc") ?? firstFile(["/usr/local/cuda/bin/nvcc", "/opt/cuda/bin/nvcc"]);
}

function firstFile(paths: string[]): string | undefined {
  return paths.find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** How to make a machine ready. */
export interface SetupOptions extends Wanted {
  /** Look anew, whatever lies there? */
  readonly again?: boolean;
  /** May it install what is missing, where it can? */
  readonly mayInstall: boolean;
  /** The command that looks anew and builds. */
  readonly anew?: string;
}

/** Builds the sources of the current folder, where they are not built yet.
 * @throws {StepError} that says what is missing, or failed. */
export async function setup({ again = false, mayInstall, anew = ANEW, ...wanted }: SetupOptions): Promise<void> {
  const asked = MODULES.filter((name) => wanted[name]);
  const isReady = (asRank = false) => {
    const facts = gatherFacts(anew, wanted), state = stateOf(currentStamp(facts));
    const cannotBuild = asRank || missing(facts).some((need) => need !== "blas");
    return !again && (state === "current" || state === "usable" && cannotBuild) && asked.every(hasModule);
  };
  if (isReady()) return;
  const world = worldOf();
  if (isLaunched() || world && world.size > 1) return isReady(true) ? undefined : await refuseRank(world);
  Deno.mkdirSync(BUILD, { recursive: true });
  using lock = Deno.openSync(`${BUILD}/.lock`, { write: true, create: true });
  lock.lockSync(true); // two runs that start together build once
  if (isReady()) return;
  for (let installed = !mayInstall;; installed = true) {
    const facts = gatherFacts(anew, wanted);
    const step = nextStep(facts, installed, wanted);
    switch (step.do) {
      case "stop":
        throw new StepError(step.message);
      case "install":
        console.error(`Missing on this machine: ${nameAll(step.what)}`);
        await install(step.commands);
        break;
      case "build":
        for (const note of step.notes) console.error(note);
        if (facts.cuda) await provideCudaLibraries(facts, wanted.cuda === true);
        await build(facts, currentStamp(facts));
        for (const name of asked) {
          if (hasModule(name)) continue;
          const what = `The library is built, but no module for ${nameAll([name])}, though ${facts[name]} is there`;
          throw new StepError(
            `${what}\n  expected: one that CMake finds\n  fix: see ${TREE}/CMakeFiles/CMakeConfigureLog.yaml`,
          );
        }
        return;
    }
  }
}

/** A failure is reported, not thrown: an update fails where one source of many cannot be reached, and what is still
 * missing at the end decides whether the build can go on. */
async function install(commands: string[][]): Promise<void> {
  for (const command of commands) {
    try {
      await runStep("Installing", command, { DEBIAN_FRONTEND: "noninteractive" });
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      console.error(error.message);
    }
  }
}

/** Ranks are many, and may share a file system: none of them builds. The first of a host says so, and the others leave it time to. */
async function refuseRank(world: World | undefined): Promise<never> {
  if (!world || world.hostRank === 0) throw new StepError(rankRefusal(world?.rank, world?.size));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  Deno.exit(1);
}

/** What arguments ask for. */
export function setupOptions(args: readonly string[]): { again: boolean; mpi: boolean; gloo: boolean; cuda: boolean } {
  const has = (flag: string) => args.includes(flag);
  return { again: has("--again"), mpi: has("--mpi"), gloo: has("--gloo"), cuda: has("--cuda") };
}

/** What is said of an error that is nobody's mistake in here. */
export function messageOf(error: unknown): string | undefined {
  if (error instanceof StepError || error instanceof LaunchError) return error.message;
  if (!isUnwritable(error)) return undefined;
  const expected = "a checkout that this user may write to, or in which the library is built";
  const fix = "have its owner run npx -y deno task setup, or make a checkout of your own";
  return `Cannot build libtitan in ${Deno.cwd()}/${BUILD}: ${error.message}\n  expected: ${expected}\n  fix: ${fix}`;
}

if (import.meta.main) {
  try {
    keepDeno();
    await setup({ ...setupOptions(Deno.args), mayInstall: true });
  } catch (error) {
    const message = messageOf(error);
    if (message === undefined) throw error;
    console.error(message);
    Deno.exit(1);
  }
}
