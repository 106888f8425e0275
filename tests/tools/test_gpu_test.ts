import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";

const SCRIPT = fromFileUrl(new URL("../gpu.ts", import.meta.url));

async function testGpu(...args: string[]): Promise<{ code: number; text: string }> {
  const command = ["run", "--no-check", "-A", SCRIPT, ...args], env = { TITAN_CUDA: "/nowhere/libtitan_cuda.so" };
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: command, env }).output();
  return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}

const isHere = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"].some((path) => {
  try {
    return Deno.statSync(path) !== undefined;
  } catch {
    return false;
  }
});

Deno.test("without a GPU test:gpu passes nothing: it says so and ends with 77; where there is one that fails to open, with 1", async () => {
  const { code, text } = await testGpu();
  assertEquals(code, isHere ? 1 : 77);
  assertStringIncludes(text, "there is no module for GPUs, which would be /nowhere/libtitan_cuda.so");
  assertEquals(text.includes("fix: run this on such a machine, or test:gpu --emulated here"), !isHere);
  assertEquals(/passed/.test(text), false);
});

Deno.test("the cases that a GPU would run are counted, every op under each tool of compute-sanitizer as well", async () => {
  const { code, text } = await testGpu("--count");
  assertEquals(code, 0, text);
  const [, cases] = /^GPU cases: (\d+) not run here\n$/.exec(text)!;
  assert(Number(cases) > 1000, text);
});

Deno.test("test:gpu refuses what it does not know", async () => {
  assertEquals(await testGpu("--fast"), {
    code: 1,
    text: "test:gpu has no --fast\n  expected: --emulated, --count, or nothing\n",
  });
});
