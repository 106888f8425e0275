import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { library } from "../../../ffi/library.ts";
import { Llama } from "../../../model/llama.ts";
import { type SampledRun, type TextSampleOptions, TextSamples } from "../../../train/command/text_samples.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { sample, smallConfig, weightsOf } from "../weights/fixture.ts";

library(); // opened here: inside a test the sanitizer would call it a leak

/** A run whose parameters are read so often. */
function runOf({ scale = 1, ...more }: Partial<SampledRun> & { scale?: number } = {}) {
  const run = {
    ...{ reads: 0, device: { threads: 1 }, options: { model: new Llama(smallConfig), seqLen: 64 } },
    async *parameters() {
      for (const [name, { shape, numbers }] of await Promise.resolve(weightsOf(smallConfig))) {
        yield { name, shape, dtype: "f32" as const, values: numbers.map((x) => x * scale) };
      }
      run.reads++;
    },
    ...more,
  };
  return run;
}

/** What is printed and what is warned of. */
function options(more: Partial<TextSampleOptions> = {}) {
  const lines: string[] = [], warnings: string[] = [];
  const told = { print: (line: string) => lines.push(line), warn: (text: string) => warnings.push(text) };
  return { freq: 10, prompt: "We the", tokens: 5, seed: 0, lastStep: 25, ...told, ...more, lines, warnings };
}

Deno.test("a text is due every so many steps, and behind the last", async () => {
  const samples = await TextSamples.open(runOf(), options());
  assertEquals([1, 5, 10, 15, 20, 25].filter((step) => samples.isDue(step)), [10, 20, 25]);
});

Deno.test("a text is one line, begins with its prompt, and is the same for the same parameters", async () => {
  const own = options(), samples = await TextSamples.open(runOf(), own);
  await samples.write(10);
  await samples.write(20);
  assertEquals(own.warnings, []);
  const [first, second] = own.lines.map((line) => /^sample step: (\d+) {2}(".*")$/.exec(line)!.slice(1));
  assertEquals([first[0], second], ["10", ["20", first[1]]]);
  const text: string = JSON.parse(first[1]);
  assertMatch(text, /^We the/);
  assertEquals(text.length > "We the".length, true);
});

Deno.test("of several ranks the first writes, all read the parameters, and all wait for it", async () => {
  const written = async (rank: number, failed: boolean) => {
    const own = options(), met: unknown[] = [];
    const meet = async (work: Promise<unknown>) => {
      met.push(await work);
      return [failed];
    };
    const run = runOf({ group: { info: { rank }, meet: meet as never } });
    const samples = await TextSamples.open(run, own);
    await samples.write(10);
    return { lines: own.lines.length, reads: run.reads, met, goesOn: samples.isDue(20) };
  };
  assertEquals(await written(0, false), { lines: 1, reads: 1, met: [false], goesOn: true });
  assertEquals(await written(1, false), { lines: 0, reads: 1, met: [false], goesOn: true });
  assertEquals((await written(1, true)).goesOn, false);
});

Deno.test("what goes wrong with a text is a warning, and no text follows", async () => {
  const own = options(), samples = await TextSamples.open(runOf({ scale: NaN }), own);
  await samples.write(10);
  assertEquals([own.lines, own.warnings.length, samples.isDue(20)], [[], 1, false]);
  assertStringIncludes(own.warnings[0], "Cannot write a text of the run: The model gives token 0 the logit NaN");
});

Deno.test("a prompt that cannot be is told before the first step", async () => {
  await using folder = await temporaryFolder();
  const tokenizer = `${folder.path}/tokenizer`, { model, seqLen } = runOf().options;
  await Deno.mkdir(tokenizer);
  await Deno.copyFile(`${sample}/tokenizer.json`, `${tokenizer}/tokenizer.json`);
  await Deno.writeTextFile(`${tokenizer}/tokenizer_config.json`, "{}");
  const run = runOf({ options: { model, seqLen, tokenizer } });
  const error = await assertRejects(() => TextSamples.open(run, options({ prompt: "" })), GenerateError);
  assertStringIncludes(error.message, "metrics.sample_prompt is empty");
  await TextSamples.open(runOf(), options({ prompt: "" })); // the sample's tokenizer has a token that begins a document
  const long = options({ prompt: "one two ".repeat(40) });
  await assertRejects(() => TextSamples.open(runOf(), long), GenerateError, "The prompt has");
});
