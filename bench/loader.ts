/** The loader alone beside Python's `datasets` and `tokenizers`: `deno task bench:loader`. Both read the same shards with the same
 * tokenizer, as many tokens, and take turns; both are one thread that reads, inflates, parses and tokenises, and ours packs rows as well.
 * Then it says whose time ours is: inflating, parsing, or tokenising. `--training` measures what the loader costs steps: in one run,
 * steps whose batches it reads take turns with steps on a batch that is in memory.
 * @module */
import process from "node:process";
import { parseArgs } from "node:util";
import { type Batch, makeBatch } from "../data/batch.ts";
import { shardName } from "../data/c4.ts";
import { openDataset, SAMPLE } from "../data/dataset.ts";
import { openPlain } from "../data/inflate.ts";
import { AHEAD, prefetch } from "../data/prefetch.ts";
import { shardFile, show, within } from "../data/source.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { Device } from "../ffi/device.ts";
import { llama } from "../model/llama.ts";
import { BatchPart } from "../train/batch_part.ts";
import { complete } from "../train/options.ts";
import { precisionOf } from "../train/precision.ts";
import { compileStep } from "../train/step_plan.ts";
import { StepProgram } from "../train/step_program.ts";
import { median, sizeNamed } from "./report.ts";

const usage = `deno task bench:loader [options]: the loader alone beside Python's datasets and tokenizers

  --tokens N     of a run (2000000)
  --rounds N     how often each runs, taking turns (5)
  --workers N    of the loader, on top of one alone (2)
  --python CMD   interpreter that has datasets and tokenizers; without one, ours runs alone
  --training LIST  instead: steps of these rows of bench/sizes.json, such as debug,mid, with the loader and on tokens in memory
  --steps N      timed steps of each in a round (20)
  --threads N    that compute (0: all cores)
  --help         this text
`;

const { values } = parseArgs({
  options: {
    tokens: { type: "string", default: "2000000" },
    rounds: { type: "string", default: "5" },
    workers: { type: "string", default: "2" },
    python: { type: "string" },
    training: { type: "string" },
    steps: { type: "string", default: "20" },
    threads: { type: "string", default: "0" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  console.log(usage);
  Deno.exit(0);
}
const tokens = Number(values.tokens), [batchSize, seqLen] = [8, 256], { python } = values;
const files = [0, 1, 2, 3].map((n) => within(SAMPLE, shardName("train", n, 4)));

/** Tokens per second, and per second of processors, which others on the machine change less. */
interface Rate {
  readonly wall: number;
  readonly used: number;
}

/** Of our loader. */
async function ours(workers: number): Promise<Rate> {
  await using loader = await prefetch({ dataset: { name: "c4_test" }, batchSize, seqLen, workers, ahead: 8 });
  for (let n = 0; n < 8; n++) await loader.next(); // what was ready before counts on neither side
  const begun = performance.now(), before = process.cpuUsage();
  let read = 0;
  while (read < tokens) read += (await loader.next())!.rows * (seqLen + 1);
  const { user, system } = process.cpuUsage(before);
  return { wall: read / (performance.now() - begun) * 1000, used: read / (user + system) * 1e6 };
}

/** Of Python's. */
async function theirs(command: string): Promise<Rate> {
  const script = new URL("./streaming.py", import.meta.url).pathname;
  const args = [script, show(within(SAMPLE, "tokenizer.json")), String(tokens), ...files.map(show)];
  const env = { TOKENIZERS_PARALLELISM: "false", HF_HUB_OFFLINE: "1" };
  const { stdout, stderr, success } = await new Deno.Command(command, { args, env }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  const told = JSON.parse(new TextDecoder().decode(stdout));
  return { wall: told.tokens / told.seconds, used: told.tokens / told.used };
}

/** Seconds of each part of the work, for the same text. */
async function parts(): Promise<Record<string, number>> {
  const tokenizer = await Tokenizer.open(SAMPLE), seconds: Record<string, number> = {};
  const time = async (name: string, work: () => Promise<unknown>) => {
    const begun = performance.now();
    await work();
    seconds[name] = (performance.now() - begun) / 1000;
  };
  const texts: string[] = [], { shards } = await openDataset({ name: "c4_test" });
  await time("inflate", async () => {
    for (const url of files) {
      await using plain = await openPlain(shardFile(url));
      for await (const _ of plain.chunks);
    }
  });
  await time("inflate and parse", async () => {
    for (const shard of shards) {
      for await (const document of shard.read({ from: 0, every: 1, offset: 0 }, 0)) {
        if ("text" in document) texts.push(document.text);
      }
    }
  });
  await time("tokenise", () => {
    for (const text of texts) tokenizer.encode(text, { bos: true, eos: true });
    return Promise.resolve();
  });
  return seconds;
}

/** Milliseconds of a step of a size, in turns: with the loader, and on a batch in memory. */
async function training(name: string): Promise<void> {
  const { batch, seqLen, ...sizes } = sizeNamed(name), steps = Number(values.steps);
  const full = complete({ model: llama("debug", sizes), data: { name: "c4_test" }, batch, seqLen, steps: 1 });
  using device = new Device({ threads: Number(values.threads) });
  const { threads } = device.info, precision = precisionOf(full.precision, full.dtype, device.info);
  using program = await StepProgram.load(device, compileStep({ ...full, precision, threads }), 1);
  await program.initialize(0);
  await using loader = await prefetch({ dataset: full.data, batchSize: batch, seqLen });
  const part = new BatchPart(seqLen), [views] = program.microbatches, kept = makeBatch(batch, seqLen);
  const first = (await loader.next())!;
  for (const array of ["tokens", "targets", "positions", "documents"] as const) kept[array].set(first[array]);
  let made = 0;
  /** The mean of some steps. Before them come as many as the loader works ahead: what is ready by then was read in steps of this kind. */
  const block = async (next: () => Promise<Batch | undefined>): Promise<number> => {
    let begun = 0;
    for (let n = -AHEAD - 1; n < steps; n++) {
      if (n === 0) begun = performance.now();
      part.put(views, (await next())!);
      await program.step(++made, 1e-9);
    }
    return (performance.now() - begun) / steps;
  };
  const ways = [() => loader.next(), () => Promise.resolve(kept)], times: [number[], number[]] = [[], []];
  let used = 0;
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const way of round % 2 === 0 ? [0, 1] : [1, 0]) {
      const before = processorMs(), ms = await block(ways[way]);
      times[way].push(ms);
      if (way === 1) used += (processorMs() - before) / (steps + AHEAD + 1);
    }
  }
  const [read, memory] = times, ratios = read.map((ms, n) => ms / memory[n]).sort((a, b) => a - b);
  const before = processorMs(), batches = 200;
  for (let n = 0; n < batches; n++) await loader.next();
  const own = (processorMs() - before) / batches, ofStep = used / memory.length;
  console.log(
    `${name}: a step takes ${median(read).toFixed(2)} ms with the loader, ${
      median(memory).toFixed(2)
    } ms on tokens in memory; ` +
      `ratio within rounds ${median(ratios).toFixed(4)} (${ratios[0].toFixed(4)} to ${ratios.at(-1)!.toFixed(4)})`,
  );
  console.log(
    `${name}: the loader takes ${own.toFixed(2)} ms of processors for a batch, ${(100 * own / ofStep).toFixed(2)} % ` +
      `of the ${ofStep.toFixed(0)} ms that a step takes`,
  );
}

/** What this process has used of processors. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

if (values.training !== undefined) {
  for (const name of values.training.split(",")) await training(name);
  Deno.exit(0);
}

const number = (n: number) => Math.round(n).toLocaleString("en-US");
const line = (name: string, rates: readonly Rate[]) =>
  console.log(
    `${name.padEnd(26)} ${number(median(rates.map(({ wall }) => wall)))} tokens/s, ` +
      `${number(median(rates.map(({ used }) => used)))} per second of processors`,
  );
const one: Rate[] = [], several: Rate[] = [], other: Rate[] = [];
for (let round = 0; round < Number(values.rounds); round++) {
  one.push(await ours(1));
  if (python) other.push(await theirs(python));
  several.push(await ours(Number(values.workers)));
}
line("ours, one worker", one);
line(`ours, ${values.workers} workers`, several);
if (python) {
  line("datasets and tokenizers", other);
  const ratio = (of: keyof Rate) => median(one.map((rate, round) => rate[of] / other[round][of])).toFixed(2);
  console.log(`ours is ${ratio("wall")} x, worker for worker; ${ratio("used")} x per second of processors`);
}
for (const [name, seconds] of Object.entries(await parts())) console.log(`${name.padEnd(26)} ${seconds.toFixed(3)} s`);
