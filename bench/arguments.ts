/** Command line of the bench.
 * @module */

import { parseArgs } from "node:util";
import { sizeNamed } from "./report.ts";

/** A peer given on the command line. */
export interface Peer {
  readonly name: string;
  /** For `sh -c`, with `{size}`, `{dtype}` and `{steps}` still in it. */
  readonly command: string;
}

/** What `deno task bench` was asked for. */
export interface Arguments {
  /** Where ours and PyTorch compute. */
  readonly device: "cpu" | "cuda";
  readonly sizes: readonly string[];
  readonly dtypes: readonly string[];
  readonly rounds: number;
  readonly steps: number;
  readonly threads?: number;
  readonly peers: readonly Peer[];
  readonly skip: ReadonlySet<string>;
  readonly python: string;
  readonly json?: string;
  readonly svg?: string;
  readonly readme: boolean;
  readonly from?: string;
  readonly help: boolean;
}

/** Contestants that always take part, unless they are skipped. */
export const builtIn = ["ours", "pytorch", "pytorch-compiled"] as const;

/** What is measured on a device unless sizes and dtypes are given: 8B with as many blocks as fit into 80 GB. */
const DEFAULTS = {
  cpu: { size: "debug", dtype: "f32" },
  cuda: { size: "debug,small,1B,8B-cut", dtype: "bf16" },
} as const;

/** Text of `--help`. */
export const usage = `deno task bench [options]: training speed of this library beside PyTorch and others

  --device NAME        cpu or cuda, an NVIDIA GPU, which PyTorch then uses, too (cpu)
  --size LIST          rows of bench/sizes.json, such as debug,mid (debug; on a GPU debug,small,1B,8B-cut)
  --dtype LIST         f32, bf16 or f32,bf16; bf16 is autocast in PyTorch (f32; on a GPU bf16)
  --rounds N           how often each contestant runs, taking turns (3)
  --steps N            timed steps per run, after 2 to warm up (5)
  --threads N          for ours and PyTorch (each one's default: all cores)
  --peer NAME=COMMAND  another contestant; {size}, {dtype} and {steps} are replaced. It may print a line "first step", and
                       prints a line "tokens/s N [best N] [peak GB N] [compile s N] [version TEXT]"; repeatable
  --skip NAME          leave out ours, pytorch or pytorch-compiled; repeatable
  --python COMMAND     interpreter that makes bench/.venv when there is none (python3)
  --json FILE          also write all figures there
  --svg FILE           also draw them there
  --readme             also write them into bench/README.md, drawn in bench/speed.svg
  --from FILE          run nothing: show, draw and write the figures that --json wrote
  --help               this text
`;

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`Cannot read --${name} "${text}"\n  expected: a whole number above 0`);
  return Number(text);
}

/** A peer given as `name=COMMAND`.
 * @throws Error when either part is missing. */
export function parsePeer(text: string): Peer {
  const cut = text.indexOf("=");
  const [name, command] = [text.slice(0, cut).trim(), text.slice(cut + 1).trim()];
  if (cut < 1 || !name || !command) {
    throw new Error(`Cannot read --peer "${text}"\n  expected: name=COMMAND\n  fix: --peer "mine=./train --steps 5"`);
  }
  return { name, command };
}

/** A peer's command with its placeholders filled. */
export function filled(command: string, values: { size: string; dtype: string; steps: number }): string {
  return command.replaceAll(/\{(size|dtype|steps)\}/g, (_, name: keyof typeof values) => String(values[name]));
}

/** Parses the command line.
 * @throws Error on an unknown option, a value that does not fit it, or when nobody is left to run. */
export function parseArguments(args: readonly string[]): Arguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      device: { type: "string", default: "cpu" },
      size: { type: "string" },
      dtype: { type: "string" },
      rounds: { type: "string", default: "3" },
      steps: { type: "string", default: "5" },
      threads: { type: "string" },
      peer: { type: "string", multiple: true, default: [] },
      skip: { type: "string", multiple: true, default: [] },
      python: { type: "string", default: "python3" },
      json: { type: "string" },
      svg: { type: "string" },
      readme: { type: "boolean", default: false },
      from: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const { device } = values;
  if (device !== "cpu" && device !== "cuda") {
    throw new Error(`Cannot read --device "${device}"\n  expected: cpu or cuda`);
  }
  const { size, dtype } = { ...DEFAULTS[device], ...values };
  const [sizes, dtypes] = [size, dtype].map((list) => [...new Set(list.split(",").map((s) => s.trim()))]);
  sizes.forEach(sizeNamed);
  const unknown = dtypes.find((dtype) => dtype !== "f32" && dtype !== "bf16");
  if (unknown !== undefined) throw new Error(`Cannot read --dtype "${unknown}"\n  expected: f32, bf16 or f32,bf16`);
  for (const name of values.skip) {
    if (!builtIn.some((known) => known === name)) {
      throw new Error(`Cannot skip "${name}"\n  expected: ${builtIn.join(", ")}`);
    }
  }
  const peers = values.peer.map(parsePeer);
  const names = [...builtIn, ...peers.map(({ name }) => name)];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`Two contestants are named "${twice}"\n  fix: rename one --peer`);
  const skip = new Set(values.skip);
  if (skip.size === builtIn.length && peers.length === 0) {
    throw new Error("Nobody is left to run\n  fix: skip less, or add a --peer");
  }
  return {
    device,
    sizes,
    dtypes,
    rounds: positive("rounds", values.rounds)!,
    steps: positive("steps", values.steps)!,
    threads: positive("threads", values.threads),
    peers,
    skip,
    python: values.python,
    json: values.json,
    svg: values.svg,
    readme: values.readme,
    from: values.from,
    help: values.help,
  };
}

/** Runs a bench from the command line. An error is told by its message alone, and the process ends with exit code 1. */
export async function runBench(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
