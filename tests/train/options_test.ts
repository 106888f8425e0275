import { assertEquals, assertThrows } from "@std/assert";
import { chats, texts } from "../../data/dataset.ts";
import { DataError } from "../../data/error.ts";
import { complete } from "../../train/options.ts";
import { tinyLlama } from "../model/tiny.ts";

Deno.test("what is not asked for has defaults, and options of the optimizer may be given one by one", () => {
  const { steps, batch, accumulation, seqLen, lr, lrSchedule, optimizer, dtype, seed, threads } = complete({
    model: tinyLlama(),
    data: texts("a.txt"),
    steps: 55,
    optimizer: { beta2: 0.99 },
  });
  assertEquals({ steps, batch, accumulation, seqLen, lr, dtype, seed, threads }, {
    steps: 55,
    batch: 8,
    accumulation: 1,
    seqLen: 256,
    lr: 2e-3,
    dtype: "f32",
    seed: 0,
    threads: 0,
  });
  assertEquals(optimizer, { beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 });
  assertEquals([lrSchedule.warmupSteps, lrSchedule.totalSteps], [6, 55]);
});

Deno.test("where no text is named for validation, a share of text files is, and is not trained on", () => {
  const common = { model: tinyLlama(), data: texts("a.txt"), steps: 1 }, sizes = { batch: 1, seqLen: 8, steps: 1 };
  const shared = complete({ ...common, validation: sizes });
  assertEquals(shared.data, { ...common.data, part: "training" });
  assertEquals(shared.validation, { ...sizes, data: { ...common.data, part: "held-out" } });
  const named = complete({ ...common, validation: { ...sizes, data: texts("b.txt") } });
  assertEquals([named.data, named.validation?.data], [common.data, texts("b.txt")]);
  assertEquals([complete(common).data, complete(common).validation], [common.data, undefined]);
  const c4 = { ...common, data: { name: "c4_test" }, validation: sizes };
  assertThrows(() => complete(c4), DataError, "no text is named for it");
});

Deno.test("attention stays inside of a document where positions restart, and cannot be told to see across", () => {
  const common = { model: tinyLlama(), data: texts("a.txt"), steps: 1 };
  const documents = (more: object) => complete({ ...common, ...more }).documents;
  assertEquals([documents({}), documents({ documents: true })], [false, true]);
  assertEquals(documents({ dataloader: { packing: "best-fit" } }), true);
  assertEquals(documents({ data: chats("a.jsonl") }), true);
  assertEquals(documents({ data: { mixture: [{ data: { name: "chat", path: "a.jsonl" }, weight: 1 }] } }), true);
  assertThrows(() => documents({ data: chats("a.jsonl"), documents: false }), DataError, "positions restart");
});
