import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { type Facts, findCompilerProblem, missing, nextStep } from "../../tools/setup_plan.ts";

const ready: Facts = {
  anew: "npx -y deno task build",
  os: "linux",
  root: false,
  packageManager: "apt-get",
  compiler: "/usr/bin/c++",
  cmake: "/usr/bin/cmake",
  make: "/usr/bin/make",
  blas: "/usr/lib/x86_64-linux-gnu/openblas-openmp/libopenblas.so",
};
const fresh: Facts = { os: "linux", root: true, packageManager: "apt-get", anew: "npx -y deno task build" };

Deno.test("a machine that lacks nothing builds without a word", () => {
  assertEquals(nextStep(ready), { do: "build", notes: [] });
});

Deno.test("on a fresh Debian machine root installs everything, after an update", () => {
  const step = nextStep(fresh);
  assert(step.do === "install");
  assertEquals(step.what, ["compiler", "cmake", "make", "blas"]);
  assertEquals(step.commands.map((command) => command.join(" ")), [
    "apt-get update",
    "apt-get install -y --no-install-recommends g++ cmake make libopenblas-openmp-dev",
  ]);
});

Deno.test("root installs only what is missing", () => {
  const step = nextStep({ ...ready, root: true, blas: undefined });
  assert(step.do === "install");
  assertEquals(step.commands.at(-1), ["apt-get", "install", "-y", "--no-install-recommends", "libopenblas-openmp-dev"]);
});

Deno.test("who is not root is told the exact commands", () => {
  const step = nextStep({ ...ready, compiler: undefined, blas: undefined });
  assertEquals(step, {
    do: "stop",
    message: "Cannot build libtitan: a C++ compiler and OpenBLAS missing\n" +
      "  expected: all of them on this machine\n" +
      "  fix: sudo apt-get update && sudo apt-get install -y --no-install-recommends g++ libopenblas-openmp-dev",
  });
});

Deno.test("where only OpenBLAS is missing and cannot be installed, the build goes on and says what is slower", () => {
  const step = nextStep({ ...ready, blas: undefined });
  assert(step.do === "build");
  assertStringIncludes(step.notes.join("\n"), "libtitan's own, which without AVX2 are slower");
  assertStringIncludes(step.notes.join("\n"), "sudo apt-get install -y --no-install-recommends libopenblas-openmp-dev");
});

Deno.test("an installation is tried once: what it did not bring ends the run, or OpenBLAS alone is done without", () => {
  const stopped = nextStep({ ...fresh, blas: ready.blas }, true);
  assert(stopped.do === "stop");
  assertStringIncludes(stopped.message, "a C++ compiler, CMake and Make or Ninja missing");
  assertStringIncludes(stopped.message, "fix: apt-get update && apt-get install");
  assertEquals(nextStep({ ...ready, root: true, blas: undefined }, true).do, "build");
});

Deno.test("root on another system is told its own command, without sudo", () => {
  const step = nextStep({ ...fresh, packageManager: "dnf" });
  assert(step.do === "stop");
  assertStringIncludes(step.message, "fix: dnf install -y gcc-c++ cmake make openblas-devel");
});

Deno.test("without a known package manager the needs are named", () => {
  const step = nextStep({ ...ready, packageManager: undefined, cmake: undefined });
  assert(step.do === "stop");
  assertStringIncludes(step.message, "fix: install CMake with this system's package manager");
});

Deno.test("macOS and Windows get their own advice", () => {
  const mac = nextStep({ ...ready, os: "darwin", packageManager: "brew", compiler: undefined });
  assert(mac.do === "stop");
  assertStringIncludes(mac.message, "fix: xcode-select --install && brew install cmake make");
  const windows = nextStep({ ...ready, os: "windows" });
  assert(windows.do === "stop");
  assertStringIncludes(windows.message, "inside WSL");
});

Deno.test("whatever is missing, only OpenBLAS can be done without", () => {
  for (let mask = 0; mask < 16; mask++) {
    const facts: Facts = { ...ready };
    (["compiler", "cmake", "make", "blas"] as const).forEach((need, i) => {
      if (mask >> i & 1) facts[need] = undefined;
    });
    const onlyBlas = missing(facts).every((need) => need === "blas");
    assertEquals(nextStep(facts).do, onlyBlas ? "build" : "stop");
  }
});

Deno.test("MPI is installed where it is asked for, and only there", () => {
  assertEquals(nextStep({ ...ready, root: true }).do, "build");
  const step = nextStep({ ...ready, root: true }, false, { mpi: true });
  assert(step.do === "install");
  assertEquals(step.what, ["mpi"]);
  assertEquals(
    step.commands.at(-1)!.join(" "),
    "apt-get install -y --no-install-recommends libopenmpi-dev openmpi-bin",
  );
  assertEquals(nextStep({ ...ready, mpi: "/usr/bin/mpicxx" }, false, { mpi: true }).do, "build");
  const other = nextStep({ ...ready, packageManager: "dnf" }, false, { mpi: true });
  assert(other.do === "stop");
  assertStringIncludes(other.message, "MPI missing");
  assertStringIncludes(other.message, "fix: sudo dnf install -y openmpi-devel");
});

Deno.test("Gloo is installed where it is asked for and the system has it; elsewhere it is said what to do", () => {
  const step = nextStep({ ...ready, root: true }, false, { gloo: true });
  assert(step.do === "install");
  assertEquals(step.commands.at(-1)!.join(" "), "apt-get install -y --no-install-recommends libgloo-dev");
  assertEquals(nextStep({ ...ready, gloo: "/usr/lib/libgloo.so" }, false, { gloo: true }).do, "build");
  const brew = nextStep({ ...ready, os: "darwin", packageManager: "brew" }, false, { gloo: true });
  assert(brew.do === "stop");
  assertStringIncludes(
    brew.message,
    "fix: build Gloo from its sources and install it, or use MPI: deno task setup --mpi",
  );
});

Deno.test("GCC before 12 and Clang before 14 are too old, and what installs a newer one is said", () => {
  const gcc = (major: number) => `#define __GNUC__ ${major}\n`;
  const clang = (major: number) => `#define __clang__ 1\n#define __GNUC__ 4\n#define __clang_major__ ${major}\n`;
  const problem = (macros: string, facts: Partial<Facts> = ready) => findCompilerProblem(facts, macros);
  assertEquals(
    problem(gcc(11)),
    "Cannot build libtitan: /usr/bin/c++ is GCC 11\n  expected: GCC 12, Clang 14, or later\n" +
      "  fix: sudo apt-get install -y g++-12 (or a later one that there is), then: CXX=g++-12 npx -y deno task build",
  );
  assertStringIncludes(problem(clang(13), { compiler: "clang++", packageManager: "dnf" })!, "fix: install a newer one");
  const apple = `${clang(13)}#define __apple_build_version__ 13160021\n`;
  for (const macros of [gcc(12), gcc(14), clang(14), clang(19), apple, ""]) assertEquals(problem(macros), undefined);
});

Deno.test("a module for GPUs needs NVIDIA's toolkit, which no package manager is asked for: how to get it is told", () => {
  assertEquals(nextStep({ ...ready, cuda: "/opt/cuda/bin/nvcc" }, false, { cuda: true }), { do: "build", notes: [] });
  assertEquals(nextStep(ready), { do: "build", notes: [] });
  for (const root of [true, false]) {
    const step = nextStep({ ...ready, root }, false, { cuda: true });
    assert(step.do === "stop");
    assertStringIncludes(step.message, "Cannot build libtitan: NVIDIA's CUDA toolkit missing");
    assertStringIncludes(step.message, "fix: install version 12.8 or later from NVIDIA's site");
    assertStringIncludes(step.message, "set CUDA_HOME to its folder");
  }
});
