import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { chooseDevice } from "../../../train/command/choose_device.ts";

const SOURCE = fromFileUrl(new URL("../../../train/command/choose_device.ts", import.meta.url));

Deno.test("a kind of device that is given is kept", () => {
  for (const kind of ["cpu", "cuda"] as const) {
    const device = { kind, threads: 1 };
    chooseDevice(device);
    assertEquals(device, { kind, threads: 1 });
  }
});

Deno.test("where no module for GPUs can be opened, auto is the CPU", async () => {
  const program = `import { chooseDevice } from ${JSON.stringify(SOURCE)}; const device = { kind: "auto", threads: 0 };
    chooseDevice(device); console.log(device.kind);`;
  const env = { TITAN_CUDA: "/nowhere/libtitan_cuda.so", NO_COLOR: "1" };
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program], env }).output();
  assertMatch(new TextDecoder().decode(stdout), /^(on the CPU, as cannot open the module for GPUs.*\n)?cpu\n$/);
  assertEquals(new TextDecoder().decode(stderr), "");
});
