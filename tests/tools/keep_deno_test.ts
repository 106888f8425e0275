import { assertEquals, assertStringIncludes } from "@std/assert";

const module = new URL("../../tools/keep_deno.ts", import.meta.url);

/** A folder in which `keepDeno` has run for a program, and what the script then says. */
async function inFolder(
  fn: (root: string, keep: (program: string) => Promise<string>) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir();
  const run = async (command: string, ...args: string[]) => {
    const env = { PATH: `${root}/bin:${Deno.env.get("PATH")}` };
    const { stdout, stderr } = await new Deno.Command(command, { args, cwd: root, env }).output();
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  };
  try {
    await Deno.mkdir(`${root}/bin`);
    await fn(root, async (program) => {
      const source = `import { keepDeno } from ${JSON.stringify(module.href)}; keepDeno(${JSON.stringify(program)});`;
      await Deno.writeTextFile(`${root}/keep.ts`, source);
      assertEquals(await run(Deno.execPath(), "run", "--no-prompt", "-A", "--quiet", `${root}/keep.ts`), "");
      return await run(`${root}/node_modules/.bin/deno`, "a  b", "c");
    });
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("the Deno that is kept is started with its arguments, and stays the same until it is gone", () =>
  inFolder(async (root, keep) => {
    const program = (name: string, says: string) =>
      Deno.writeTextFile(`${root}/${name}`, `#!/bin/sh\necho ${says} "<$1>" "<$2>"\n`, { mode: 0o755 });
    await program("it's one", "first");
    await program("two", "second");
    await program("bin/npx", "npx");
    assertEquals(await keep(`${root}/it's one`), "first <a  b> <c>\n");
    assertEquals(await keep(`${root}/two`), "first <a  b> <c>\n");
    await Deno.remove(`${root}/it's one`);
    assertEquals(await keep(`${root}/two`), "npx <-y> <deno>\n"); // which would fetch one
    assertEquals(await keep(`${root}/two`), "second <a  b> <c>\n");
  }));

Deno.test("npx takes the Deno that is kept in its folder", () =>
  inFolder(async (root, keep) => {
    assertStringIncludes(await keep(Deno.execPath()), "error"); // it knows no command "a  b"
    // No registry may be asked: there is none at this address.
    const { stdout } = await new Deno.Command("npx", {
      args: ["-y", "deno", "eval", "console.log(Deno.execPath())"],
      cwd: root,
      env: { npm_config_registry: "http://127.0.0.1:9" },
    }).output();
    assertEquals(new TextDecoder().decode(stdout).trim(), Deno.execPath());
  }));
