/** What the live page costs a run: steps of the debug model that nobody watches, and steps that a reader in another process follows. One in
 * `--log-freq` is reported, as `metrics.log_freq` has it. They take turns in blocks, and what is compared are neighbouring blocks. As that is
 * less than steps differ by themselves, the processor's time for a report is measured alone, too, in this process at rest.
 * `deno task bench:live --rounds 40 --steps 10 --log-freq 10`
 * @module */
import { cpuUsage } from "node:process";
import { parseArgs } from "node:util";
import { llama, texts, train } from "../mod.ts";
import { LiveServer } from "../train/report/live/live_server.ts";
import { median } from "./report.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "40" },
    steps: { type: "string", default: "10" },
    "log-freq": { type: "string", default: "10" },
  },
});
const rounds = Number(values.rounds), steps = Number(values.steps), logFreq = Number(values["log-freq"]);
if (![rounds, steps, logFreq].every((n) => Number.isSafeInteger(n) && n > 0) || steps % logFreq !== 0) {
  console.error(
    "error: Cannot read --rounds, --steps or --log-freq\n  expected: whole numbers above 0, steps a multiple of log-freq\n" +
      "  fix: leave them out",
  );
  Deno.exit(1);
}

/** Follows a page's events as a browser does, without drawing: each line of its input is an address to follow, or empty to stop. */
const READER = `
let stop = new AbortController();
for await (const line of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  stop.abort();
  stop = new AbortController();
  const address = line.trim();
  if (address === "") continue;
  const { body } = await fetch(address, { signal: stop.signal });
  (async () => { for await (const _ of body) {} })().catch(() => {});
  console.log("follows");
}`;

const folder = await Deno.makeTempDir(), own = `${folder}/metrics.jsonl`;
using file = Deno.openSync(own, { write: true, create: true });
const write = (line: unknown) => void file.writeSync(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
write({ run: { started: new Date().toISOString(), size: 1, config: {} } });
await using live = LiveServer.open({ paths: [folder], own });
const reader = new Deno.Command(Deno.execPath(), {
  args: ["eval", READER],
  stdin: "piped",
  stdout: "piped",
}).spawn();
const orders = reader.stdin.getWriter(), answers = reader.stdout.getReader();
const order = (line: string) => orders.write(new TextEncoder().encode(`${line}\n`));

/** What a report tells. */
interface Numbers {
  readonly step: number;
  readonly loss: number;
  readonly gradNorm: number;
  readonly lr: number;
}

const total = 2 * rounds * (steps + 1) + 10;
const run = train({ model: llama("debug"), data: texts("README.md"), steps: total, notice: () => {} })[
  Symbol.asyncIterator
]();

/** Writes a report, as a run does it. */
function report({ step, loss, gradNorm, lr }: Numbers, seconds: number, isWatched: boolean): void {
  write({
    step,
    "loss_metrics/global_avg_loss": loss,
    "loss_metrics/global_max_loss": loss,
    "throughput(tps)": 2048 / seconds,
    "time_metrics/end_to_end(s)": seconds,
    "time_metrics/data_loading(%)": 0.1,
    "memory/max_reserved(GiB)": 0.4,
    grad_norm: gradNorm,
    lr,
  });
  if (isWatched) live.write();
}

/** Takes a step, and reports it where that is asked for. */
async function step(isWatched: boolean, isReported: boolean): Promise<void> {
  const begun = performance.now(), { value } = await run.next();
  if (isReported) report(value!, (performance.now() - begun) / 1000, isWatched);
}

/** Has the reader follow, or stop. */
async function watch(isWatched: boolean): Promise<void> {
  await order(isWatched ? `${live.address}events` : "");
  if (isWatched) await answers.read();
}

/** Processor's milliseconds of this process for each of some reports, 40 ms apart. */
async function costOfReports(count: number, isWatched: boolean): Promise<number> {
  await watch(isWatched);
  const rest = () => new Promise((resolve) => setTimeout(resolve, 40));
  await rest();
  const before = cpuUsage();
  for (let step = 1; step <= count; step++) {
    report({ step, loss: 3.14159, gradNorm: 0.5, lr: 1e-3 }, 0.12, isWatched);
    await rest();
  }
  const { user, system } = cpuUsage(before);
  return (user + system) / 1000 / count;
}

/** Milliseconds of a step in a block, behind one that is not counted. What a report costs comes behind it: so the first is reported. */
async function block(isWatched: boolean): Promise<number> {
  await watch(isWatched);
  await step(isWatched, true);
  const begun = performance.now();
  for (let i = 0; i < steps; i++) await step(isWatched, i % logFreq === 0);
  return (performance.now() - begun) / steps;
}

await costOfReports(100, true); // until it is compiled
const cost = await costOfReports(200, true) - await costOfReports(200, false);

for (let i = 0; i < 10; i++) await step(false, true);
const ratios: number[] = [], alone: number[] = [];
for (let round = 0; round < rounds; round++) {
  const isFirst = round % 2 === 0, a = await block(isFirst), b = await block(!isFirst);
  const [watched, unwatched] = isFirst ? [a, b] : [b, a];
  alone.push(unwatched);
  ratios.push(watched / unwatched);
}
const [low, high] = [0.25, 0.75].map((q) => ratios.toSorted((a, b) => a - b)[Math.floor(q * (rounds - 1))]);
const percent = (ratio: number) => `${(100 * (ratio - 1)).toFixed(2)} %`;
console.log(
  `a step takes ${median(alone).toFixed(1)} ms; watched it takes ${
    percent(median(ratios))
  } more, in half of ${rounds} rounds ` +
    `between ${percent(low)} and ${percent(high)}`,
);
console.log(
  `a report to a page that is open takes ${cost.toFixed(2)} ms of one processor, ${
    (100 * cost / logFreq / median(alone)).toFixed(2)
  } % of ${logFreq === 1 ? "a step" : `${logFreq} steps`}`,
);
await orders.close();
reader.kill();
await reader.status;
await answers.cancel();
await Deno.remove(folder, { recursive: true });
Deno.exit(0); // the loader reads ahead still
