import { buffersMadeIn, takeCalls } from "./counting.ts"; // first: it counts what the others call
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { arr } from "../../graph/array.ts";
import type { Memory } from "../../graph/interpret.ts";
import { numel } from "../../graph/ir.ts";
import type { Llama } from "../../model/llama.ts";
import { lrFactor } from "../../train/lr_schedule.ts";
import { DivergedError } from "../../train/step_program.ts";
import { complete, type TrainOptions, type TrainStep } from "../../train/options.ts";
import { train, Trainer } from "../../train/trainer.ts";
import { someTexts, temporaryFolder, writeShards } from "../data/fixture.ts";
import { logitsOf, tinyLlama } from "../model/tiny.ts";

let workers = 0;

/** Workers do not show in the sanitizers. */
globalThis.Worker = class extends Worker {
  constructor(...args: ConstructorParameters<typeof Worker>) {
    super(...args);
    workers++;
  }
  override terminate(): void {
    super.terminate();
    workers--;
  }
};

const sentence = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ";

/** A folder with two texts, and options to train on them in a moment. */
async function ownText(): Promise<AsyncDisposable & { readonly options: TrainOptions }> {
  const folder = await temporaryFolder();
  for (const name of ["a", "b"]) await Deno.writeTextFile(`${folder.path}/${name}.txt`, sentence.repeat(40));
  const options: TrainOptions = {
    model: tinyLlama({ vocabSize: 2048 }),
    data: texts(`${folder.path}/*.txt`),
    steps: 25,
    batch: 2,
    seqLen: 16,
    lr: 2e-2,
    lanes: 2,
    threads: 1,
  };
  return { options, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

Deno.test("training on a text of one's own lowers the loss, and the same seed trains the same way", async () => {
  await using own = await ownText();
  const run = async (): Promise<TrainStep[]> => await Array.fromAsync(train(own.options));
  const steps = await run();
  assertEquals(steps.map(({ step }) => step), Array.from({ length: 25 }, (_, i) => i + 1));
  assertAlmostEquals(steps[0].loss, Math.log(2048), 1);
  assert(steps[24].loss < 0.6 * steps[0].loss, `the loss went from ${steps[0].loss} to ${steps[24].loss}`);
  const { lrSchedule } = complete(own.options);
  steps.forEach(({ step, lr, tokenCount, tokensSeen }) => {
    assertEquals([lr, tokenCount, tokensSeen], [2e-2 * lrFactor(step - 1, lrSchedule), 32, 32 * step]);
  });
  assertEquals((await run()).map(({ loss }) => loss), steps.map(({ loss }) => loss));
});

Deno.test("text that is read again is told once a pass, and counted in each step", async () => {
  await using own = await ownText();
  const notices: string[] = [];
  const options = { ...own.options, steps: 180, notice: (text: string) => notices.push(text) };
  const epochs = (await Array.fromAsync(train(options))).map(({ epoch }) => epoch), last = epochs.at(-1)!;
  assert(epochs[0] > 0 && epochs[0] < 0.1 && last >= 2, `${epochs}`);
  assertEquals(
    notices,
    Array.from({ length: Math.floor(last) }, (_, i) => {
      const step = epochs.findIndex((epoch) => epoch >= i + 1) + 1;
      return `epoch ${i + 2}: all of the text has been read by step ${step}, and is read again`;
    }),
  );
});

Deno.test("steps that are to be recorded come with their profile, and lose nothing by it", async () => {
  await using own = await ownText();
  const options = { ...own.options, steps: 4 };
  const plain = await Array.fromAsync(train(options));
  const steps = await Array.fromAsync(train({ ...options, profile: (step) => step % 2 === 0 }));
  assertEquals(
    steps.map(({ loss, gradNorm }) => [loss, gradNorm]),
    plain.map(({ loss, gradNorm }) => [loss, gradNorm]),
  );
  assertEquals(plain.map(({ profile }) => profile), Array(4).fill(undefined));
  assertEquals(steps.map(({ profile }) => profile?.step), [undefined, 2, undefined, 4]);
  const [, { profile, nativeMs }] = steps, { startMs, calledMs, endMs, instructions } = profile!;
  assert(startMs <= calledMs && endMs - calledMs === nativeMs);
  assert(instructions.at(-1)!.endNs - instructions[0].beginNs <= 1e6 * nativeMs);
});

Deno.test("a run that is stopped ends after the step under way", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open({ ...own.options, accumulation: 2 });
  const seen: number[] = [];
  for await (const { step, tokenCount } of trainer) {
    seen.push(step);
    assertEquals(tokenCount, 64);
    if (step === 3) trainer.stop();
  }
  assertEquals([seen, trainer.step], [[1, 2, 3], 3]);
  assertEquals(await Array.fromAsync(trainer), []);
});

Deno.test("a loop that breaks off goes on where it stopped when it is entered again", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open({ ...own.options, steps: 3 });
  for await (const _ of trainer) break;
  assertEquals((await Array.fromAsync(trainer)).map(({ step }) => step), [2, 3]);
});

Deno.test("a loop over train() closes device, program and loader when it ends, breaks off or throws", async () => {
  await using own = await ownText();
  const closed = () => {
    const calls = takeCalls();
    assertEquals(workers, 0);
    assertEquals(calls.titan_device_open, 1);
    assertEquals([calls.titan_device_close, calls.titan_program_create, calls.titan_program_destroy], [1, 1, 1]);
  };
  takeCalls();
  for await (const { step } of train({ ...own.options, steps: 2 })) assert(step <= 2);
  closed();
  for await (const _ of train(own.options)) break;
  closed();
  const failing = async () => {
    for await (const { step } of train(own.options)) if (step === 2) throw new Error("enough");
  };
  await assertRejects(failing, Error, "enough");
  closed();
});

Deno.test("attention that stays inside of documents learns and is judged by them", async () => {
  await using own = await ownText();
  await using folder = await temporaryFolder();
  // Two documents to a row or so, read by one lane.
  for (let i = 0; i < 20; i++) await Deno.writeTextFile(`${folder.path}/${i}.txt`, `Line ${i} is short.`);
  const options = { ...own.options, data: texts(`${folder.path}/*.txt`), lanes: 1 };
  const validation = { data: options.data, batch: 2, seqLen: 16, steps: 1 };
  const losses = async (documents: boolean): Promise<number[]> => {
    await using trainer = await Trainer.open({ ...options, documents, steps: 1, validation });
    const [{ loss }] = await Array.fromAsync(trainer);
    return [loss, (await trainer.evaluate()).loss];
  };
  const [across, inside] = [await losses(false), await losses(true)];
  for (const i of [0, 1]) {
    assert(Math.abs(across[i] - inside[i]) > 1e-6, `losses ${across[i]} and ${inside[i]} should differ`);
    assert(Math.abs(across[i] - inside[i]) < 1, `losses ${across[i]} and ${inside[i]}`);
  }
});

Deno.test("validation is on text held out, all of it or some batches, and does not change the training", async () => {
  await using own = await ownText();
  const validation = { data: own.options.data, batch: 2, seqLen: 16, steps: 3 };
  const plain = await Array.fromAsync(train({ ...own.options, steps: 4 }));
  await using trainer = await Trainer.open({ ...own.options, steps: 4, validation });
  const losses: number[] = [];
  for await (const { loss } of trainer) {
    losses.push(loss);
    const { loss: held, tokens, bytes, unigramEntropy, ms } = await trainer.evaluate();
    assert(bytes > tokens && bytes < 5 * tokens, `${bytes} bytes of ${tokens} tokens`);
    assert(held > 2 && held < 8, `loss ${held}`);
    assertEquals(tokens, 3 * 32);
    // Of a sentence of some twenty tokens.
    assert(unigramEntropy > 2 && unigramEntropy < Math.log(40), `entropy ${unigramEntropy}`);
    assert(ms > 0);
  }
  assertEquals(losses, plain.map(({ loss }) => loss));
  await using whole = await Trainer.open({ ...own.options, validation: { ...validation, steps: -1 } });
  const { tokens } = await whole.evaluate();
  assert(tokens > 3 * 32 && tokens % 16 === 0, `${tokens} tokens are more than three batches`);
});

Deno.test("three documents are enough to validate on, whatever the lanes of the training text", async () => {
  await using own = await ownText();
  await using folder = await temporaryFolder();
  writeShards(folder.path, [someTexts(3)], "validation");
  const validation = { data: { name: "c4_validation", path: folder.path }, batch: 8, seqLen: 16, steps: -1 };
  await using trainer = await Trainer.open({ ...own.options, validation });
  const { tokens, loss } = await trainer.evaluate();
  assert(tokens >= 32 && tokens % 16 === 0 && loss > 2 && loss < 9, `loss ${loss} of ${tokens} tokens`);
});

Deno.test("held-out text that does not fill a row, or is not there, is told before the first step", async () => {
  await using own = await ownText();
  await using folder = await temporaryFolder();
  writeShards(folder.path, [["one two"]], "validation");
  const open = (path: string) => {
    const validation = { data: { name: "c4_validation", path }, batch: 8, seqLen: 16, steps: -1 };
    return Trainer.open({ ...own.options, validation });
  };
  const { message } = await assertRejects(() => open(folder.path), DataError);
  assertStringIncludes(message, "Validation: Lane 0 of 1 has 4 tokens in its 1 documents");
  assertStringIncludes(message, "\n  fix: shorten the sequences (seq_len), or add text ");
  await assertRejects(() => open("nowhere"), DataError, "Validation: Cannot open dataset");
  assertEquals(workers, 0);
});

Deno.test("without held-out text there is no validation", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open(own.options);
  await assertRejects(() => trainer.evaluate(), RangeError, "Cannot evaluate: the run has no validation data");
});

Deno.test("steps make no buffers on the training thread, and one native call each", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open({ ...own.options, steps: 10, accumulation: 2 });
  const steps = trainer[Symbol.asyncIterator]();
  await steps.next();
  takeCalls();
  const made = await buffersMadeIn(async () => {
    for (let step = 2; step <= 10; step++) assertEquals((await steps.next()).value?.step, step);
  });
  assertEquals(made, []);
  assertEquals(takeCalls(), { titan_program_run: 9 });
});

Deno.test("a run that diverges says in which step, and keeps the parameters of the step before", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open(own.options);
  const { program } = trainer, name = "layers.0.attention.wq.weight";
  let before = await program.readState(name);
  const run = async () => {
    for await (const { step } of trainer) {
      before = await program.readState(name);
      if (step === 2) await program.writeState("norm.weight", Array(16).fill(NaN));
    }
  };
  const error = await assertRejects(run, DivergedError);
  assertStringIncludes(error.message, `Step 3 diverged: loss NaN, gradient norm NaN, first made by `);
  assertEquals([error.step, trainer.step], [3, 2]);
  assert(before.some((x) => x !== 0));
  assertEquals(await program.readState(name), before);
});

Deno.test("a tokenizer with more tokens than the model is refused before memory is taken", async () => {
  await using own = await ownText();
  takeCalls();
  const open = () => Trainer.open({ ...own.options, model: tinyLlama({ vocabSize: 100 }) });
  const { message } = await assertRejects(open, DataError);
  assertStringIncludes(message, "The tokenizer has 2048 tokens, the model only 100");
  const opened = { titan_device_open: 1, titan_device_describe: 1, titan_device_close: 1 };
  assertEquals([takeCalls(), workers], [opened, 0]);
});

Deno.test("what is wrong with the data is told before what is wrong with the device", async () => {
  await using own = await ownText();
  const open = () => Trainer.open({ ...own.options, data: texts("nowhere/*.txt"), threads: 5000 });
  await assertRejects(open, DataError, "nowhere");
  assertEquals(workers, 0);
});

Deno.test("a device that cannot be opened leaves no loader behind", async () => {
  await using own = await ownText();
  const validation = { data: own.options.data, batch: 2, seqLen: 16, steps: 3 };
  await assertRejects(
    () => Trainer.open({ ...own.options, threads: 5000, validation }),
    Error,
    "more than 4096 threads",
  );
  assertEquals(workers, 0);
});

Deno.test("a run says what it runs on", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open(own.options);
  assertEquals(trainer.device.threads, 1);
  assertStringIncludes(trainer.dataDescription, "2 text files");
  assert(await trainer.measure() > 0);
  const { state } = trainer.program.compiled.plan.states.get("output.weight")!;
  assertEquals(numel(state.shape), 2048 * 16);
});

Deno.test("what a run generates between steps comes from its parameters as they are then, and changes no loss", async () => {
  await using own = await ownText();
  const options = { ...own.options, steps: 3, dtype: "f64", generate: { sequences: 1, maxLength: 40 } } as const;
  const losses = (await Array.fromAsync(train({ ...options, generate: undefined }))).map(({ loss }) => loss);
  await using trainer = await Trainer.open(options);
  const prompt = [5, 900, 17, 3], seen: string[] = [];
  for await (const { step, loss } of trainer) {
    assertEquals(loss, losses[step - 1]);
    trainer.decoder.truncate(0, 0);
    await trainer.decoder.extend([prompt.slice(0, 3)]);
    const logits = [...await trainer.decoder.extend([prompt.slice(3)])], memory: Memory = new Map();
    for await (const { name, shape, values } of trainer.parameters()) memory.set(name, arr(shape, values));
    const expected = logitsOf(options.model as Llama, memory, { tokens: prompt, positions: [0, 1, 2, 3] }).slice(-2048);
    assert(logits.every((x, i) => Math.abs(x - expected[i]) < 1e-6), `the logits after step ${step} are others`);
    seen.push(String(logits.slice(0, 8)));
  }
  assertEquals([trainer.step, new Set(seen).size], [3, 3]);
});

Deno.test("a run without room for text says how to get it, and a model that cannot generate is refused", async () => {
  await using own = await ownText();
  await using trainer = await Trainer.open({ ...own.options, steps: 1 });
  assertThrows(() => trainer.decoder, RangeError, "open it with that");
  const mute = Object.assign(tinyLlama({ vocabSize: 2048 }), { next: undefined });
  const opened = Trainer.open({ ...own.options, model: mute, generate: { sequences: 1, maxLength: 8 } });
  await assertRejects(() => opened, TypeError, "Cannot generate with Llama: it has no method next");
});
