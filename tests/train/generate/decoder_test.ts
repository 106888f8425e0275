import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { load } from "../../../train/checkpoint/load.ts";
import { openDecoder, type ProgramDecoder } from "../../../train/generate/decoder.ts";
import { results, testRanks } from "../../native/mpirun.ts";
import type { LlamaOptions } from "../../../model/llama.ts";
import { type Continued, continued, type DecoderCase } from "./decoder_rank.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { distance, fullLogits, randomLlama, sizes, someTokens } from "./weights.ts";

const script = new URL("decoder_rank.ts", import.meta.url);
const four: LlamaOptions = { numLayers: 4 }, six: LlamaOptions = { numLayers: 6 };

/** Opens one in f64, whose logits are then those. */
async function exact(weights: Parameters<typeof openDecoder>[0], sequences: number, maxLength: number) {
  return await openDecoder(weights, { sequences, maxLength, dtype: "f64", threads: 1 }) as ProgramDecoder;
}

for (const [name, options] of Object.entries(sizes)) {
  Deno.test(`a Llama ${name}, token by token, gives the logits of the whole forward pass at every position`, async () => {
    const { model, memory, weights } = randomLlama(options), tokens = someTokens(20, 1);
    using decoder = await exact(weights, 1, 20);
    for (const [i, token] of tokens.entries()) {
      await decoder.extend([[token]]);
      const off = distance(decoder.logits, fullLogits(model, memory, tokens.slice(0, i + 1)));
      assert(off < 1e-10, `logits behind token ${i} are off by ${off}`);
    }
    assert(Math.max(...decoder.logits) - Math.min(...decoder.logits) > 0.5, "the logits tell nothing");
  });
}

Deno.test("prompts of different lengths, read together and in any pieces, give the logits of each alone", async () => {
  const { model, memory, weights } = randomLlama(sizes.grouped);
  using decoder = await exact(weights, 3, 100);
  const has: number[][] = [[], [], []], counts = [[85, 1, 17], [1, 1, 0], [0, 30, 2], [3, 0, 64]];
  for (const [run, lengths] of counts.entries()) {
    const more = lengths.map((length, s) => someTokens(length, 10 * run + s));
    await decoder.extend(more);
    more.forEach((list, s) => has[s].push(...list));
    assertEquals(decoder.lengths, has.map((list) => list.length));
    for (const [s, tokens] of has.entries()) {
      const own = decoder.logits.subarray(s * model.vocabSize, (s + 1) * model.vocabSize);
      const off = distance(own, fullLogits(model, memory, tokens));
      assert(off < 1e-10, `run ${run}: logits of sequence ${s} are off by ${off}`);
    }
  }
});

Deno.test("what is truncated is forgotten, of that sequence alone", async () => {
  const { model, memory, weights } = randomLlama();
  using decoder = await exact(weights, 2, 64);
  const [first, second] = [someTokens(40, 1), someTokens(33, 2)];
  await decoder.extend([first, second]);
  decoder.truncate(0, 7);
  await decoder.extend([[5, 6], [7]]);
  assertEquals(decoder.lengths, [9, 34]);
  const expected = [[...first.slice(0, 7), 5, 6], [...second, 7]].flatMap((t) => [...fullLogits(model, memory, t)]);
  assert(distance(decoder.logits, expected) < 1e-10);
  decoder.truncate(0, 0);
  await decoder.extend([[1], []]);
  const alone = fullLogits(model, memory, [1]);
  assert(distance(decoder.logits.subarray(0, model.vocabSize), alone) < 1e-10);
});

Deno.test("in f32 logits are close to those in f64, and bf16 says about the same", async () => {
  const { model, memory, weights } = randomLlama(sizes.grouped), tokens = someTokens(30, 3);
  const expected = fullLogits(model, memory, tokens), spread = Math.max(...expected) - Math.min(...expected);
  for (const [dtype, bound] of [["f32", 1e-5], ["bf16", 0.05]] as const) {
    using decoder = await openDecoder(weights, { maxLength: 32, dtype, threads: 1 });
    await decoder.extend([tokens.slice(0, 20)]);
    let logits = await decoder.extend([[]]);
    for (const token of tokens.slice(20)) logits = await decoder.extend([[token]]);
    const off = distance(logits, expected) / spread;
    assert(off < bound, `${dtype}: off by ${off} of the logits' spread`);
    assert(dtype === "f32" || off > 1e-5, "nothing is rounded to bf16");
  }
});

Deno.test("a Llama that transformers has saved continues with its logits", async () => {
  const folder = "tests/goldens/hf/grouped",
    { tokens, logits } = JSON.parse(
      await Deno.readTextFile(`${folder}/logits.json`),
    );
  using decoder = await openDecoder(load(folder), { maxLength: tokens.length, threads: 2 });
  for (const [i, token] of tokens.entries()) {
    const off = distance(await decoder.extend([[token]]), logits[i]);
    assert(off < 1e-4, `logits behind token ${i} are off by ${off}`);
  }
});

Deno.test("what cannot be read is refused before anything is read", async () => {
  const { weights } = randomLlama();
  using decoder = await openDecoder(weights, { sequences: 2, maxLength: 4, threads: 1 });
  const before = [...await decoder.extend([[1, 2], [3]])];
  const refused: [readonly number[][], string][] = [
    [[[1]], "tokens of 1 sequences"],
    [[[], [1, 2, 3, 4]], "sequence 1 would have 5 tokens"],
    [[[48], [0]], "sequence 0 has a token 48"],
    [[[0], [-1]], "sequence 1 has a token -1"],
    [[[0.5], []], "sequence 0 has a token 0.5"],
  ];
  for (const [tokens, says] of refused) await assertRejects(() => decoder.extend(tokens), RangeError, says);
  assertThrows(() => decoder.truncate(0, 3), RangeError, "it has 2");
  assertThrows(() => decoder.truncate(2, 0), RangeError, "there is none");
  assertEquals([...await decoder.extend([[], []])], before);
  assertEquals(decoder.lengths, [2, 1]);
});

Deno.test("weights of another model, and numbers that are no sizes, are refused", async () => {
  const { weights } = randomLlama(), { model } = randomLlama(sizes.grouped);
  await assertRejects(() => openDecoder(weights, { maxLength: 0 }), RangeError, "maxLength is 0");
  await assertRejects(() => openDecoder(weights, { maxLength: 4, sequences: 1.5 }), RangeError, "sequences is 1.5");
  await assertRejects(() => openDecoder(weights, { maxLength: 4, model }), CheckpointError, "is [48,16]");
  const unsized = { ...weights, family: undefined };
  await assertRejects(
    () => openDecoder(unsized, { maxLength: 4 }),
    CheckpointError,
    "does not say the family and sizes",
  );
});

/** Cases by the number of ranks, and the part of the caches that a rank may have. */
const meshes: Readonly<Record<string, readonly (DecoderCase & { readonly cacheParts: readonly number[] })[]>> = {
  "that share weights and caches": [
    { mesh: { tp: 2 }, cacheParts: [1 / 2, 1 / 2] },
    { mesh: { dp_shard: 2 }, cacheParts: [1, 1] },
  ],
  "in stages": [
    { mesh: { pp: 2 }, cacheParts: [1 / 2, 1 / 2] },
    { mesh: { pp: 2 }, model: { numLayers: 3, tiedEmbeddings: true }, cacheParts: [2 / 3, 1 / 3] },
    { mesh: { pp: 2 }, steps: 1, cacheParts: [1 / 2, 1 / 2] },
    { mesh: { pp: 2 }, model: four, steps: 1, pipeline: { schedule: "Interleaved1F1B" }, cacheParts: [1 / 2, 1 / 2] },
    ...["ZBVZeroBubble", "DualPipeV"].map((schedule) => ({
      ...{ mesh: { pp: 2 }, model: four, steps: 1, pipeline: { schedule }, cacheParts: [1 / 4, 3 / 4] },
    })),
  ],
  "in stages, of which several are on each of four ranks, or that share weights too": [
    { mesh: { pp: 4 }, cacheParts: [0, 1 / 2, 1 / 2, 0] }, // the first has the embedding, the last the head
    { mesh: { pp: 2, tp: 2 }, cacheParts: [1 / 4, 1 / 4, 1 / 4, 1 / 4] },
    { mesh: { pp: 2, dp_shard: 2 }, cacheParts: [1 / 2, 1 / 2, 1 / 2, 1 / 2] },
    {
      mesh: { pp: 4 },
      model: six,
      steps: 1,
      pipeline: { schedule: "Interleaved1F1B" },
      cacheParts: [1 / 6, 1 / 3, 1 / 3, 1 / 6],
    },
    {
      mesh: { pp: 4 },
      model: six,
      steps: 1,
      pipeline: { schedule: "ZBVZeroBubble" },
      cacheParts: [0, 1 / 3, 1 / 3, 1 / 3],
    },
    { mesh: { pp: 2, tp: 2 }, steps: 1, cacheParts: [1 / 4, 1 / 4, 1 / 4, 1 / 4] },
    { mesh: { pp: 2, dp_shard: 2 }, steps: 2, cacheParts: [1 / 2, 1 / 2, 1 / 2, 1 / 2] },
  ],
};

for (const [name, cases] of Object.entries(meshes)) {
  testRanks(`ranks ${name} continue as one process does, over weights of their own and between steps`, async () => {
    const size = cases[0].cacheParts.length;
    await using folder = await temporaryFolder();
    await results({ size, script, args: [JSON.stringify(cases), folder.path] });
    const ranks = Array.from({ length: size }, (_, rank): readonly (readonly Continued[])[] => {
      return JSON.parse(Deno.readTextFileSync(`${folder.path}/${rank}`));
    });
    for (const [i, run] of cases.entries()) {
      const alone = await continued(run), { cacheParts, ...about } = run;
      for (const [rank, found] of ranks.entries()) {
        const what = `rank ${rank} of ${JSON.stringify(about)}`;
        assertEquals(found[i].map((c) => c.tokens), alone.map((c) => c.tokens), what);
        const off = found[i].map((c, step) => distance(c.logits, alone[step].logits));
        assert(Math.max(...off) < 1e-10, `${what}: logits are off by ${off}`);
        assertEquals(found[i][0].cacheBytes, Math.round(alone[0].cacheBytes * cacheParts[rank]), what);
      }
      const moved = alone.slice(1).map((c, step) => distance(c.logits, alone[step].logits));
      assert(moved.every((by) => by > 1e-3), `${JSON.stringify(about)}: a step changes nothing: ${moved}`);
    }
  });
}
