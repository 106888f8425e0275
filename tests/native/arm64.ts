/**
 * Checks libtitan for arm64 on a machine of another kind: `deno task test:arm64` compiles library and native tests for it, runs these in an
 * emulator at every level that arm64 has, sees that a processor without bf16 gets the level below, and compares ten training steps of the
 * debug model with those of this machine, in f32 and with products in bf16. `--steps` does all but the native tests. On Debian:
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

const BUILD = "build/arm64", STEPS = 10, SEQ_LEN = 16, THREADS = 2;
/** The losses of both machines differ by no more. Levels sum in different orders, and a sum that is rounded to bf16 can fall to either side. */
const TOLERANCES = { f32: 1e-4, bf16: 1e-3 } as const;
type Multiplied = keyof typeof TOLERANCES;
const EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"], OLD = ["-cpu", "cortex-a72"];

async function run(...[command, ...args]: string[]): Promise<void> {
  const { code } = await new Deno.Command(command, { args }).spawn().status;
  if (code === 0) return;
  console.error(`${command} ${args.join(" ")} ended with ${code}`);
  Deno.exit(1);
}

/** Ten steps on one batch as one list of actions, with all that they read. */
async function training(param: Multiplied) {
  const { program } = compileStep({
    model: llama("debug"),
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
    dtype: "f32",
    precision: { param, reduce: "f32", stored: "f32" },
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
  const { tokens, targets, positions } = (await loader.next())!;
  const rows: Record<string, Int32Array> = { tokens, targets, positions };
  for (let step = 0; step < STEPS; step++) {
    const base = initialize.inputBytes + step * stride;
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

/** Runs `run_program` in the emulator, of the best level or of the one that `level` names. */
async function emulated(args: string[], cpu: string[] = [], level = "") {
  const [command, ...rest] = EMULATOR, env = { TITAN_CPU: level };
  const all = [...rest, ...cpu, `${BUILD}/run_program`, ...args];
  const { code, stdout, stderr } = await new Deno.Command(command, { args: all, env }).output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

function expect(isRight: boolean, what: string): void {
  console.log(`${isRight ? "ok" : "FAILED"}: ${what}`);
  if (!isRight) Deno.exit(1);
}

async function comparedSteps(multiplied: Multiplied, levels: Record<string, string[]>): Promise<void> {
  const { bytes, input, list, losses, outputBytes } = await training(multiplied);
  using device = new Device({ threads: THREADS });
  using program = await Program.create(device, bytes, { inputBytes: input.length, outputBytes });
  program.input.set(input);
  await program.run(new Actions(list));
  const tables = [losses(program.output)], folder = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${folder}/program`, bytes);
    await Deno.writeFile(`${folder}/input`, input);
    const actions = list.map(({ section, flags, inputBase, outputBase }) =>
      [section, flags, inputBase, outputBase].join(":")
    );
    const args = [`${folder}/program`, `${folder}/input`, `${THREADS}`, "1", ...actions];
    for (const [level, cpu] of Object.entries(levels)) {
      const { stdout, stderr } = await emulated(args, cpu);
      const found = /^level (.*)$/m.exec(stdout)?.[1], hex = /^output ([0-9a-f]+)$/m.exec(stdout)?.[1];
      if (hex === undefined) throw new Error(`run_program gave no output in the emulator: ${stderr}`);
      expect(found === level, `${cpu.join(" ") || "the emulator's best processor"} gets the level ${found}`);
      tables.push(losses(Uint8Array.fromHex(hex)));
    }
    const { code, stderr } = await emulated(args, OLD, "neon_bf16");
    expect(
      code !== 0 && stderr.includes("TITAN_CPU is neon_bf16, a level that this machine does not support"),
      "a processor without bf16 refuses neon_bf16",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const names = [`${Deno.build.arch} ${device.info.level}`, ...Object.keys(levels).map((level) => `arm64 ${level}`)];
  console.log(`losses, products in ${multiplied}: ${names.join(", ")}`);
  for (let step = 0; step < STEPS; step++) {
    console.log(`step ${step + 1}: ${tables.map((losses) => losses[step].toFixed(6)).join("  ")}`);
  }
  const most = Math.max(...tables.flatMap((losses) => losses.map((loss, i) => Math.abs(loss - tables[0][i]))));
  expect(
    most <= TOLERANCES[multiplied],
    `largest difference ${most.toExponential(2)}, at most ${TOLERANCES[multiplied]}`,
  );
  expect(tables.every((losses) => losses[STEPS - 1] < losses[0]), "the loss falls");
}

const configure = ["-S", "csrc", "-B", BUILD, "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"];
const tools = ["-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++", `-DCMAKE_CROSSCOMPILING_EMULATOR=${EMULATOR.join(";")}`];
const parts = ["-DTITAN_BLAS=none", "-DTITAN_MPI=none", "-DTITAN_GLOO=none"],
  jobs = String(navigator.hardwareConcurrency);
await run("cmake", ...configure, ...tools, ...parts);
const isShort = Deno.args.includes("--steps");
await run("cmake", "--build", BUILD, "--target", isShort ? "run_program" : "titan_tests", "--parallel", jobs);
if (!isShort) await run("ctest", "--test-dir", BUILD, "--output-on-failure", "--no-tests=error", "--parallel", jobs);
const levels = { neon_bf16: [], portable: OLD };
await comparedSteps("f32", levels);
await comparedSteps("bf16", levels);
