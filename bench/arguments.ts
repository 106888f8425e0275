/** Command line of the bench.
 * @module */

import { parseArgs } from "node:util";
import { parsePeer, sizeNamed } from "./report.ts";

/** What `deno task bench` was asked for. */
export interface Arguments {
  readonly size: string;
  readonly rounds: number;
  readonly steps: number;
  readonly threads?: number;
  readonly peers: readonly { name: string; command: string }[];
  readonly skip: ReadonlySet<string>;
  readonly compile: boolean;
  readonly dtype: string;
  readonly python: string;
  readonly json?: string;
  readonly help: boolean;
}

/** Text of `--help`. */
export const usage = `deno task bench [options]: training speed of this library beside PyTorch and others

  --size NAME          a row of bench/sizes.json (debug)
  --rounds N           how often each contestant runs, taking turns (3)
  --steps N            timed steps per run, after 2 to warm up (5)
  --threads N          for ours and PyTorch (each one's default: all cores)
  --dtype f32|bf16     bf16 is autocast in PyTorch (f32)
  --compile            torch.compile instead of eager
  --peer NAME=COMMAND  another contestant; prints a line "tokens/s N [best N] [peak GB N] [product GF/s N]"; repeatable
  --skip NAME          leave out "ours" or "pytorch"; repeatable
  --python COMMAND     interpreter that makes bench/.venv when there is none (python3)
  --json FILE          also write all figures there
  --help               this text
`;

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`Cannot read --${name} "${text}"\n  expected: a whole number above 0`);
  return Number(text);
}

/** Parses the command line.
 * @throws Error on an unknown option, a value that does not fit it, or when nobody is left to run. */
export function parseArguments(args: readonly string[]): Arguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      size: { type: "string", default: "debug" },
      rounds: { type: "string", default: "3" },
      steps: { type: "string", default: "5" },
      threads: { type: "string" },
      dtype: { type: "string", default: "f32" },
      compile: { type: "boolean", default: false },
      peer: { type: "string", multiple: true, default: [] },
      skip: { type: "string", multiple: true, default: [] },
      python: { type: "string", default: "python3" },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  sizeNamed(values.size);
  if (values.dtype !== "f32" && values.dtype !== "bf16") {
    throw new Error(`Cannot read --dtype "${values.dtype}"\n  expected: f32 or bf16`);
  }
  for (const name of values.skip) {
    if (name !== "ours" && name !== "pytorch") throw new Error(`Cannot skip "${name}"\n  expected: ours or pytorch`);
  }
  const peers = values.peer.map(parsePeer);
  const names = ["ours", "pytorch", ...peers.map(({ name }) => name)];
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new Error(`Two contestants are named "${twice}"\n  fix: rename one --peer`);
  const skip = new Set(values.skip);
  if (skip.size === 2 && peers.length === 0) {
    throw new Error("Nobody is left to run\n  fix: skip less, or add a --peer");
  }
  return {
    size: values.size,
    rounds: positive("rounds", values.rounds)!,
    steps: positive("steps", values.steps)!,
    threads: positive("threads", values.threads),
    peers,
    skip,
    compile: values.compile,
    dtype: values.dtype,
    python: values.python,
    json: values.json,
    help: values.help,
  };
}
