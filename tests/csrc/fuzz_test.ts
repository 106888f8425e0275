/** The loader's fuzzer, for a moment and without sanitizers: `.ci/run` runs it longer and under them. */
import { assertEquals, assertMatch } from "@std/assert";
import { temporaryFolder } from "../data/fixture.ts";
import { build, run } from "./run.ts";
import { writePrograms } from "./write_programs.ts";

Deno.test("mutants of real programs are refused, or stay inside of their buffers", async () => {
  await using folder = await temporaryFolder();
  const programs = await writePrograms(folder.path);
  await run("cmake", "--build", build, "--target", "fuzz_program", "--parallel", "2");
  for (const program of programs) {
    assertEquals(await run(`${build}/fuzz_program`, "--replay", program), `fuzz_program: ${program} is accepted\n`);
  }
  const text = await run(`${build}/fuzz_program`, "--seconds", "2", "--save", folder.path, ...programs);
  assertMatch(text, /^fuzz_program: [1-9]\d* executions in 2 s from seed 1, \d+ accepted, .*, no finding\n$/);
});
