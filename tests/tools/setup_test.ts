import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";

const SCRIPT = fromFileUrl(new URL("../../tools/setup.ts", import.meta.url));
const CONFIG = fromFileUrl(new URL("../../deno.json", import.meta.url));

/** A project of one native source, and `setup.ts` run in it with these programs alone on the path. */
class Project implements Disposable {
  readonly root: string = Deno.makeTempDirSync();
  path: string = Deno.env.get("PATH") ?? "";

  constructor() {
    this.write(
      "csrc/CMakeLists.txt",
      "cmake_minimum_required(VERSION 3.16)\nproject(t CXX)\nadd_library(titan SHARED a.cpp)",
    );
    this.write("csrc/a.cpp", "int f() { return 1; }");
  }

  write(path: string, text: string, mode = 0o644): void {
    const file = `${this.root}/${path}`;
    Deno.mkdirSync(file.slice(0, file.lastIndexOf("/")), { recursive: true });
    Deno.writeTextFileSync(file, text, { mode });
  }

  async setup(...args: string[]): Promise<{ code: number; text: string }> {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "--config", CONFIG, "--allow-all", SCRIPT, ...args],
      cwd: this.root,
      env: { PATH: this.path, CXX: "c++", NO_COLOR: "1" },
      stdin: "null",
    });
    const { code, stdout, stderr } = await command.output();
    return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.root, { recursive: true });
  }
}

Deno.test("setup builds once, then says nothing until a source changes", async () => {
  using project = new Project();
  const first = await project.setup();
  assertEquals(first.code, 0, first.text);
  assertStringIncludes(first.text, "Building the native library");
  const built = Deno.statSync(`${project.root}/build/libtitan.so`).mtime;
  assertEquals(await project.setup(), { code: 0, text: "" });
  assertEquals(Deno.statSync(`${project.root}/build/libtitan.so`).mtime, built);
  project.write("csrc/a.cpp", "int f() { return 2; }");
  assertStringIncludes((await project.setup()).text, "Building the native library");
  Deno.removeSync(`${project.root}/build/libtitan.so`);
  assertStringIncludes((await project.setup()).text, "Building the native library");
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
    const fake = '#!/bin/sh\n[ "$1" = --build ] && echo > build/libtitan.so\nexit 0\n';
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
