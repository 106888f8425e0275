/** Saving and loading beside what the machine can do: `deno task bench:checkpoint --size small --folder DIR`. Rounds alternate between
 * ours and plain tools on the same disk, with as many bytes: `dd` with fsync for writing, parallel `dd` for reading (with the files taken
 * out of the page cache before each), one copy of all state within memory. Each `dd` reads into one megabyte, which stays in the
 * processor's cache. A load fills the arena, whose pages were touched when the run began. So the comparison favours `dd`. Then steps
 * are timed alone, and while a checkpoint is written beside them.
 * @module */
import { parseArgs } from "node:util";
import { texts } from "../data/dataset.ts";
import { Llama, llamaConfig } from "../model/llama.ts";
import { nativeReader } from "../train/checkpoint/chunk_reader.ts";
import { readStates } from "../train/checkpoint/read.ts";
import { openCheckpoint } from "../train/checkpoint/open.ts";
import { Staging } from "../train/checkpoint/staging.ts";
import type { TrainOptions } from "../train/options.ts";
import { Trainer } from "../train/trainer.ts";
import { median, sizeNamed } from "./report.ts";

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "small" },
    folder: { type: "string", default: "outputs/bench" },
    rounds: { type: "string", default: "3" },
    interval: { type: "string", default: "8" },
  },
});
const rounds = Number(values.rounds), { folder } = values;
const { batch, seqLen, ...sizes } = sizeNamed(values.size);

const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
};
const sh = async (command: string): Promise<void> => {
  const { success, stderr } = await new Deno.Command("sh", { args: ["-c", command] }).output();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
};
/** Takes files out of the page cache, so that they are read from the disk. */
const dropCaches = (files: readonly string[]) =>
  sh(files.map((file) => `dd of=${file} oflag=nocache conv=notrunc,fdatasync count=0`).join(" && "));

await Deno.mkdir(folder, { recursive: true });
const text = `${folder}/text.txt`;
await Deno.writeTextFile(text, "A quick brown fox jumps over a lazy dog. ".repeat(200_000));
const options: TrainOptions = {
  model: new Llama(llamaConfig("debugmodel", sizes)),
  data: texts(text),
  ...{ batch, seqLen, steps: 1_000_000, lanes: 1, dtype: "f32" },
};
const checkpoint = {
  folder: `${folder}/checkpoint`,
  interval: Number(values.interval),
  async: true,
  saveOnStop: false,
};
await using trainer = await Trainer.open({ ...options, checkpoint });
const steps = trainer[Symbol.asyncIterator](), step = async () => (await steps.next()).value!;
await step();

const { wanted, memory } = trainer.program.lasting(), path = `${folder}/step-1`;
const whole = trainer.program.compiled.host.shareBytes;
console.log(
  `${(whole / 1e9).toFixed(2)} GB of state, on ${trainer.device.processor}, ${trainer.device.threads} threads`,
);

/** Copies all state into a buffer once, as a save does. */
const staging = new Staging(trainer.program.compiled.host.stagingBytes);
const chunks: Uint8Array<ArrayBuffer>[] = [];
for (let i = 0; i < staging.chunks; i++) chunks.push((await staging.take()).fill(1));
const copyAll = async () => {
  const parts = wanted.flatMap(({ offset, box, dtype }) => {
    const bytes = box.sizes.reduce((n, d) => n * d, 1) * (dtype === "bf16" ? 2 : 4), list: [number, number][] = [];
    for (let at = 0; at < bytes; at += 8 << 20) list.push([offset + at, Math.min(8 << 20, bytes - at)]);
    return list;
  });
  let next = 0;
  const copier = async () => {
    while (next < parts.length) {
      const mine = next++, [offset, bytes] = parts[mine];
      await memory.read(offset, chunks[mine % chunks.length].subarray(0, bytes));
    }
  };
  await Promise.all([copier(), copier()]);
};
const times: Record<"copy" | "dd" | "save" | "plain read" | "load" | "load, not compared", number[]> = {
  ...{ copy: [], dd: [], save: [], "plain read": [], load: [], "load, not compared": [] },
};
for (let round = 0; round < rounds; round++) {
  times.copy.push(await seconds(copyAll));
  const count = Math.ceil(whole / (8 << 20));
  await sh(`rm -f ${folder}/dd.bin; sync`);
  times.dd.push(await seconds(() => sh(`dd if=/dev/zero of=${folder}/dd.bin bs=8M count=${count} conv=fsync`)));
  await sh(`rm -rf ${folder}/dd.bin ${path}; sync`);
  times.save.push(await seconds(() => trainer.save(path)));
  const files = ["model", "optimizer"].map((name) => `${path}/${name}.safetensors`);
  const reading = files.flatMap((file) => {
    const parts = Math.ceil(Deno.statSync(file).size / (1 << 20) / 4);
    return [0, 1, 2, 3].map((i) => `dd if=${file} of=/dev/null bs=1M skip=${i * parts} count=${parts} &`);
  });
  await dropCaches(files);
  times["plain read"].push(await seconds(() => sh(`${reading.join(" ")} wait`)));
  for (const verify of [true, false]) {
    await dropCaches(files);
    const loading = times[verify ? "load" : "load, not compared"];
    loading.push(
      await seconds(() =>
        readStates(openCheckpoint(path), wanted, { memory, verify, reader: () => nativeReader(memory) })
      ),
    );
  }
}
for (const [name, list] of Object.entries(times)) {
  console.log(`${name.padEnd(18)} ${(whole / 1e9 / median(list)).toFixed(2)} GB/s (${median(list).toFixed(2)} s)`);
}
const ratio = (a: readonly number[], b: readonly number[]) => median(a.map((x, i) => x / b[i])).toFixed(2);
console.log(`save / dd with fsync: ${ratio(times.dd, times.save)} of its speed`);
console.log(
  `load / plain read: ${ratio(times["plain read"], times.load)} of its speed, ` +
    `${ratio(times["plain read"], times["load, not compared"])} without comparing hashes`,
);

const asyncRounds: {
  readonly alone: number;
  readonly beside: number;
  readonly extra: number;
  readonly ms: number;
  readonly stallMs: number;
}[] = [];
for (let round = 0; round < rounds; round++) {
  const alone: number[] = [], beside: number[] = [], before = trainer.saves.length;
  do alone.push(await seconds(step)); while (trainer.step % checkpoint.interval !== 0); // the last one begins to save
  while (trainer.saves.length === before) beside.push(await seconds(step));
  const usual = median(alone), extra = beside.reduce((sum, s) => sum + s - usual, 0);
  asyncRounds.push({ alone: usual, beside: median(beside), extra, ...trainer.saves.at(-1)! });
}
const medianOf = (key: keyof typeof asyncRounds[0]) => median(asyncRounds.map((round) => round[key]));
console.log(
  `async: written in ${(medianOf("ms") / 1000).toFixed(2)} s; training stood still for ${
    medianOf("stallMs").toFixed(0)
  } ms, ` +
    `${(medianOf("stallMs") / 1000 / median(times.copy)).toFixed(2)} of one copy of the state within memory`,
);
console.log(
  `a step takes ${medianOf("alone").toFixed(2)} s alone, ${
    medianOf("beside").toFixed(2)
  } s beside it; the checkpoint costs ` +
    `${medianOf("extra").toFixed(2)} s in all, a save that training waits for ${median(times.save).toFixed(2)} s`,
);
await Deno.remove(folder, { recursive: true });
