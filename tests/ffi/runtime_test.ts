import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";

const root = new URL("../../", import.meta.url);

Deno.test("under Node the package says in one message that it needs Deno, and how Node starts it", async () => {
  const module = await Deno.readTextFile(new URL("ffi/runtime.ts", root)), folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/runtime.mjs`, module);
    const command = new Deno.Command("node", { args: [`${folder}/runtime.mjs`] }),
      { code, stderr } = await command.output();
    const text = new TextDecoder().decode(stderr);
    assertEquals(code, 1);
    assertStringIncludes(text, "Error: libtitan needs Deno: ");
    assertStringIncludes(text, "; this is Node ");
    assertStringIncludes(text, "\n  fix: npx -y deno run -A FILE\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("nothing of the package is evaluated before it says so", async () => {
  const text = await Deno.readTextFile(fromFileUrl(new URL("mod.ts", root)));
  assertEquals(
    /^(?:import|export) .*?(["'][^"']+["'])/ms.exec(text.replace(/\/\*\*[^]*?\*\//, ""))?.[1],
    '"./ffi/runtime.ts"',
  );
});
