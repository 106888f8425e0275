import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { candidates, library, LibraryError, openFirst, userFolder } from "../../ffi/library.ts";
import { ABI_VERSION, symbols } from "../../ffi/symbols.ts";

const { path } = library();

async function output(command: string, args: string[], env: Record<string, string> = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args, env: { NO_COLOR: "1", ...env } }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return code === 0 ? text : `exit ${code}: ${text}`;
}

/** Runs a module that may import ffi/ by "ffi/...", with these permissions alone. */
async function script(source: string, permissions: string[] = [], env: Record<string, string> = {}): Promise<string> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    await Deno.writeTextFile(file, source.replaceAll('"ffi/', `"${new URL("../../ffi/", import.meta.url)}`));
    return await output(Deno.execPath(), ["run", "--quiet", "--no-prompt", ...permissions, file], env);
  } finally {
    await Deno.remove(file);
  }
}

Deno.test("the library exports what titan.h declares and nothing else", async () => {
  const table = await output("nm", ["-D", "--defined-only", path]);
  const exported = table.trim().split("\n").map((line) => line.split(" ").at(-1));
  assertEquals(exported.sort(), Object.keys(symbols).sort());
});

Deno.test("without a library the error lists every place and why it is not used", () => {
  const places = [{ name: "TITAN_LIB", reason: "not set" }, { name: "the build folder", path: "/nowhere/libtitan.so" }];
  const { message } = assertThrows(() => openFirst(places), LibraryError);
  const lines = message.split("\n");
  assertEquals(lines.slice(0, 2), ["Cannot open the native library libtitan", "  - TITAN_LIB: not set"]);
  assertStringIncludes(lines[2], "  - the build folder, /nowhere/libtitan.so: ");
  assertEquals(lines.slice(3), [
    `  expected: a library with ABI version ${ABI_VERSION} at one of these places`,
    "  fix: run `deno task build` in a checkout, or set TITAN_LIB to the library's path and run with " +
    "`--allow-env=TITAN_LIB --allow-ffi=PATH` (`deno task train` allows build/ only)",
  ]);
});

Deno.test("a compiled program looks into itself, beside itself, then into the user's cache; a file's package into its checkout alone", () => {
  const places = (isCompiled: boolean) => candidates(isCompiled).slice(1).map(({ name, path }) => [name, path]);
  const own = fromFileUrl(new URL("../../build/libtitan.so", import.meta.url));
  const cached = `${userFolder()}/build/libtitan.so`, beside = Deno.execPath().replace(/[^/]*$/, "libtitan.so");
  assertEquals(places(true), [
    ["this program itself", own],
    ["the folder of this program", beside],
    ["the user's cache", cached],
  ]);
  assertEquals(places(false), [["the checkout's build folder", own]]);
});

Deno.test("a library of another version is refused by its version, though it lacks our functions", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/old.cpp`, 'extern "C" unsigned titan_abi_version() { return 999; }\n');
    assertEquals(await output("g++", ["-shared", "-fPIC", "-o", `${folder}/libtitan.so`, `${folder}/old.cpp`]), "");
    const { message } = assertThrows(
      () => openFirst([{ name: "TITAN_LIB", path: `${folder}/libtitan.so` }]),
      LibraryError,
    );
    const expected = `libtitan.so: it is of another version: its ABI version is 999, this package's is ${ABI_VERSION}`;
    assertStringIncludes(message, expected);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a TITAN_LIB that is set is used or refused, and never passed over", async () => {
  const source = 'import { library } from "ffi/library.ts"; console.log(library().path);';
  const permissions = ["--allow-env=TITAN_LIB", "--allow-ffi"];
  assertEquals(await script(source, permissions, { TITAN_LIB: path }), `${path}\n`);
  assertStringIncludes(await script(source, permissions, { TITAN_LIB: "/nowhere/x.so" }), "TITAN_LIB, /nowhere/x.so: ");
});

Deno.test("leave to open this one file is all that a run needs", async () => {
  const source =
    'import { Device } from "ffi/device.ts"; using device = new Device(); console.log(await device.measure({ n: 8 }) > 0);';
  assertEquals(await script(source, [`--allow-ffi=${path}`]), "true\n");
});

Deno.test("importing opens nothing, and without leave the error says which is missing", async () => {
  const source = 'import { library } from "ffi/library.ts"; console.log("imported"); library();';
  const text = await script(source);
  assert(text.startsWith("exit 1: imported\n"), text);
  assertStringIncludes(text, "TITAN_LIB: not looked at, for want of --allow-env=TITAN_LIB");
  assertStringIncludes(text, `${path}: Requires ffi access to`);
});

Deno.test("a process may end while kernels run", async () => {
  const source = `import { Device } from "ffi/device.ts";
    const device = new Device();
    device.measure({ n: 1024 });
    setTimeout(() => Deno.exit(7), 30);`;
  assertEquals(await script(source, [`--allow-ffi=${path}`]), "exit 7: ");
});
