import { assertEquals } from "@std/assert";
import { SAMPLE } from "../../data/dataset.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { addsBos, type TokenizerFiles } from "../../data/tokenizer_json.ts";

const { files } = await Tokenizer.open(SAMPLE);

Deno.test("whether a text begins with a token of its own is what the configuration says, else what is put around it", () => {
  const around = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<s>" } }, { Sequence: {} }] };
  const of = (config: TokenizerFiles["config"], post_processor: unknown = null) =>
    addsBos({ json: { ...files.json, post_processor }, config: { bos_token: "<s>", ...config } });
  assertEquals(of({}), undefined);
  assertEquals([of({ add_bos_token: true }), of({ add_bos_token: false }, around)], [true, false]);
  assertEquals([of({}, around), of({ bos_token: "<a>" }, around)], [true, false]);
  assertEquals(of({}, { type: "Sequence", processors: [{ type: "ByteLevel" }, around] }), true);
});
