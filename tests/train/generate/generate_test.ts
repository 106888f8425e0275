import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { Tokenizer } from "../../../data/tokenizer.ts";
import { Llama } from "../../../model/llama.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { generate, type GenerateOptions, promptTokens } from "../../../train/generate/generate.ts";
import type { GenerationStatistics } from "../../../train/generate/text_generator.ts";
import { convertWeights } from "../../../train/weights/convert.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallCheckpoint, smallConfig, weightsOf } from "../weights/fixture.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

const PROMPT = "Fellow citizens of the Senate";

/** The texts of all samples. */
async function textsOf(from: Parameters<typeof generate>[0], options: GenerateOptions): Promise<string[]> {
  const texts = Array.from({ length: options.samples ?? 1 }, () => "");
  for await (const { sample, text } of generate(from, options)) texts[sample] += text;
  return texts;
}

Deno.test("a checkpoint, a folder, a file of GGUF and a run write the same text", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder, step = await smallCheckpoint(`${path}/step-3`);
  await convertWeights(step, `${path}/hf`);
  await convertWeights(step, `${path}/a.gguf`);
  const run = {
    options: { model: new Llama(smallConfig), seqLen: 256 },
    async *parameters() {
      for (const [name, { shape, numbers: values }] of await Promise.resolve(weightsOf(smallConfig))) {
        yield { name, shape, dtype: "f32" as const, values };
      }
    },
  };
  const options = { prompt: PROMPT, maxNewTokens: 12, samples: 2, temperature: 1 };
  const [expected, ...others] = await Promise.all([step, `${path}/a.gguf`, run].map((from) => textsOf(from, options)));
  for (const texts of others) assertEquals(texts, expected);
  // The folder's tokenizer does not say that a text begins with a token of its own, so it is said here.
  assertEquals(await textsOf(`${path}/hf`, { ...options, prompt: `<|begin_of_text|>${PROMPT}` }), expected);
  assertEquals(new Set(expected).size, 2);
});

Deno.test("a prompt begins with the token that begins a document once, where the model expects it", async () => {
  const tokenizer = await Tokenizer.open(sample), plain = [...tokenizer.encode(PROMPT)];
  for (const text of [PROMPT, `<|begin_of_text|>${PROMPT}`]) {
    assertEquals(promptTokens({ tokenizer, addsBos: true }, text), [2046, ...plain]);
  }
  assertEquals(promptTokens({ tokenizer, addsBos: false }, PROMPT), plain);
});

Deno.test("a text ends where the model's length ends, and more is possible where it is asked for", async () => {
  await using folder = await temporaryFolder();
  const step = await smallCheckpoint(`${folder.path}/step-3`, smallConfig, { seqLen: 16, tokenizer: null });
  const ends = async (options: GenerateOptions) => {
    let told: GenerationStatistics | undefined;
    const pieces = await Array.fromAsync(generate(step, { prompt: PROMPT, done: (s) => told = s, ...options }));
    return { end: pieces.at(-1)!.end, tokens: told!.promptTokens + told!.newTokens };
  };
  assertEquals(await ends({}), { end: "context", tokens: 16 });
  assertEquals(await ends({ contextLength: 20 }), { end: "context", tokens: 20 });
  assertEquals((await ends({ maxNewTokens: 2 })).end, "tokens");
});

Deno.test("what cannot be is refused, with what to change", async () => {
  await using folder = await temporaryFolder();
  const step = await smallCheckpoint(`${folder.path}/step-3`);
  const refused = async (options: GenerateOptions, what: string) => {
    const { message } = await assertRejects(() => textsOf(step, options), GenerateError);
    assertStringIncludes(message, what);
  };
  await refused({}, "neither a prompt nor a conversation");
  await refused({ prompt: "a", messages: [] }, "a prompt and a conversation");
  await refused({ messages: [{ role: "user", content: "Hi" }] }, "has no chat template");
  await refused({ prompt: "a", maxNewTokens: 0 }, "maxNewTokens is 0");
  await refused({ prompt: "a", samples: 1.5 }, "samples is 1.5");
  await refused({ prompt: "a", contextLength: -1 }, "contextLength is -1");
  await refused({ prompt: "a", temperature: -1 }, "temperature is -1");
  await refused({ prompt: PROMPT, contextLength: 3 }, "The prompt has");
  await refused({ prompt: "a", stop: [""] }, "A stop string is empty");
});
