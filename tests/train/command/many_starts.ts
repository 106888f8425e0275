/** Starts of runs under load, half of which fail on purpose: no process may end by a signal that nobody sent, and who fails has to say so first.
 * `deno task test:starts --starts 500 --ranks 4`. Starts that end in another way are printed in full; the exit code is 1 where there are any.
 * @module */
import { parseArgs } from "@std/cli";
import { library } from "../../../ffi/library.ts";
import { build } from "../../csrc/run.ts";
import { Launcher } from "../../launch/launcher.ts";

/** How a start ends that is as it should be: its exit code, and what its first line of errors looks like. */
interface Expected {
  readonly code: number;
  readonly first: RegExp;
  readonly env?: Readonly<Record<string, string>>;
}

const KILLED = /^\[rank1\] error: this process was killed by signal 9$/, MESSAGES = { TITAN_EXCHANGE: "messages" };

/** What goes wrong on rank 1 (command_rank.ts). */
const faults: Readonly<Record<string, Expected>> = {
  exits: { code: 3, first: /^\[rank1\] error: this process ended with exit code 3, without a word/ },
  refused: { code: 1, first: /^\[rank1\] error: data\.lanes = 0/ },
  config: { code: 1, first: /^\[rank\d\] error: The ranks of this run were not started alike$/ },
  killed: { code: 137, first: KILLED },
  killed_later: { code: 137, first: KILLED },
  throws: { code: 1, first: /^\[rank1\] error: Error: the disk is full/ },
  memory_of_kernels: {
    code: 1,
    first: /^\[rank1\] error: host memory ran out in adamw$/,
    env: { TITAN_FAULT: "kernel" },
  },
  memory_of_collectives: {
    code: 1,
    first: /^\[rank1\] error: host memory ran out in (all_gather|all_reduce|reduce_scatter) of /,
    env: { TITAN_FAULT: "collective", ...MESSAGES },
  },
};

const script = new URL("command_rank.ts", import.meta.url);
const { starts, ranks, load, only } = parseArgs(Deno.args, {
  string: ["starts", "ranks", "load", "only"],
  default: { starts: "20", ranks: "4", load: `${navigator.hardwareConcurrency}` },
});

/** Arguments of a run of three steps of a tiny model. */
const argsOf = (folder: string) => [
  ...["--nproc", ranks, "--log-rank", "all", "--job.dump_folder", folder, "--validation.no_enable"],
  ...["--model.dim", "16", "--model.n_layers", "1", "--model.n_heads", "2", "--model.ffn_hidden_dim", "16"],
  ...["--training.local_batch_size", ranks, "--training.seq_len", "16", "--training.steps", "3"],
  ...["--device.threads", "1"],
];

/** Starts a run, and says what is wrong with how it ended; nothing where it ended as it should. */
async function start(fault: string): Promise<string | undefined> {
  const folder = await Deno.makeTempDir({ prefix: "libtitan-starts-" });
  try {
    const { code, first, env } = faults[fault] ?? { code: 0, first: /^$/ };
    const FAULTY_LIB = `${build}/faulty/libtitan.so`;
    const job = new Launcher(script, argsOf(folder), { FAULT: fault, FAULTY_LIB, TITAN_LIB: library().path, ...env });
    let ended: { readonly code: number };
    try {
      ended = await job.ended();
    } catch (error) {
      return `${error}\n${job.out}${job.err}`;
    }
    const line = job.err.split("\n")[0];
    const signals = [...job.err.matchAll(/signal (\d+)/g)].map(([, signal]) => signal);
    if (ended.code === code && first.test(line) && signals.every((s) => s === "9" && first === KILLED)) {
      return undefined;
    }
    return `exit code ${ended.code}; expected: ${code}, and as the first line ${first}\n${job.out}${job.err}`;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const busy = Array.from(
  { length: Number(load) },
  () => new Deno.Command("sh", { args: ["-c", "while :; do :; done"] }).spawn(),
);
const begun = performance.now(), seconds = () => ((performance.now() - begun) / 1000).toFixed(0);
let wrong = 0;
try {
  const names = only ? only.split(",") : Object.keys(faults);
  for (let i = 0; i < Number(starts); i++) {
    const fault = i % 2 ? names[(i - 1) / 2 % names.length] : "none";
    const why = await start(fault);
    if (why !== undefined) wrong++, console.log(`start ${i} (${fault}): ${why}`);
    if (i % 20 === 19) {
      console.log(`${i + 1} starts of ${ranks} ranks in ${seconds()} s, ${wrong} of which ended otherwise`);
    }
  }
} finally {
  busy.forEach((process) => process.kill());
}
console.log(
  `${starts} starts of ${ranks} ranks beside ${load} busy processes in ${seconds()} s: ${wrong} ended otherwise than they should`,
);
Deno.exit(wrong > 0 ? 1 : 0);
