import { assertEquals } from "@std/assert";
import { processorFeatures } from "../../ffi/processor.ts";

const read = Deno.readTextFileSync;

/** What is told where the system says this of its processor. */
function toldBy(text: string | Error): string | undefined {
  Deno.readTextFileSync = () => {
    if (text instanceof Error) throw text;
    return text;
  };
  try {
    return processorFeatures();
  } finally {
    Deno.readTextFileSync = read;
  }
}

Deno.test("features are those of vectors, in one order, whatever else there is", () => {
  const x86 = toldBy("model name\t: A\nflags\t\t: fpu sse2 fma avx2 bmi2 amx_tile\nbugs\t\t: none\n");
  assertEquals(x86, "amx_tile avx2 bmi2 fma");
  assertEquals(toldBy("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n"), "bf16 i8mm");
  assertEquals(toldBy("flags\t: fpu sse2\n"), "");
});

Deno.test("where nobody tells, nothing is known", () => {
  assertEquals(toldBy("processor\t: 0\n"), undefined);
  assertEquals(toldBy(new Deno.errors.NotCapable("read")), undefined);
});
