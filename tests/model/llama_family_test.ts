import { assertEquals } from "@std/assert";
import { llama } from "../../model/llama.ts";
import { llamaFamily } from "../../model/llama_family.ts";
import { namedParameters } from "../../model/module.ts";

for (const tiedEmbeddings of [false, true]) {
  Deno.test(`each parameter has one name in transformers and one in GGUF${tiedEmbeddings ? ", tied ones too" : ""}`, () => {
    const model = llama("debug", { numLayers: 2, tiedEmbeddings }), ours = [...namedParameters(model).keys()].sort();
    for (const form of [llamaFamily.huggingFace, llamaFamily.gguf]) {
      const names = form.names(model.config);
      assertEquals([...names.keys()].sort(), ours);
      assertEquals(new Set(names.values()).size, ours.length);
    }
  });
}

Deno.test("the names are those of the other programs", () => {
  const { config } = llama("debug"), name = "layers.5.feed_forward.w3.weight";
  assertEquals(llamaFamily.huggingFace.names(config).get(name), "model.layers.5.mlp.up_proj.weight");
  assertEquals(llamaFamily.gguf.names(config).get(name), "blk.5.ffn_up.weight");
});

Deno.test("RoPE turns the rows of queries and keys alone", () => {
  const names = [...namedParameters(llama("debug", { numLayers: 1 })).keys()].filter(llamaFamily.hasTurnedRows);
  assertEquals(names, ["layers.0.attention.wq.weight", "layers.0.attention.wk.weight"]);
});
