/**
 * What a machine needs before the native library can be built, and what to do about what it lacks: decisions only, over
 * facts that `setup.ts` gathers.
 * @module
 */

/** What was found on this machine; a tool or library that was not found is undefined. */
export interface Facts {
  /** `Deno.build.os`. */
  os: string;
  /** Whether packages may be installed (user id 0). */
  root: boolean;
  packageManager?: PackageManager;
  /** Paths. */
  compiler?: string;
  cmake?: string;
  make?: string;
  blas?: string;
  mpi?: string;
  gloo?: string;
  /** nvcc, where a module for GPUs is wanted or there. */
  cuda?: string;
  /** The command that looks anew and builds. */
  anew: string;
}

/** What to do next. */
export type Step =
  | { do: "install"; what: Need[]; commands: string[][] }
  | { do: "build"; notes: string[] }
  | { do: "stop"; message: string };

export type PackageManager = "apt-get" | "dnf" | "pacman" | "brew";
export type Need = "compiler" | "cmake" | "make" | "blas" | "mpi" | "gloo" | "cuda";

const NAMES: Record<Need, string> = {
  compiler: "a C++ compiler",
  cmake: "CMake",
  make: "Make or Ninja",
  blas: "OpenBLAS",
  mpi: "MPI",
  gloo: "Gloo",
  cuda: "NVIDIA's CUDA toolkit",
};

const PACKAGES: Record<PackageManager, Partial<Record<Need, string>>> = {
  "apt-get": {
    compiler: "g++",
    cmake: "cmake",
    make: "make",
    blas: "libopenblas-openmp-dev",
    mpi: "libopenmpi-dev openmpi-bin",
    gloo: "libgloo-dev",
  },
  dnf: {
    compiler: "gcc-c++",
    cmake: "cmake",
    make: "make",
    blas: "openblas-devel",
    mpi: "openmpi-devel",
    gloo: "gloo-devel",
  },
  pacman: { compiler: "gcc", cmake: "cmake", make: "make", blas: "blas-openblas", mpi: "openmpi" },
  brew: { compiler: "llvm", cmake: "cmake", make: "make", blas: "openblas", mpi: "open-mpi" },
};

/** What is asked for beyond one process on this machine. */
export interface Wanted {
  /** Also runs of several processes. */
  readonly mpi?: boolean;
  /** The same without MPI, over Gloo. */
  readonly gloo?: boolean;
  /** Also runs on NVIDIA's GPUs. */
  readonly cuda?: boolean;
}

/** What the machine lacks, in the order in which it is named to the user. */
export function missing(facts: Facts, wanted: Wanted = {}): Need[] {
  const optional = (["mpi", "gloo", "cuda"] as const).filter((need) => wanted[need]);
  const needs: Need[] = ["compiler", "cmake", "make", "blas", ...optional];
  return needs.filter((need) => facts[need] === undefined);
}

/** The commands that install `needs`, without `sudo`. */
export function installCommands(manager: PackageManager, needs: readonly Need[]): string[][] {
  const packages = needs.flatMap((need) => PACKAGES[manager][need]?.split(" ") ?? []);
  switch (manager) {
    case "apt-get":
      return [["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", ...packages]];
    case "dnf":
      return [["dnf", "install", "-y", ...packages]];
    case "pacman":
      return [["pacman", "-S", "--needed", ...packages]];
    case "brew":
      return [["brew", "install", ...packages]];
  }
}

/** Decides what to do on a machine. Packages are installed by Debian's tool alone, as root alone, and at most once: after
 * an attempt the caller sets `installed`, and what is still missing is reported. */
export function nextStep(facts: Facts, installed = false, wanted: Wanted = {}): Step {
  if (facts.os === "windows") {
    return stop("Cannot build libtitan on Windows", "Linux or macOS", "run this inside WSL (wsl --install)");
  }
  const needs = missing(facts, wanted);
  if (needs.length === 0) return { do: "build", notes: [] };
  const canInstall = needs.some((need) => PACKAGES["apt-get"][need] !== undefined);
  if (facts.root && facts.packageManager === "apt-get" && !installed && canInstall) {
    return { do: "install", what: needs, commands: installCommands("apt-get", needs) };
  }
  const fix = howToInstall(facts, needs);
  if (needs.length === 1 && needs[0] === "blas") {
    return {
      do: "build",
      notes: [
        "OpenBLAS is missing: all matrix products are libtitan's own, which without AVX2 are slower",
        `  fix: ${fix}, then: ${facts.anew}`,
      ],
    };
  }
  return stop(`Cannot build libtitan: ${nameAll(needs)} missing`, "all of them on this machine", fix);
}

/** The least versions that have C++20, and the vectors of which `csrc/cpu/simd.h` makes use. */
const LEAST = { GCC: 12, Clang: 14 } as const;

/** Says what to do where a compiler is known to be too old.
 * @param macros that it defines, as `-dM -E` prints them; of another compiler than GCC and Clang nothing is known. */
export function findCompilerProblem(facts: Partial<Facts>, macros: string): string | undefined {
  const macro = (name: string) => new RegExp(`^#define ${name} (.*)$`, "m").exec(macros)?.[1];
  const kind = macro("__clang__") ? "Clang" : macro("__GNUC__") ? "GCC" : undefined; // Clang says that it is GCC 4 as well
  if (!kind || macro("__apple_build_version__")) return undefined; // Apple counts in its own way
  const [major, least] = [macro(kind === "Clang" ? "__clang_major__" : "__GNUC__"), LEAST[kind]];
  if (Number(major) >= least) return undefined;
  const newer = `g++-${LEAST.GCC}`, sudo = facts.root ? "" : "sudo ";
  const fix = facts.packageManager === "apt-get"
    ? `${sudo}apt-get install -y ${newer} (or a later one that there is), then: CXX=${newer} ${facts.anew}`
    : `install a newer one, or load its module on a cluster, then: CXX=COMPILER ${facts.anew}`;
  return refusal(
    `Cannot build libtitan: ${facts.compiler} is ${kind} ${major}`,
    `GCC ${LEAST.GCC}, Clang ${LEAST.Clang}, or later`,
    fix,
  );
}

/** What is said to one of many processes that were started together, where a build is needed. */
export function rankRefusal(rank: number | undefined, size: number | undefined): string {
  const who = rank === undefined ? "one of several" : `${rank} of ${size}`;
  return refusal(
    `The native library has to be built, and a rank does not build it (this is rank ${who})`,
    "a library of these sources, built before ranks start",
    "npx -y deno task setup, once, on a host that has this checkout and a compiler",
  );
}

/** "a C++ compiler, CMake and OpenBLAS". */
export function nameAll(needs: readonly Need[]): string {
  const names = needs.map((need) => NAMES[need]);
  return names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function howToInstall(facts: Facts, needs: readonly Need[]): string {
  if (facts.os === "darwin" && needs.includes("compiler")) {
    return "xcode-select --install && brew install cmake make";
  }
  if (needs.includes("cuda")) {
    return "install version 12.8 or later from NVIDIA's site, or load a cluster's module of it, set CUDA_HOME to its folder where it is " +
      "neither /usr/local/cuda nor in PATH, then: npx -y deno task setup --cuda";
  }
  if (facts.packageManager === undefined) return `install ${nameAll(needs)} with this system's package manager`;
  const without = needs.filter((need) => PACKAGES[facts.packageManager!][need] === undefined);
  if (without.length > 0) {
    return `build ${nameAll(without)} from its sources and install it, or use MPI: deno task setup --mpi`;
  }
  const sudo = facts.root || facts.packageManager === "brew" ? "" : "sudo ";
  return installCommands(facts.packageManager, needs).map((command) => sudo + command.join(" ")).join(" && ");
}

function stop(what: string, expected: string, fix: string): Step {
  return { do: "stop", message: refusal(what, expected, fix) };
}

function refusal(what: string, expected: string, fix: string): string {
  return `${what}\n  expected: ${expected}\n  fix: ${fix}`;
}
