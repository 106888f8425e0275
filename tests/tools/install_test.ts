import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { library, userFolder } from "../../ffi/library.ts";
import { llama, texts, train } from "../../mod.ts";
import { denoDir, type PackageServer, servePackage } from "./package_server.ts";

const OPTIONS = '{ steps: 2, batch: 2, seqLen: 32, model: llama("debug", { dim: 32, numLayers: 1, numHeads: 2 }) }';
const { path } = library();
const [kept, xdgCache] = [await denoDir(), Deno.env.get("XDG_CACHE_HOME")];

/** An empty folder for programs, and a user's cache, which may hold the library of this checkout. */
class Bare implements Disposable {
  readonly folder: string = Deno.makeTempDirSync();
  readonly cache: string = Deno.makeTempDirSync();
  readonly server: PackageServer;
  /** Where the library is expected. */
  readonly build: string;

  constructor(server: PackageServer, { isBuilt }: { isBuilt: boolean }) {
    this.server = server;
    Deno.env.set("XDG_CACHE_HOME", this.cache);
    this.build = `${userFolder()}/build`;
    if (xdgCache === undefined) Deno.env.delete("XDG_CACHE_HOME");
    else Deno.env.set("XDG_CACHE_HOME", xdgCache);
    if (!isBuilt) return;
    Deno.mkdirSync(this.build, { recursive: true });
    for (const name of ["libtitan.so", ".stamp"]) {
      Deno.copyFileSync(path.replace(/[^/]*$/, name), `${this.build}/${name}`);
    }
  }

  async run(
    args: readonly string[],
    env: Record<string, string> = {},
  ): Promise<{ code: number; out: string; error: string }> {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", ...args],
      cwd: this.folder,
      env: { NO_COLOR: "1", DENO_DIR: kept, XDG_CACHE_HOME: this.cache, TITAN_LIB: "", ...env },
      stdin: "null",
    }).output();
    const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { code, out, error };
  }

  /** A program that imports the package from its server. */
  write(name: string, names: string, source: string): void {
    Deno.writeTextFileSync(`${this.folder}/${name}`, `import { ${names} } from "${this.server.url}mod.ts";\n${source}`);
  }

  [Symbol.dispose](): void {
    for (const folder of [this.folder, this.cache]) Deno.removeSync(folder, { recursive: true });
  }
}

const files = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("a bare folder with a program that imports the package from a server trains with the losses of a checkout, and stays bare", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: true });
  const note = `${bare.folder}/note.txt`;
  Deno.writeTextFileSync(note, "One two three four five six seven eight nine ten. ".repeat(100));
  bare.write(
    "main.ts",
    "llama, texts, train",
    `const checkpoint = { folder: "saved", interval: 2, lastSaveInHf: true, lastSaveModelOnly: true };
for await (const { loss } of train({ ...${OPTIONS}, data: texts("note.txt"), checkpoint })) console.log(loss);`,
  );
  const { code, out, error } = await bare.run(["-A", "main.ts"], { PATH: "/nowhere" });
  assertEquals([code, error], [0, ""]);
  const losses: number[] = [], model = llama("debug", { dim: 32, numLayers: 1, numHeads: 2 });
  for await (const { loss } of train({ steps: 2, batch: 2, seqLen: 32, model, data: texts(note) })) losses.push(loss);
  assertEquals(out, losses.map((loss) => `${loss}\n`).join(""));
  assertEquals([files(bare.folder), files(bare.cache)], [["main.ts", "note.txt", "saved"], ["libtitan"]]);
  assert(files(`${bare.folder}/saved/step-2`).includes("tokenizer.json"));
});

Deno.test("setup fetches every native source: the library of these sources in the user's cache is current", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: true });
  // Without a compiler, so that a library of other sources is not built anew.
  const installed = await bare.run(["-A", `${server.url}mod.ts`, "setup"], { PATH: "/nowhere" });
  assertEquals(installed, { code: 0, out: "", error: "" });
  assert(files(`${bare.build}/../csrc`).includes("titan.h"));
  assertEquals([files(bare.folder), files(bare.cache)], [[], ["libtitan"]]);
});

Deno.test("a source that the server lacks is named", async () => {
  await using server = await servePackage("csrc/titan.h");
  using bare = new Bare(server, { isBuilt: false });
  const { code, error } = await bare.run(["-A", `${server.url}mod.ts`, "setup"]);
  assertEquals(code, 1);
  assert(error.startsWith(`Cannot fetch ${server.url}csrc/titan.h: its server answers 404\n  expected: `), error);
});

Deno.test("where nothing may be built, one message says what builds the library, and where", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: false });
  Deno.writeTextFileSync(
    `${bare.folder}/main.ts`,
    `import { library } from "${server.url}ffi/library.ts";\nlibrary();`,
  );
  const leave = ["--allow-import", "--allow-ffi", "--allow-env"];
  const { code, error } = await bare.run([...leave, "main.ts"]);
  assertEquals(code, 1);
  assertStringIncludes(error, `  - the user's cache, ${bare.build}/libtitan.so: `);
  assertStringIncludes(error, `  fix: run \`deno run -A ${server.url}mod.ts setup\`, or set TITAN_LIB`);
  assertEquals(files(bare.cache), []);
  // A cache that takes no files, which /sys is for root, too.
  const unwritable = await bare.run(["-A", "main.ts"], { XDG_CACHE_HOME: "/sys" });
  assertEquals(unwritable.code, 1);
  assertStringIncludes(unwritable.error, "Cannot build libtitan in /sys/libtitan/");
  assertStringIncludes(unwritable.error, "  fix: set XDG_CACHE_HOME to a folder that takes files, or TITAN_LIB");
});

Deno.test("a disk that is full while the library is built is told as that, behind what the compiler says", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: false });
  const tools = `${bare.folder}/tools`;
  Deno.mkdirSync(tools);
  const says = 'echo "$0: cannot write: No space left on device" >&2; exit 1';
  for (const tool of ["c++", "cmake", "make"]) {
    Deno.writeTextFileSync(`${tools}/${tool}`, `#!/bin/sh\n${tool === "cmake" ? says : ""}\n`, { mode: 0o755 });
  }
  const { code, error } = await bare.run(["-A", `${server.url}mod.ts`, "setup"], { PATH: tools });
  assertEquals(code, 1);
  assertStringIncludes(error, "/cmake: cannot write: No space left on device\n");
  assertMatch(
    error,
    /\nCannot build libtitan in \S+: its disk is full\n {2}expected: room for .*\n {2}fix: make room, or set XDG/,
  );
});

Deno.test("a first use builds for this processor alone, and setup for all", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: false });
  const tools = `${bare.folder}/tools`, main = `import { library } from "${server.url}ffi/library.ts";\nlibrary();`;
  Deno.writeTextFileSync(`${bare.folder}/main.ts`, main);
  Deno.mkdirSync(tools);
  for (const tool of ["c++", "cmake", "make"]) {
    Deno.writeTextFileSync(`${tools}/${tool}`, `#!/bin/sh\n[ $0 != ${tools}/cmake ]\n`, { mode: 0o755 });
  }
  const env = { PATH: tools, TITAN_LEVELS: "" }, setup = ["-A", `${server.url}mod.ts`, "setup"];
  assertMatch((await bare.run(["-A", "main.ts"], env)).error, /\nConfiguring .* -DTITAN_LEVELS=native /);
  assertMatch((await bare.run(["-A", "main.ts"], { ...env, TITAN_LEVELS: "avx2" })).error, / -DTITAN_LEVELS=avx2 /);
  assertEquals(/Configuring .*TITAN_LEVELS/.test((await bare.run(setup, env)).error), false);
});

Deno.test("of two first uses at the same time one builds, and both have its library", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: false });
  const tools = `${bare.folder}/tools`, main = `import { library } from "${server.url}ffi/library.ts";`;
  Deno.writeTextFileSync(`${bare.folder}/main.ts`, `${main}\nconsole.log(library().path);`);
  Deno.mkdirSync(tools);
  // Builds by copying this checkout's library.
  const cmake = `echo "$1" >>${tools}/calls; sleep 0.2; [ "$1" = -S ] || cp ${path} build/cmake/`;
  for (const tool of ["c++", "cmake", "make"]) {
    Deno.writeTextFileSync(`${tools}/${tool}`, `#!/bin/sh\n${tool === "cmake" ? cmake : ""}\n`, { mode: 0o755 });
  }
  const start = () => bare.run(["-A", "main.ts"], { PATH: `${tools}:${Deno.env.get("PATH")}`, CXX: `${tools}/c++` });
  for (const { code, out, error } of await Promise.all([start(), start()])) {
    assertEquals([code, out], [0, `${bare.build}/libtitan.so\n`], error);
  }
  assertEquals(Deno.readTextFileSync(`${tools}/calls`), "-S\n--build\n");
  assertEquals(files(bare.build).filter((name) => !name.startsWith(".")), ["libtitan.so"]);
});

Deno.test("a library for another processor alone is built anew where that can be, and else used with a warning", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: true });
  const main = `import { library } from "${server.url}ffi/library.ts";\nconsole.log(library().path);`;
  Deno.writeTextFileSync(`${bare.folder}/main.ts`, main);
  const used = `${bare.build}/libtitan.so\n`, run = () => bare.run(["-A", "main.ts"], { PATH: "/nowhere" });
  // Asked in a program that may read what the system tells, as this one may not.
  const asks = `import { processorFeatures } from "${server.url}ffi/processor.ts";\nconsole.log(processorFeatures());`;
  Deno.writeTextFileSync(`${bare.folder}/processor.ts`, asks);
  const { out: features } = await bare.run(["-A", "processor.ts"], {});
  Deno.writeTextFileSync(`${bare.build}/.processor`, features.trim());
  assertEquals(await run(), { code: 0, out: used, error: "" });
  Deno.writeTextFileSync(`${bare.build}/.processor`, "avx");
  Deno.writeTextFileSync(`${bare.build}/.stamp`, "{}"); // so that setup builds
  const { code, out, error } = await run();
  assertEquals([code, out], [0, used]);
  assertMatch(
    error,
    /^The native library in \S+ was built for another processor: .*\nCannot build [^]*\nwarning: the library for/,
  );
});

Deno.test("what keeps a first use from building is told once, with what to do", async () => {
  await using server = await servePackage();
  using bare = new Bare(server, { isBuilt: false });
  Deno.writeTextFileSync(
    `${bare.folder}/main.ts`,
    `import { library } from "${server.url}ffi/library.ts";
library();`,
  );
  const { code, error } = await bare.run(["-A", "main.ts"], { PATH: "/nowhere" });
  assertEquals(code, 1);
  assertStringIncludes(error, "\nCannot build libtitan: a C++ compiler, CMake and Make or Ninja missing\n  expected: ");
  assertStringIncludes(
    error,
    "LibraryError: The native library libtitan could not be built: a message above says why\n",
  );
  assertEquals(error.includes("Cannot open the native library"), false);
  const homeless = await bare.run(["-A", "main.ts"], { HOME: "", XDG_CACHE_HOME: "" });
  assertEquals(homeless.code, 1);
  assertStringIncludes(homeless.error, "  fix: set XDG_CACHE_HOME to a folder for the library that is then built, or ");
});
