/** The command line with ranks, one of which can be made to go wrong: `FAULT=KIND deno run -A command_rank.ts --nproc 3 ...`.
 * @module */
import { worldOf } from "../../parallel/launch.ts";
import { main } from "../../train/command.ts";
import { Trainer } from "../../train/trainer.ts";

/** What goes wrong on rank 1. */
const faults: Readonly<Record<string, (args: string[]) => void>> = {
  config: (args) => args.push("--training.seq_len", "32"),
  refused: (args) => args.push("--data.lanes", "0"),
  library: () => Deno.env.set("TITAN_LIB", Deno.env.get("OTHER_LIB")!),
  asleep: () => sleepBefore(5),
};

/** From a step on, this process does nothing at all, not even hear the launcher. */
function sleepBefore(last: number): void {
  const steps = Trainer.prototype[Symbol.asyncIterator];
  Trainer.prototype[Symbol.asyncIterator] = async function* () {
    for await (const step of steps.call(this)) {
      yield step;
      if (step.step === last - 1) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    }
  };
}

const args = [...Deno.args], world = worldOf();
if (world) console.log(`[rank${world.rank}] pid ${Deno.pid}`);
if (world?.rank === 1) faults[Deno.env.get("FAULT") ?? ""]?.(args);
Deno.exit(await main(args));
