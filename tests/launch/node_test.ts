import { assertEquals, assertMatch } from "@std/assert";

const root = new URL("../../", import.meta.url).pathname;

/** A folder with a program that Node runs of the package, and a Deno that is a script. */
class Installed implements AsyncDisposable {
  readonly folder: string = Deno.makeTempDirSync();

  /** @param deno what stands in for Deno; without it, there is none. */
  static async with(deno?: string): Promise<Installed> {
    const made = new Installed(), { folder } = made;
    const args = ["transpile", "--output", `${folder}/node.mjs`, "launch/node.ts"];
    assertEquals((await new Deno.Command(Deno.execPath(), { args, cwd: root, stderr: "null" }).output()).code, 0);
    const own = 'import { runAgainByDeno } from "./node.mjs";\nawait runAgainByDeno(import.meta.url);\n';
    Deno.writeTextFileSync(`${folder}/own.mjs`, own);
    Deno.writeTextFileSync(`${folder}/main.mjs`, 'import "./own.mjs";\nconsole.log("Node goes on");\n');
    if (deno === undefined) return made;
    Deno.mkdirSync(`${folder}/node_modules/deno`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/node_modules/deno/package.json`, '{ "name": "deno" }');
    Deno.writeTextFileSync(`${folder}/node_modules/deno/deno`, `#!/bin/sh\n${deno}\n`, { mode: 0o755 });
    return made;
  }

  start(...args: string[]): Deno.ChildProcess {
    const options = { args, cwd: this.folder, stdin: "null", stdout: "piped", stderr: "piped" } as const;
    return new Deno.Command("node", options).spawn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function ended(
  child: Deno.ChildProcess,
): Promise<{ code: number; signal: string | null; out: string; error: string }> {
  const { code, signal, stdout, stderr } = await child.output();
  const [out, error] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, signal, out, error };
}

Deno.test("under Node a program of the package is run again by Deno, whose exit code it ends with, and Node goes no further", async () => {
  await using installed = await Installed.with('echo "$@"; exit 7');
  const main = `${Deno.realPathSync(installed.folder)}/main.mjs`;
  assertEquals(await ended(installed.start("main.mjs", "--steps", "two words")), {
    code: 7,
    signal: null,
    out: `run --quiet --node-modules-dir=manual -A ${main} --steps two words\n`,
    error: `libtitan: Node opens no native library, so Deno runs ${main} again\n`,
  });
  // npm has been told to run no scripts of packages.
  const place = `${installed.folder}/node_modules/deno`, later = JSON.stringify(`${place}/later`);
  Deno.renameSync(`${place}/deno`, `${place}/later`);
  Deno.writeTextFileSync(`${place}/install_api.cjs`, `exports.runInstall = () => ${later};\n`);
  assertEquals((await ended(installed.start("main.mjs"))).code, 7);
  const { error } = await ended(installed.start("--no-warnings", "main.mjs"));
  assertMatch(error, / again \(without Node's --no-warnings\)\n$/);
});

Deno.test("signals go on to Deno, and a signal that ends it ends Node", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const name = signal.slice(3);
    await using installed = await Installed.with(
      `trap 'trap - ${name}; echo got it; kill -${name} $$' ${name}; echo ready; for i in $(seq 1200); do sleep 0.05; done`,
    );
    const child = installed.start("main.mjs");
    let out = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (!out.includes("ready") && text.includes("ready")) child.kill(signal);
      out += text;
    }
    const status = await child.status;
    await child.stderr.cancel();
    assertEquals([out, status.signal], ["ready\ngot it\n", signal]);
  }
});

Deno.test("where there is no Deno, or no file to run, one message says what to type", async () => {
  await using installed = await Installed.with();
  const { code, error } = await ended(installed.start("main.mjs"));
  assertEquals(code, 1);
  assertMatch(error, /Error: Cannot find Deno, .*\n {2}expected: .*\n {2}fix: npm install deno\n/);
  const text = await ended(installed.start("--input-type=module", "-e", 'import "./own.mjs";'));
  assertEquals(text.code, 1);
  assertMatch(
    text.error,
    /Node runs text that is no file\n {2}expected: a program in a file\n {2}fix: npx deno run -A FILE\n/,
  );
});
