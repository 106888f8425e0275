import { assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "@std/assert";
import { Project } from "./setup_project.ts";

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

Deno.test("setup builds once, then says nothing until a source changes", async () => {
  using project = new Project();
  const first = await project.setup();
  assertEquals(first.code, 0, first.text);
  assertStringIncludes(first.text, "Building the native library");
  const cache = Deno.readTextFileSync(`${project.root}/build/cmake/CMakeCache.txt`);
  const hasMpi = project.path.split(":").some((folder) => exists(`${folder}/mpicxx`)); // what is not on the path is not there
  assertMatch(cache, new RegExp(`^TITAN_MPI:\\w+=${hasMpi ? "auto" : "none"}$`, "m"));
  const built = Deno.statSync(`${project.root}/build/libtitan.so`).mtime;
  assertEquals(await project.setup(), { code: 0, text: "" });
  assertEquals(Deno.statSync(`${project.root}/build/libtitan.so`).mtime, built);
  project.write("csrc/a.cpp", "int f() { return 2; }");
  assertStringIncludes((await project.setup()).text, "Building the native library");
  Deno.removeSync(`${project.root}/build/libtitan.so`);
  assertStringIncludes((await project.setup()).text, "Building the native library");
  project.env = { TITAN_LEVELS: "portable" };
  assertStringIncludes((await project.setup()).text, "-DTITAN_LEVELS=portable");
  assertEquals(await project.setup(), { code: 0, text: "" });
  project.env = {};
  assertStringIncludes((await project.setup()).text, "Building the native library");
  for (const name of ["a.cpp~", "#a.cpp#", "a.cpp.orig"]) project.write(`csrc/${name}`, "of an editor");
  assertEquals(await project.setup(), { code: 0, text: "" });
});

Deno.test("a library is as good on a host without compiler, and in a checkout that was moved; only a build there begins anew", async () => {
  using project = new Project();
  assertEquals((await project.setup()).code, 0);
  using moved = new Project();
  Deno.removeSync(moved.root, { recursive: true });
  Deno.renameSync(project.root, moved.root);
  Deno.mkdirSync(project.root);
  assertEquals(await moved.setup(), { code: 0, text: "" });
  const { path } = moved;
  moved.path = moved.onlyWith();
  assertEquals(await moved.setup(), { code: 0, text: "" });
  moved.path = `${moved.onlyWith("mpicxx")}:${path}`;
  assertStringIncludes((await moved.setup()).text, `This checkout was in ${project.root} before, `); // as there is MPI now
  moved.path = moved.onlyWith("mpicxx");
  moved.write("only/mpicxx", "#!/bin/sh\n# another\n", 0o755);
  assertEquals(await moved.setup(), { code: 0, text: "" });
  moved.write("csrc/a.cpp", "int f() { return 2; }");
  assertStringIncludes((await moved.setup()).text, "Cannot build libtitan: a C++ compiler");
});

Deno.test("a rank builds nothing: it uses the library of these sources, or says once for its host what builds it", async () => {
  using project = new Project();
  const rank = (rank: number) => ({ RANK: `${rank}`, WORLD_SIZE: "2", LOCAL_RANK: `${rank}`, LOCAL_WORLD_SIZE: "2" });
  const message = (who: string) => ({
    code: 1,
    text: `The native library has to be built, and a rank does not build it (this is rank ${who})\n` +
      "  expected: a library of these sources, built before ranks start\n" +
      "  fix: npx -y deno task setup, once, on a host that has this checkout and a compiler\n",
  });
  for (
    const [env, expected] of [
      [rank(0), message("0 of 2")],
      [rank(1), { code: 1, text: "" }],
      [{ TITAN_LAUNCHED: "/tmp" }, message("one of several")],
    ] as const
  ) {
    project.env = env;
    assertEquals(await project.setup(), expected);
  }
  assertEquals([...Deno.readDirSync(project.root)].some(({ name }) => name === "build"), false);
  project.env = { WORLD_SIZE: "1" };
  assertEquals((await project.setup()).code, 0);
  project.env = rank(1);
  assertEquals(await project.setup(), { code: 0, text: "" });
  const { path } = project;
  project.path = `${project.onlyWith("mpicxx")}:${path}`; // which would have it built with the module
  assertEquals(await project.setup(), { code: 0, text: "" });
  project.env = { RANK: "0" };
  project.write("csrc/a.cpp", "int f() { return 2; }");
  assertStringIncludes((await project.setup()).text, "RANK is set, but not WORLD_SIZE");
});

Deno.test("who has opened a library keeps it while another takes its place, and half a library never does", async () => {
  using project = new Project();
  assertEquals((await project.setup()).code, 0);
  const library = `${project.root}/build/libtitan.so`, before = Deno.readFileSync(library);
  using opened = Deno.openSync(library);
  project.write("csrc/a.cpp", "int f() { return 2; } int g() { return 3; }");
  assertEquals((await project.setup()).code, 0);
  const bytes = new Uint8Array(before.length);
  for (let at = 0, n; (n = opened.readSync(bytes.subarray(at))) !== null && n > 0;) at += n;
  assertEquals(bytes, before);
  const after = Deno.readFileSync(library);
  assertNotEquals(after, before);
  // as a build that was killed leaves it
  Deno.truncateSync(`${project.root}/build/cmake/libtitan.so`, 100);
  project.write("build/cmake/.unfinished", "");
  Deno.removeSync(`${project.root}/build/.stamp`);
  assertEquals((await project.setup()).code, 0);
  assertEquals(Deno.readFileSync(library), after);
});

Deno.test("a compiler that is too old is told so before anything is configured", async () => {
  using project = new Project();
  project.write("bin/c++", '#!/bin/sh\necho "#define __GNUC__ 11"\n', 0o755);
  project.path = `${project.root}/bin:${project.path}`;
  const { code, text } = await project.setup();
  assertEquals(code, 1);
  assertStringIncludes(text, `Cannot build libtitan: ${project.root}/bin/c++ is GCC 11\n  expected: GCC 12, `);
  assertEquals(text.includes("Configuring"), false);
});

Deno.test({
  name: "a checkout that cannot be written to is refused in one message",
  ignore: Deno.build.os !== "linux", // where /sys refuses even root
  fn: async () => {
    using project = new Project();
    Deno.symlinkSync("/sys/kernel", `${project.root}/build`);
    const { code, text } = await project.setup();
    assertEquals(code, 1);
    assertMatch(
      text,
      /^Cannot build libtitan in \S+\/build: .*\n {2}expected: a checkout that .*\n {2}fix: have .*\n$/,
    );
  },
});

Deno.test("a build that fails shows the compiler's words, ends with 1 and is tried again", async () => {
  using project = new Project();
  project.write("csrc/a.cpp", "int f() { return nothing; }");
  for (let run = 0; run < 2; run++) {
    const { code, text } = await project.setup();
    assertEquals(code, 1);
    assertStringIncludes(text, "nothing");
    assertStringIncludes(text, "ended with");
  }
});

Deno.test("where tools are missing and no package manager is there, one message says so", async () => {
  using project = new Project();
  project.path = `${project.root}/bin`;
  const { code, text } = await project.setup();
  assertEquals(code, 1);
  assertStringIncludes(text, "Cannot build libtitan: a C++ compiler, CMake");
  assertStringIncludes(text, "fix: install a C++ compiler");
});

Deno.test({
  name: "root installs what is missing, and a failed installation is shown with its output",
  ignore: Deno.uid() !== 0, // nobody else may install
  fn: async () => {
    using project = new Project();
    project.path = `${project.root}/bin`;
    project.write("bin/apt-get", '#!/bin/sh\necho "apt-get says $1"\nexit 100\n', 0o755);
    const failed = await project.setup();
    assertEquals(failed.code, 1);
    assertStringIncludes(failed.text, "apt-get says update");
    assertStringIncludes(failed.text, "Cannot build libtitan");
    const fake = '#!/bin/sh\n[ "$1" = --build ] && echo > build/cmake/libtitan.so\nexit 0\n';
    const install = ["c++", "cmake", "make"].map((name) => {
      project.write(`store/${name}`, fake, 0o755);
      return `/bin/cp ${project.root}/store/${name} ${project.root}/bin/${name}`;
    }).join("\n");
    project.write("bin/apt-get", `#!/bin/sh\n[ "$1" = update ] && exit 0\n${install}\n`, 0o755);
    const { code, text } = await project.setup();
    assertEquals(code, 0, text);
    assertStringIncludes(text, "Missing on this machine: a C++ compiler, CMake");
    assertStringIncludes(text, "Installing: apt-get update");
    assertEquals(await project.setup(), { code: 0, text: "" });
  },
});

Deno.test("setup --mpi is done when the module for MPI is built, and fails where it is not", async () => {
  using project = new Project();
  project.write("bin/mpicxx", "#!/bin/sh\n", 0o755);
  project.path = `${project.root}/bin:${project.path}`;
  const failed = await project.setup("--mpi");
  assertEquals(failed.code, 1);
  assertStringIncludes(failed.text, `no module for MPI, though ${project.root}/bin/mpicxx is there\n  expected: `);
  assertEquals((await project.setup()).code, 0); // a library there is
  assertMatch(Deno.readTextFileSync(`${project.root}/build/cmake/CMakeCache.txt`), /^TITAN_MPI:\w+=auto$/m);
  const cmake = Deno.readTextFileSync(`${project.root}/csrc/CMakeLists.txt`);
  project.write(
    "csrc/CMakeLists.txt",
    `${cmake}\nadd_library(titan_mpi MODULE a.cpp)\nadd_dependencies(titan titan_mpi)`,
  );
  assertEquals((await project.setup("--mpi")).code, 0);
  assertEquals(await project.setup("--mpi"), { code: 0, text: "" });
  Deno.removeSync(`${project.root}/build/libtitan_mpi.so`);
  assertStringIncludes((await project.setup("--mpi")).text, "Building the native library");
});
