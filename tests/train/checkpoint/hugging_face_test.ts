import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import type { Memory } from "../../../graph/interpret.ts";
import { Llama, llamaConfig } from "../../../model/llama.ts";
import { namedParameters } from "../../../model/module.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/checkpoint/hugging_face.ts";
import { readTensor } from "../../../train/checkpoint/inspect.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { logitsOf } from "../../model/tiny.ts";

const goldens = new URL("../../goldens/hf/", import.meta.url).pathname;

for (const name of ["plain", "grouped", "tied", "scaled", "odd"]) {
  Deno.test(`a Llama that transformers has saved gives its logits: ${name}`, async () => {
    const folder = goldens + name, config = readHuggingFaceConfig(folder), model = new Llama(config);
    const checkpoint = openHuggingFace(folder), memory: Memory = new Map();
    assertEquals(Object.keys(checkpoint.manifest.tensors).sort(), [...namedParameters(model).keys()].sort());
    for (const [name, { shape }] of namedParameters(model)) {
      assertEquals(checkpoint.manifest.tensors[name].shape, shape, name);
      memory.set(name, arr(shape, [...await readTensor(checkpoint, name)]));
    }
    const { tokens, logits } = JSON.parse(await Deno.readTextFile(`${folder}/logits.json`));
    const ours = logitsOf(model, memory, { tokens, positions: tokens.map((_: number, i: number) => i) });
    const off = Math.max(...logits.flat().map((x: number, i: number) => Math.abs(x - ours[i])));
    assert(off < 1e-5, `logits are off by ${off}`);
    assert(Math.max(...logits.flat()) - Math.min(...logits.flat()) > 1, "the logits tell nothing");
  });
}

Deno.test("sizes come from config.json, as transformers writes it since version 5 and before", async () => {
  await using folder = await temporaryFolder();
  const old = {
    ...{ model_type: "llama", hidden_size: 64, num_hidden_layers: 3, num_attention_heads: 4, intermediate_size: 96 },
    ...{ vocab_size: 100, rms_norm_eps: 1e-6, rope_theta: 5e5, tie_word_embeddings: true },
    rope_scaling: {
      ...{ rope_type: "llama3", factor: 32, low_freq_factor: 1, high_freq_factor: 4 },
      original_max_position_embeddings: 8192,
    },
  };
  const write = (more: Record<string, unknown>) =>
    Deno.writeTextFileSync(`${folder.path}/config.json`, JSON.stringify({ ...old, ...more }));
  write({});
  assertEquals(readHuggingFaceConfig(folder.path), {
    ...{ dim: 64, numLayers: 3, numHeads: 4, numKvHeads: 4, ffnHiddenDim: 96, vocabSize: 100, normEps: 1e-6 },
    ...{ ropeTheta: 5e5, tiedEmbeddings: true },
    ropeScaling: { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 },
  });
  const refused = (more: Record<string, unknown>, says: string) => {
    write(more);
    assertThrows(() => readHuggingFaceConfig(folder.path), CheckpointError, says);
  };
  refused({ model_type: "qwen2" }, 'model_type is "qwen2"');
  refused({ attention_bias: true }, "attention_bias is true");
  refused({ head_dim: 32 }, "head_dim is 32");
  refused({ hidden_act: "gelu" }, 'hidden_act is "gelu"');
  refused({ rope_scaling: { type: "linear", factor: 2 } }, 'rope_type is "linear"');
  refused({ vocab_size: "many" }, 'vocab_size is "many"');
});

Deno.test("a folder without weights in safetensors is refused, and pickles by name", async () => {
  await using folder = await temporaryFolder();
  await Deno.copyFile(`${goldens}plain/config.json`, `${folder.path}/config.json`);
  assertThrows(() => openHuggingFace(folder.path), CheckpointError, "there is no model.safetensors");
  await Deno.writeTextFile(`${folder.path}/pytorch_model.bin`, "");
  const error = assertThrows(() => openHuggingFace(folder.path), CheckpointError);
  assertStringIncludes(error.message, "pytorch_model.bin is a pickle");
  const nowhere = assertThrows(() => openHuggingFace(`${folder.path}/nowhere`), CheckpointError);
  assertStringIncludes(nowhere.message, "correct checkpoint.initial_load_path");
});

Deno.test("a tensor that config.json asks for and no file has is named", async () => {
  await using folder = await temporaryFolder();
  await Deno.copyFile(`${goldens}plain/model.safetensors`, `${folder.path}/model.safetensors`);
  const json = JSON.parse(await Deno.readTextFile(`${goldens}plain/config.json`));
  await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify({ ...json, num_hidden_layers: 3 }));
  assertThrows(() => openHuggingFace(folder.path), CheckpointError, '"model.layers.2.self_attn.q_proj.weight"');
  await Deno.copyFile(`${goldens}tied/model.safetensors`, `${folder.path}/model.safetensors`);
  await Deno.writeTextFile(`${folder.path}/config.json`, JSON.stringify(json));
  assertThrows(() => openHuggingFace(folder.path), CheckpointError, '"lm_head.weight"');
});

Deno.test("a model with tied embeddings has one table, which counts once", () => {
  const [tied, untied] = [true, false].map((tiedEmbeddings) => {
    return new Llama(llamaConfig("debug", { dim: 16, numLayers: 1, numHeads: 2, vocabSize: 32, tiedEmbeddings }));
  });
  assertEquals(namedParameters(tied).has("output.weight"), false);
  assertEquals(namedParameters(untied).size - namedParameters(tied).size, 1);
  assertEquals(tied.flopsPerToken(8), untied.flopsPerToken(8));
});
