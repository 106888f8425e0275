/** The command line with ranks, one of which can be made to go wrong: `FAULT=KIND deno run -A command_rank.ts --nproc 3 ...`.
 * @module */
import { worldOf } from "../../../launch/world.ts";
import { main } from "../../../train/command/command.ts";
import { Trainer } from "../../../train/trainer.ts";

/** The library of `build/cmake/faulty`, in whose place memory runs out. It takes the process a second to say so. */
function useFaulty(): void {
  const say = console.error;
  Deno.env.set("TITAN_LIB", Deno.env.get("FAULTY_LIB")!);
  console.error = (...args) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
    say(...args);
  };
}

/** What goes wrong on rank 1. */
const faults: Readonly<Record<string, (args: string[]) => void>> = {
  none: () => {},
  config: (args) => args.push("--training.seq_len", "32"),
  refused: (args) => args.push("--data.lanes", "0"),
  library: () => Deno.env.set("TITAN_LIB", Deno.env.get("OTHER_LIB")!),
  asleep: () => behind(4, () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)),
  exits: () => Deno.exit(3),
  killed: () => Deno.kill(Deno.pid, "SIGKILL"),
  killed_later: () => behind(2, () => Deno.kill(Deno.pid, "SIGKILL")),
  throws: () =>
    behind(2, () => {
      throw new Error("the disk is full");
    }),
  memory_of_kernels: useFaulty, // with TITAN_FAULT=kernel
  memory_of_collectives: useFaulty, // with TITAN_FAULT=collective
};

/** Does something behind a step, in which the process may hear nobody, not even the launcher. */
function behind(last: number, act: () => void): void {
  const steps = Trainer.prototype[Symbol.asyncIterator];
  Trainer.prototype[Symbol.asyncIterator] = async function* () {
    for await (const step of steps.call(this)) {
      yield step;
      if (step.step === last) act();
    }
  };
}

const args = [...Deno.args], world = worldOf();
if (world) console.log(`[rank${world.rank}] pid ${Deno.pid}`);
if (world?.rank === 1) faults[Deno.env.get("FAULT") ?? ""]?.(args);
Deno.exit(await main(args));
