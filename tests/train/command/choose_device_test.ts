import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { chooseDevice } from "../../../train/command/choose_device.ts";

const SOURCE = fromFileUrl(new URL("../../../train/command/choose_device.ts", import.meta.url));

Deno.test("a kind of device that is given is kept", () => {
  for (const kind of ["cpu", "cuda"] as const) assertEquals(chooseDevice(kind), kind);
});

/** What a process of these variables chooses, and says. */
async function chosen(env: Record<string, string>): Promise<string> {
  const program = `import { chooseDevice } from ${JSON.stringify(SOURCE)}; const warnings = [];
    console.log(chooseDevice("auto", warnings), ...warnings);`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program], env }).output();
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

Deno.test("where no module for GPUs can be opened, or no library, auto is the CPU", async () => {
  const why = /^cpu( it runs on the CPU, as cannot open the module for GPUs.*)?\n$/; // said where the module is built
  assertMatch(await chosen({ TITAN_CUDA: "/nowhere/libtitan_cuda.so" }), why);
  assertEquals(await chosen({ TITAN_LIB: "/nowhere/libtitan.so" }), "cpu\n");
});
