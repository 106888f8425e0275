import { assert, assertEquals, assertRejects } from "@std/assert";
import { Llama } from "../../../model/llama.ts";
import type { TrainableModel } from "../../../model/loss.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { openSource } from "../../../train/generate/source.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallCheckpoint, smallConfig, weightsOf } from "../weights/fixture.ts";

/** A run between two steps. */
function runOf(model: TrainableModel, tokenizer?: string) {
  const values = weightsOf(smallConfig);
  return {
    options: { model, tokenizer, seqLen: 64 },
    async *parameters() {
      for (const [name, { shape, numbers: values }] of await Promise.resolve(weightsOf(smallConfig))) {
        yield { name, shape, dtype: "f32" as const, values };
      }
    },
    values,
  };
}

Deno.test("a checkpoint and a run of the same values are the same to generate from", async () => {
  await using folder = await temporaryFolder();
  const saved = await openSource(await smallCheckpoint(`${folder.path}/step-3`));
  const run = runOf(new Llama(smallConfig)), live = await openSource(run);
  for (const source of [saved, live]) {
    assertEquals(source.weights.family?.sizes ?? (source.model as Llama).config, smallConfig);
    assertEquals([...source.weights.tensors.keys()], [...run.values.keys()]);
    const name = "layers.1.attention.wk.weight";
    assertEquals(await source.weights.read(name), run.values.get(name)!.numbers);
    const { tokenizerPath, addsBos, endIds, chatTemplate } = source;
    assertEquals({ tokenizerPath, addsBos, endIds, chatTemplate }, {
      ...{ tokenizerPath: sample, addsBos: true, endIds: [2047], chatTemplate: null },
    });
  }
  assertEquals([saved.contextLength, live.contextLength], [256, 64]);
  assert(live.model instanceof Llama && saved.model === undefined);
});

Deno.test("a model that says nothing of the next token is refused by its name", async () => {
  class Counter extends Llama {}
  const model = new Counter(smallConfig);
  Object.defineProperty(model, "next", { value: undefined });
  await assertRejects(
    () => openSource(runOf(model)),
    GenerateError,
    "A Counter says nothing of the token that comes next",
  );
});
