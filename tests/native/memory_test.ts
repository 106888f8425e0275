/** What is planned is what the process has: the system's own account of the arena, byte for byte. */
import { assert, assertEquals } from "@std/assert";
import { Device } from "../../ffi/device.ts";
import { library } from "../../ffi/library.ts";
import { compileStep } from "../../train/step_plan.ts";
import { StepProgram } from "../../train/step_program.ts";
import { arenaOf, mappingsOf } from "../../tools/process_memory.ts";
import { tinyLlama } from "../model/tiny.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

Deno.test({
  name: "the arena is mapped and resident as planned, to the byte, before the first step and after it",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    using device = new Device({ threads: 2 });
    const compiled = compileStep({
      model: tinyLlama({ dim: 128, vocabSize: 3000 }),
      optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
      dtype: "f32",
      batch: 2,
      seqLen: 64,
      accumulation: 1,
      threads: 2,
    });
    const { arenaBytes } = compiled.plan, whole = { bytes: arenaBytes, residentBytes: arenaBytes };
    // Not a whole number of huge pages, whose rest would be resident too.
    assert(arenaBytes > 4 * 2 ** 20 && arenaBytes % 2 ** 21 !== 0);
    using program = await StepProgram.load(device, compiled, 1);
    const arena = async () => {
      const { bytes, residentBytes } = arenaOf(await mappingsOf(Deno.pid), arenaBytes)!;
      return { bytes, residentBytes };
    };
    assertEquals(await arena(), whole);
    await program.initialize(0);
    await program.step(1, 1e-3);
    assertEquals(await arena(), whole);
  },
});
