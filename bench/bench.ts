/** Training speed of this library beside PyTorch's and others': `deno task bench --help`.
 * Each contestant is a process of its own; they take turns, round by round, so that a busy minute hits all of them.
 * How to read the figures: `bench/README.md`.
 * @module */

import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { Device } from "../ffi/device.ts";
import { type Arguments, filled, parseArguments, runBench, usage } from "./arguments.ts";
import { speedSvg } from "./chart.ts";
import { type Case, numberAfter, parseRun, type Results, type Run, table, withFigures } from "./report.ts";

const here = (name: string): string => decodeURIComponent(new URL(name, import.meta.url).pathname);

interface Contestant {
  readonly name: string;
  command(size: string, dtype: string): readonly string[];
}

/** Runs a command to its end. Returns what it printed, and how long it took to print a line `first step`, if it did.
 * @throws Error with the tail of its error stream when it fails. */
async function run([program, ...args]: readonly string[]): Promise<{ output: string; firstStepSeconds?: number }> {
  const start = performance.now();
  const process = new Deno.Command(program, { args, stdout: "piped", stderr: "piped" }).spawn();
  const errors = new Response(process.stderr).text();
  let output = "", firstStepSeconds: number | undefined;
  for await (const text of process.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    if (/^first step$/m.test(output)) firstStepSeconds ??= (performance.now() - start) / 1000;
  }
  const { code } = await process.status;
  if (code !== 0) {
    const tail = (await errors).trim().split("\n").slice(-15).join("\n");
    throw new Error(`${[program, ...args].join(" ")}\n  ended with code ${code}:\n${tail}`);
  }
  await errors;
  return { output, firstStepSeconds };
}

/** Path of the Python of `bench/.venv`, which is made and filled from `requirements.txt` if it is not there yet.
 * @param python interpreter that makes it. @param device that PyTorch is to use.
 * @throws Error where PyTorch finds no GPU, and is to use one. */
export async function virtualEnvironment(python: string, device: Arguments["device"] = "cpu"): Promise<string> {
  const inside = here(".venv/bin/python");
  const succeeds = (program: string) => run([inside, "-c", program]).then(() => true, () => false);
  const ready = await succeeds("import torch, transformers");
  if (!ready) {
    console.log("Installing PyTorch and transformers into bench/.venv");
    await run([python, "-m", "venv", "--clear", here(".venv")]);
    await run([inside, "-m", "pip", "install", "--quiet", "--requirement", here("requirements.txt")]);
  }
  if (device === "cuda" && !await succeeds("import torch; assert torch.cuda.is_available()")) {
    throw new Error(
      "PyTorch of bench/.venv finds no GPU\n  expected: a build for CUDA, and a driver that is new enough for it\n" +
        "  fix: remove bench/.venv and PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL of CPU builds; or --skip pytorch --skip pytorch-compiled",
    );
  }
  return inside;
}

const deno = (file: string): string[] => [Deno.execPath(), "run", "--quiet", "-A", here(file)];

async function contestants({ device, steps, threads, skip, python, peers }: Arguments): Promise<Contestant[]> {
  const common = [
    "--device",
    device,
    "--steps",
    `${steps}`,
    ...(threads === undefined ? [] : ["--threads", `${threads}`]),
  ];
  const pytorch = skip.has("pytorch") && skip.has("pytorch-compiled")
    ? []
    : [await virtualEnvironment(python, device), here("pytorch_llama.py")];
  const ours: Record<string, readonly string[]> = {
    "ours": [...deno("ours.ts"), ...common],
    "pytorch": [...pytorch, ...common],
    "pytorch-compiled": [...pytorch, ...common, "--compile"],
  };
  return [
    ...Object.entries(ours).filter(([name]) => !skip.has(name)).map(([name, command]) => ({
      name,
      command: (size: string, dtype: string) => [...command, "--size", size, "--dtype", dtype],
    })),
    ...peers.map(({ name, command }) => ({
      name,
      command: (size: string, dtype: string) => ["sh", "-c", filled(command, { size, dtype, steps })],
    })),
  ];
}

/** Runs all contestants on one size in one dtype, taking turns. */
async function measure(field: readonly Contestant[], size: string, dtype: string, args: Arguments): Promise<Case> {
  const product = async (): Promise<number> => {
    const threads = args.threads === undefined ? [] : ["--threads", `${args.threads}`];
    const { output } = await run([...deno("product.ts"), "--dtype", dtype, "--device", args.device, ...threads]);
    return numberAfter("product GF/s", output)!;
  };
  const rounds = field.map(({ name }) => ({ name, runs: [] as Run[] }));
  console.log(`${size} ${dtype}`);
  for (let round = 1; round <= args.rounds; round++) {
    let before = await product();
    for (const [index, { name, command }] of field.entries()) {
      const { output, firstStepSeconds } = await run(command(size, dtype));
      const load = loadavg()[0].toFixed(1), after = await product();
      console.log(`  round ${round}  load ${load}  ${name}: ${output.trim().split("\n").at(-1)}`);
      rounds[index].runs.push({ ...parseRun(output), firstStepSeconds, productGflops: (before + after) / 2 });
      before = after;
    }
  }
  return { size, dtype, contestants: rounds };
}

/** What computes: this machine's processors and memory, or the GPU.
 * @throws TitanError where there is no GPU. */
function machineText(kind: Arguments["device"]): string {
  const memory = `${(totalmem() / 2 ** 30).toFixed(0)} GiB`, system = Deno.build.os;
  const host = `${cpus()[0].model.trim()}, ${availableParallelism()} cores, ${memory}, ${system}`;
  if (kind === "cpu") return host;
  using device = new Device({ kind });
  const { processor, level, threadsText } = device.info;
  return `${processor} (${level}), ${threadsText}; on ${host}`;
}

/** Runs what is asked for. What is measured so far is written after each case: a long run may be cut short. */
async function measureAll(args: Arguments): Promise<Results> {
  const machine = machineText(args.device), field = await contestants(args);
  const results = {
    date: new Date().toISOString(),
    machine,
    rounds: args.rounds,
    steps: args.steps,
    cases: [] as Case[],
  };
  console.log(`${results.machine}; ${args.rounds} rounds of ${args.steps} steps`);
  for (const size of args.sizes) {
    for (const dtype of args.dtypes) {
      results.cases.push(await measure(field, size, dtype, args));
      console.log(`\n${table(results.cases.slice(-1))}\n`);
      if (args.json !== undefined) await Deno.writeTextFile(args.json, JSON.stringify(results, null, 2) + "\n");
    }
  }
  return results;
}

async function main(args: Arguments): Promise<void> {
  const results: Results = args.from === undefined
    ? await measureAll(args)
    : JSON.parse(await Deno.readTextFile(args.from));
  if (results.cases.length > 1 || args.from !== undefined) console.log(table(results.cases));
  const pictures = [...(args.svg === undefined ? [] : [args.svg]), ...(args.readme ? [here("speed.svg")] : [])];
  for (const file of pictures) await Deno.writeTextFile(file, speedSvg(results.cases));
  if (args.readme) {
    const file = here("README.md");
    await Deno.writeTextFile(file, withFigures(await Deno.readTextFile(file), results));
    await run([Deno.execPath(), "fmt", "--quiet", file, here("speed.svg")]);
  }
}

if (import.meta.main) {
  await runBench(async () => {
    const args = parseArguments(Deno.args);
    if (args.help) console.log(usage);
    else await main(args);
  });
}
