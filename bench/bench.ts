/** Training speed of this library beside PyTorch's and others': `deno task bench --help`.
 * Each contestant is a process of its own; they take turns, round by round, so that a busy minute hits all of them.
 * How to read the figures: `bench/README.md`.
 * @module */

import { availableParallelism, cpus, loadavg } from "node:os";
import { type Arguments, parseArguments, usage } from "./arguments.ts";
import { parseRun, type Run, sizeNamed, summarise, table } from "./report.ts";

const here = (name: string): string => decodeURIComponent(new URL(name, import.meta.url).pathname);

interface Contestant {
  readonly name: string;
  readonly command: readonly string[];
}

/** Runs a command to its end and returns what it printed.
 * @throws Error with the tail of its error stream when it fails. */
async function run([program, ...args]: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const decoder = new TextDecoder();
  if (code !== 0) {
    const tail = decoder.decode(stderr).trim().split("\n").slice(-15).join("\n");
    throw new Error(`${[program, ...args].join(" ")}\n  ended with code ${code}:\n${tail}`);
  }
  return decoder.decode(stdout);
}

/** Path of the Python of `bench/.venv`, which is made and filled from `requirements.txt` if it is not there yet. */
async function virtualEnvironment(python: string): Promise<string> {
  const inside = here(".venv/bin/python");
  const ready = await run([inside, "-c", "import torch"]).then(() => true, () => false);
  if (!ready) {
    console.log("Installing PyTorch into bench/.venv");
    await run([python, "-m", "venv", "--clear", here(".venv")]);
    await run([inside, "-m", "pip", "install", "--quiet", "--requirement", here("requirements.txt")]);
  }
  return inside;
}

async function contestants(args: Arguments): Promise<Contestant[]> {
  const common = ["--size", args.size, "--steps", `${args.steps}`, "--dtype", args.dtype];
  if (args.threads !== undefined) common.push("--threads", `${args.threads}`);
  const all: Contestant[] = [];
  if (!args.skip.has("ours")) {
    all.push({ name: "ours", command: [Deno.execPath(), "run", "--quiet", "-A", here("ours.ts"), ...common] });
  }
  if (!args.skip.has("pytorch")) {
    const command = [await virtualEnvironment(args.python), here("pytorch_llama.py"), ...common];
    all.push({ name: "pytorch", command: args.compile ? [...command, "--compile"] : command });
  }
  for (const { name, command } of args.peers) all.push({ name, command: ["sh", "-c", command] });
  return all;
}

async function main(args: Arguments): Promise<void> {
  const size = sizeNamed(args.size);
  const field = await contestants(args);
  const runs = new Map<string, Run[]>(field.map(({ name }) => [name, []]));
  const machine = `${cpus()[0].model.trim()}, ${availableParallelism()} cores`;
  console.log(
    `${args.size}: ${JSON.stringify(size)}\n${machine}; rounds x steps: ${args.rounds} x ${args.steps}, ${args.dtype}`,
  );
  for (let round = 1; round <= args.rounds; round++) {
    for (const { name, command } of field) {
      const output = await run(command);
      const load = loadavg()[0].toFixed(1);
      console.log(`  round ${round}  load ${load}  ${name}: ${output.trim().split("\n").at(-1)}`);
      runs.get(name)!.push(parseRun(output));
    }
  }
  const summaries = summarise(runs, size);
  console.log(`\n${table(summaries)}`);
  if (args.json !== undefined) {
    const record = {
      date: new Date().toISOString(),
      machine,
      arguments: { ...args, skip: [...args.skip] },
      size,
      contestants: summaries.map((summary) => ({ ...summary, runs: runs.get(summary.name) })),
    };
    await Deno.writeTextFile(args.json, JSON.stringify(record, null, 2) + "\n");
  }
}

if (import.meta.main) {
  try {
    const args = parseArguments(Deno.args);
    if (args.help) console.log(usage);
    else await main(args);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
