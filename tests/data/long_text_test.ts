import { assert, assertEquals } from "@std/assert";
import { shardName } from "../../data/c4.ts";
import { SAMPLE } from "../../data/dataset.ts";
import { readJsonLines } from "../../data/json_lines.ts";
import { shardFile } from "../../data/source.ts";
import { cutsOf, PART_LENGTH, partsOf } from "../../data/long_text.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { unicodeLines } from "./unicode_lines.ts";

async function sampleText(): Promise<string> {
  const shard = readJsonLines(shardFile(new URL(shardName("validation", 0, 1), SAMPLE)), {
    from: 0,
    every: 1,
    offset: 0,
  });
  return (await Array.fromAsync(shard)).slice(0, 20).map(({ text }) => text).join("\n");
}

Deno.test("a long text has the ids of the whole, wherever it is cut", async () => {
  const goldens = new URL("../goldens/tokenizers/", import.meta.url);
  for (const url of [SAMPLE, ...["tiktoken/", "sentencepiece_bpe/"].map((name) => new URL(name, goldens))]) {
    const opened = await Tokenizer.open(url), cuts = cutsOf(opened.files.json);
    assert(cuts !== undefined, url.href);
    const texts = [
      await sampleText(),
      ...unicodeLines(300).map((line) => `${line} and so\non`),
    ];
    let parts = 0;
    for (const text of texts) {
      const cut = [...partsOf(text, cuts, 20)];
      assertEquals(cut.flatMap((part) => [...opened.encode(part)]), [...opened.encode(text)], text);
      parts += cut.length;
    }
    assert(parts > 2000, `only ${parts} parts`);
    const long = `${await sampleText()} `.repeat(1 + Math.ceil(2 * PART_LENGTH / texts[0].length)).trimEnd();
    const ids = [...partsOf(long, cuts, 5000)].flatMap((part) => [...opened.encode(part)]);
    assertEquals([...opened.encode(long, { bos: true, eos: true })], [opened.bosId, ...ids, opened.eosId]);
  }
});

Deno.test("text is cut nowhere with a vocabulary whose tokens reach over words", async () => {
  const tokenizer = await Tokenizer.open(SAMPLE);
  const { json } = tokenizer.files,
    { model } = json,
    merged = { ...model, vocab: { ...model.vocab, "e\u0120a": 9999, "\u010aa": 9998 } };
  assertEquals(cutsOf({ ...json, model: merged }), undefined);
  assertEquals([...partsOf("a b c", undefined, 2)], ["a b c"]);
});
