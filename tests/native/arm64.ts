/**
 * Checks libtitan for arm64 on a machine of another kind: `deno task test:arm64` compiles library and native tests for it, runs these in an
 * emulator, and compares ten training steps of the debug model with those of this machine. `--steps` does the last of these alone. On Debian:
 * apt-get install -y --no-install-recommends g++-aarch64-linux-gnu qemu-user
 * @module
 */
import { Loader } from "../../data/loader.ts";
import { type Action, Actions } from "../../ffi/buffer.ts";
import { Device } from "../../ffi/device.ts";
import { Program } from "../../ffi/program.ts";
import { Flag } from "../../ffi/symbols.ts";
import { llama } from "../../model/llama.ts";
import { compileStep } from "../../train/step_plan.ts";

const BUILD = "build/arm64", STEPS = 10, SEQ_LEN = 64, THREADS = 2, TOLERANCE = 1e-4;
const EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"];

async function run(...[command, ...args]: string[]): Promise<void> {
  const { code } = await new Deno.Command(command, { args }).spawn().status;
  if (code === 0) return;
  console.error(`${command} ${args.join(" ")} ended with ${code}`);
  Deno.exit(1);
}

/** Ten steps as one list of actions, with all that they read. */
async function training() {
  const { program } = compileStep({
    model: llama("debug"),
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    dtype: "f32",
    batch: 1,
    seqLen: SEQ_LEN,
    accumulation: 1,
    threads: THREADS,
  });
  const [initialize, microbatch, update] = program.sections, stride = microbatch.inputBytes + update.inputBytes;
  const list: Required<Pick<Action, "section" | "flags" | "inputBase" | "outputBase">>[] = [];
  list.push({ section: initialize.index, flags: Flag.FIRST, inputBase: 0, outputBase: 0 });
  const input = new DataView(new ArrayBuffer(initialize.inputBytes + STEPS * stride));
  await using loader = await Loader.open({ dataset: { name: "c4_test" }, batchSize: 1, seqLen: SEQ_LEN });
  for (let step = 0; step < STEPS; step++) {
    const base = initialize.inputBytes + step * stride, batch = await loader.next();
    const { tokens, targets, positions } = batch!, rows: Record<string, Int32Array> = { tokens, targets, positions };
    for (const { name, offset } of microbatch.inputs) {
      rows[name].forEach((value, i) => input.setInt32(base + offset + 4 * i, value, true));
    }
    const at = base + microbatch.inputBytes, scalars: Record<string, number> = { lr: 1e-3, step: step + 1 };
    for (const { name, offset } of update.inputs) input.setFloat32(at + offset, scalars[name], true);
    list.push({ section: microbatch.index, flags: Flag.FIRST, inputBase: base, outputBase: 0 });
    list.push({ section: update.index, flags: 0, inputBase: at, outputBase: step * update.outputBytes });
  }
  const { offset } = update.outputs.find(({ name }) => name === "loss")!;
  const losses = (output: Uint8Array<ArrayBuffer>) =>
    Array.from(
      { length: STEPS },
      (_, k) => new DataView(output.buffer).getFloat32(k * update.outputBytes + offset, true),
    );
  return {
    bytes: program.bytes,
    input: new Uint8Array(input.buffer),
    list,
    losses,
    outputBytes: STEPS * update.outputBytes,
  };
}

async function comparedSteps(): Promise<void> {
  const { bytes, input, list, losses, outputBytes } = await training();
  using device = new Device({ threads: THREADS });
  using program = await Program.create(device, bytes, { inputBytes: input.length, outputBytes });
  program.input.set(input);
  await program.run(new Actions(list));
  const own = losses(program.output), folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/program`, bytes);
    await Deno.writeFile(`${folder}/input`, input);
    const actions = list.map(({ section, flags, inputBase, outputBase }) =>
      [section, flags, inputBase, outputBase].join(":")
    );
    const args = [
      ...EMULATOR.slice(1),
      `${BUILD}/run_program`,
      `${folder}/program`,
      `${folder}/input`,
      `${THREADS}`,
      "1",
    ];
    const { stdout } = await new Deno.Command(EMULATOR[0], { args: [...args, ...actions], stderr: "inherit" }).output();
    const hex = /^output ([0-9a-f]+)$/m.exec(new TextDecoder().decode(stdout))?.[1];
    if (hex === undefined) throw new Error("run_program gave no output in the emulator");
    const other = losses(Uint8Array.fromHex(hex));
    let most = 0;
    for (const [i, loss] of own.entries()) {
      console.log(`step ${i + 1}: ${loss.toFixed(6)} on ${Deno.build.arch}, ${other[i].toFixed(6)} on arm64`);
      most = Math.max(most, Math.abs(loss - other[i]));
    }
    const learns = own[STEPS - 1] < own[0];
    console.log(`largest difference ${most.toExponential(2)}, at most ${TOLERANCE}; level here: ${device.info.level}`);
    if (!(most <= TOLERANCE && learns)) Deno.exit(1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const configure = ["-S", "csrc", "-B", BUILD, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"];
const tools = ["-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", `-DCMAKE_CROSSCOMPILING_EMULATOR=${EMULATOR.join(";")}`];
const parts = ["-DTITAN_BLAS=none", "-DTITAN_MPI=none", "-DTITAN_GLOO=none"],
  jobs = String(navigator.hardwareConcurrency);
await run("cmake", ...configure, ...tools, ...parts);
const isShort = Deno.args.includes("--steps");
await run("cmake", "--build", BUILD, "--target", isShort ? "run_program" : "titan_tests", "--parallel", jobs);
if (!isShort) await run("ctest", "--test-dir", BUILD, "--output-on-failure", "--no-tests=error");
await comparedSteps();
