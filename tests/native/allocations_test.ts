/** Counts what the native process allocates in steps 2 to 10 of a real training step: the debug model with two microbatches. */
import { assertEquals, assertMatch } from "@std/assert";
import { Flag } from "../../ffi/symbols.ts";
import { llama } from "../../model/llama.ts";
import { compileStep } from "../../train/step_plan.ts";

/** `.ci/run` names the sanitizers' build here: nothing is counted then, but the step runs under them. */
const build = new URL(`../../${Deno.env.get("TITAN_TEST_BUILD") ?? "build/cmake"}`, import.meta.url).pathname;
const BATCH = 2, SEQ_LEN = 64, ACCUMULATION = 2;

async function run(command: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder().decode(stdout);
  assertEquals(code, 0, `${command}\n${text}${new TextDecoder().decode(stderr)}`);
  return text;
}

Deno.test("steps 2 to 10 of a training run allocate no native memory", async () => {
  await run("cmake", "--build", build, "--target", "run_program", "--parallel", "2");
  const { program } = compileStep({
    model: llama("debug"),
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    dtype: "f32",
    batch: BATCH,
    seqLen: SEQ_LEN,
    accumulation: ACCUMULATION,
    threads: 2,
  });
  const [initialize, microbatch, update] = program.sections;
  const last = ACCUMULATION * microbatch.inputBytes, after = microbatch.outputBytes;
  const input = new DataView(new ArrayBuffer(last + update.inputBytes));
  for (let k = 0; k < ACCUMULATION; k++) {
    for (const { name, offset } of microbatch.inputs) {
      for (let i = 0; i < BATCH * SEQ_LEN; i++) {
        const value = name === "positions" ? i % SEQ_LEN : (i * 97 + 31 * k) % 2048;
        input.setInt32(k * microbatch.inputBytes + offset + 4 * i, value, true);
      }
    }
  }
  const scalars: Record<string, number> = { lr: 1e-3, step: 1 };
  for (const { name, offset } of update.inputs) input.setFloat32(last + offset, scalars[name], true);
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/program`, program.bytes);
    await Deno.writeFile(`${folder}/input`, new Uint8Array(input.buffer));
    const action = (section: number, flags: number, inputBase: number, outputBase: number) =>
      [section, flags, inputBase, outputBase].join(":");
    const training = [
      action(microbatch.index, Flag.FIRST, 0, 0),
      action(microbatch.index, 0, microbatch.inputBytes, 0),
      action(update.index, 0, last, after),
    ];
    const steps = (...actions: string[]) =>
      run(`${build}/run_program`, `${folder}/program`, `${folder}/input`, "2", "10", ...actions);
    assertMatch(await steps(action(initialize.index, Flag.FIRST, 0, 0), ...training), /^level .*\nallocations 0\n/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
