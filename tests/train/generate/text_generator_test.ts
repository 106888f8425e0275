import { assertEquals, assertRejects } from "@std/assert";
import type { Tokenizer } from "../../../data/tokenizer.ts";
import { GenerateError } from "../../../train/generate/error.ts";
import { samplingOf, type SamplingOptions } from "../../../train/generate/sampler.ts";
import { type ContinueOptions, TextGenerator, type TextPiece } from "../../../train/generate/text_generator.ts";
import { bytes, CountingDecoder } from "./scripted_decoder.ts";

const codes = (text: string) => [...text].map((c) => c.charCodeAt(0));
const options = (more: Partial<ContinueOptions> = {}, sampling: SamplingOptions = { temperature: 0 }) => {
  return { sampling: samplingOf(sampling), maxNewTokens: 5, stop: [], ...more };
};
const source = (endIds: number[] = []) => ({ tokenizer: bytes as unknown as Tokenizer, endIds });
const all = (pieces: AsyncIterable<TextPiece>) => Array.fromAsync(pieces);

/** The text of each sample, and why it ended. */
function texts(pieces: readonly TextPiece[], samples = 1): { text: string; end: string | undefined }[] {
  return Array.from({ length: samples }, (_, n) => {
    const own = pieces.filter((p) => p.sample === n);
    return { text: own.map((p) => p.text).join(""), end: own.at(-1)?.end };
  });
}

Deno.test("a prompt is read at once, then each token by itself, and the last one not at all", async () => {
  const decoder = new CountingDecoder(1, 100), generator = new TextGenerator(source(), decoder);
  const pieces = await all(generator.continue(codes("abc"), options()));
  assertEquals(pieces.map((p) => p.text), ["d", "e", "f", "g", "h"]);
  assertEquals(texts(pieces), [{ text: "defgh", end: "tokens" }]);
  assertEquals(decoder.calls, [[3], [1], [1], [1], [1]]);
  const { promptTokens, readTokens, newTokens } = generator.statistics!;
  assertEquals([promptTokens, readTokens, newTokens], [3, 3, 5]);
});

Deno.test("a text ends with a token that ends it, with a stop string, with its length, or when somebody stops it", async () => {
  const run = (endIds: number[], more: Partial<ContinueOptions>, room = 100) =>
    all(new TextGenerator(source(endIds), new CountingDecoder(1, room)).continue(codes("abc"), options(more)));
  assertEquals(texts(await run(codes("fz"), {})), [{ text: "de", end: "end" }]);
  assertEquals(texts(await run([], { stop: ["fg"] })), [{ text: "de", end: "stop" }]);
  assertEquals(texts(await run([], { stop: ["hi"] })), [{ text: "defgh", end: "tokens" }]);
  assertEquals(texts(await run([], {}, 6)), [{ text: "def", end: "context" }]);
  assertEquals(texts(await run([], { signal: AbortSignal.abort() })), [{ text: "d", end: "abort" }]);
});

Deno.test("samples go on by themselves: one that has ended rests, and the others read on", async () => {
  const decoder = new CountingDecoder(3, 100), generator = new TextGenerator(source(codes("h")), decoder);
  const sampling = { temperature: 2, seed: 1 };
  const pieces = await all(generator.continue(codes("a"), options({ maxNewTokens: 40 }, sampling)));
  const found = texts(pieces, 3), lengths = found.map(({ text, end }) => text.length + (end === "end" ? 1 : 0));
  assertEquals(new Set(found.map(({ text }) => text)).size, 3);
  assertEquals(generator.statistics!.newTokens, lengths.reduce((a, b) => a + b));
  decoder.calls.slice(1).forEach((call, n) => assertEquals(call, lengths.map((length) => n + 1 < length ? 1 : 0)));
});

Deno.test("a sample is the same whether others are made beside it or not", async () => {
  const made = async (samples: number) => {
    const generator = new TextGenerator(source(), new CountingDecoder(samples, 100));
    return texts(
      await all(generator.continue(codes("ab"), options({ maxNewTokens: 20 }, { temperature: 3 }))),
      samples,
    );
  };
  const [[alone], several] = [await made(1), await made(4)];
  assertEquals(several[0], alone);
});

Deno.test("what a prompt has in common with what was read is not read again", async () => {
  const decoder = new CountingDecoder(1, 100), generator = new TextGenerator(source(), decoder);
  await all(generator.continue(codes("abc"), options())); // defgh, of which the last was not read
  await all(generator.continue(codes("abcdefgh?x"), options({ maxNewTokens: 1 })));
  assertEquals(decoder.calls.at(-1), [3]);
  const { promptTokens, readTokens } = generator.statistics!;
  assertEquals([promptTokens, readTokens], [10, 3]);
  await all(generator.continue(codes("abX"), options({ maxNewTokens: 1 })));
  assertEquals([decoder.calls.at(-1), decoder.read], [[1], [codes("abX")]]);
  // The same again: the last token has to be read, as logits are behind it.
  assertEquals(texts(await all(generator.continue(codes("abX"), options({ maxNewTokens: 2 })))), [
    { text: "YZ", end: "tokens" },
  ]);
});

Deno.test("rows of the model without a token are never drawn", async () => {
  const decoder = new CountingDecoder(1, 100, 300), generator = new TextGenerator(source(), decoder);
  const pieces = await all(generator.continue([254], options({ maxNewTokens: 3 })));
  assertEquals(decoder.read[0], [254, 255, 255]);
  assertEquals(pieces.at(-1)!.end, "tokens");
});

Deno.test("a prompt that is empty or leaves no room is refused before anything is read", async () => {
  const decoder = new CountingDecoder(1, 4), generator = new TextGenerator(source(), decoder);
  const begin = (text: string) => assertRejects(() => all(generator.continue(codes(text), options())), GenerateError);
  assertEquals((await begin("")).what, "The prompt is empty");
  assertEquals((await begin("abcd")).what, "The prompt has 4 tokens");
  assertEquals(decoder.calls, []);
});
