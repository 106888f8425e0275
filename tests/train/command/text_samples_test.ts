import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { Llama } from "../../../model/llama.ts";
import { type SampledRun, type TextSampleOptions, TextSamples } from "../../../train/command/text_samples.ts";
import { type Decoder, openDecoder } from "../../../train/generate/decoder.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallConfig, smallFamily, weightsOf } from "../weights/fixture.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** A decoder of the small model, with room for 64 tokens. */
async function decoderOf(scale = 1): Promise<Decoder> {
  const values = weightsOf(smallConfig);
  return await openDecoder({
    path: "the run",
    family: smallFamily,
    tensors: new Map([...values].map(([name, { shape }]) => [name, { shape, dtype: "f32" as const }])),
    read: (name) => Promise.resolve(values.get(name)!.numbers.map((x) => x * scale)),
  }, { maxLength: 64, threads: 1 });
}

const runOf = (decoder: Decoder, tokenizer?: string): SampledRun => ({
  options: { model: new Llama(smallConfig), seqLen: 64, tokenizer },
  decoder,
});

/** What is printed and what is warned of. */
function options(more: Partial<TextSampleOptions> = {}) {
  const lines: string[] = [], warnings: string[] = [];
  const told = { print: (line: string) => lines.push(line), warn: (text: string) => warnings.push(text) };
  return { freq: 10, prompt: "We the", tokens: 5, seed: 0, lastStep: 25, ...told, ...more, lines, warnings };
}

Deno.test("a text is due every so many steps, and behind the last", async () => {
  using decoder = await decoderOf();
  const samples = await TextSamples.open(runOf(decoder), options());
  assertEquals([1, 5, 10, 15, 20, 25].filter((step) => samples.isDue(step)), [10, 20, 25]);
});

Deno.test("a text is one line, begins with its prompt, and is the same for the same parameters", async () => {
  using decoder = await decoderOf();
  const own = options(), samples = await TextSamples.open(runOf(decoder), own);
  await samples.write(10);
  await samples.write(20);
  assertEquals(own.warnings, []);
  const [first, second] = own.lines.map((line) => /^sample step: (\d+) {2}(".*")$/.exec(line)!.slice(1));
  assertEquals([first[0], second], ["10", ["20", first[1]]]);
  const text: string = JSON.parse(first[1]);
  assertMatch(text, /^We the/);
  assertEquals(text.length > "We the".length, true);
});

Deno.test("what goes wrong with a text is a warning, and no text follows", async () => {
  using decoder = await decoderOf(NaN);
  const own = options(), samples = await TextSamples.open(runOf(decoder), own);
  await samples.write(10);
  assertEquals([own.lines, own.warnings.length, samples.isDue(20)], [[], 1, false]);
  assertStringIncludes(own.warnings[0], "Cannot write a text of the run: The model gives token 0 the logit NaN");
});

Deno.test("a prompt that cannot be is told before the first step", async () => {
  await using folder = await temporaryFolder();
  using decoder = await decoderOf();
  const tokenizer = `${folder.path}/tokenizer`;
  await Deno.mkdir(tokenizer);
  await Deno.copyFile(`${sample}/tokenizer.json`, `${tokenizer}/tokenizer.json`);
  await Deno.writeTextFile(`${tokenizer}/tokenizer_config.json`, "{}");
  const run = runOf(decoder, tokenizer);
  const error = await assertRejects(() => TextSamples.open(run, options({ prompt: "" })), GenerateError);
  assertStringIncludes(error.message, "metrics.sample_prompt is empty");
  await TextSamples.open(runOf(decoder), options({ prompt: "" })); // the sample's tokenizer has a token that begins a document
  const long = options({ prompt: "one two ".repeat(40) });
  await assertRejects(() => TextSamples.open(runOf(decoder), long), GenerateError, "The prompt has");
});
