import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import type { Memory } from "../../../graph/interpret.ts";
import { Llama, llamaConfig } from "../../../model/llama.ts";
import { namedParameters } from "../../../model/module.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/weights/hugging_face.ts";
import { readTensor } from "../../../train/checkpoint/inspect.ts";
import { readHeader } from "../../../train/weights/safetensors.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { logitsOf } from "../../model/tiny.ts";

const goldens = new URL("../../goldens/hf/", import.meta.url).pathname;

for (const name of ["plain", "grouped", "tied", "scaled", "head_dim", "odd"]) {
  Deno.test(`a Llama that transformers has saved gives its logits: ${name}`, async () => {
    const folder = goldens + name, config = readHuggingFaceConfig(folder).sizes, model = new Llama(config);
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
  assertEquals(readHuggingFaceConfig(folder.path).sizes, {
    ...{
      dim: 64,
      numLayers: 3,
      numHeads: 4,
      numKvHeads: 4,
      headDim: 16,
      ffnHiddenDim: 96,
      vocabSize: 100,
      normEps: 1e-6,
    },
    ...{ ropeTheta: 5e5, tiedEmbeddings: true },
    ropeScaling: { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 },
  });
  const refused = (more: Record<string, unknown>, says: string) => {
    write(more);
    assertThrows(() => readHuggingFaceConfig(folder.path).sizes, CheckpointError, says);
  };
  refused({ vocab_size: "many" }, 'vocab_size is "many"');
  refused({ num_hidden_layers: 2.5 }, "num_hidden_layers is 2.5");
  refused({ head_dim: 7 }, "its heads have size 7");
  refused({ num_key_value_heads: 3 }, "3 key and value heads do not divide 4 query heads");
  write({ head_dim: 32 });
  assertEquals(readHuggingFaceConfig(folder.path).sizes.headDim, 32);
});

Deno.test("what a Llama here does not compute is refused by name, and what says that it is off is not", async () => {
  await using folder = await temporaryFolder();
  const plain = JSON.parse(await Deno.readTextFile(`${goldens}plain/config.json`));
  const open = (more: Record<string, unknown>) => {
    Deno.writeTextFileSync(`${folder.path}/config.json`, JSON.stringify({ ...plain, ...more }));
    return readHuggingFaceConfig(folder.path).sizes;
  };
  for (
    const [more, says] of [
      [{ model_type: "qwen2" }, 'model_type is "qwen2"'],
      [{ hidden_act: "gelu" }, 'hidden_act is "gelu"'],
      [{ attention_bias: true }, "attention_bias is true"],
      [{ mlp_bias: true }, "mlp_bias is true"],
      [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5"],
      [{ rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } }, "partial_rotary_factor is 0.5"],
      [{ rope_parameters: { rope_type: "yarn", factor: 2 } }, 'rope_type is "yarn"'],
      [{ rope_parameters: { rope_type: "dynamic", factor: 2 } }, 'rope_type is "dynamic"'],
      [{ rope_parameters: undefined, rope_scaling: { type: "linear", factor: 2 } }, 'rope_type is "linear"'],
      [{ rope_parameters: { rope_type: "llama3", factor: 2 } }, "low_freq_factor is undefined"],
      [{ pretraining_tp: 2 }, "pretraining_tp is 2"],
      [{ sliding_window: 4096 }, "sliding_window is 4096"],
      [{ use_sliding_window: true }, "use_sliding_window is true"],
      [{ num_local_experts: 8 }, "num_local_experts is 8"],
      [{ quantization_config: { quant_method: "gptq" } }, 'quantization_config is {"quant_method":"gptq"}'],
    ] as const
  ) assertThrows(() => open(more), CheckpointError, says);
  const off = { sliding_window: null, num_local_experts: 1, quantization_config: null, partial_rotary_factor: 1 };
  assertEquals(open(off), readHuggingFaceConfig(`${goldens}plain`).sizes);
});

Deno.test("a tensor that is no parameter is named: biases, adapters, scales; one that only repeats another is not", async () => {
  await using folder = await temporaryFolder();
  const copy = async (name: string, tensors: readonly string[]) => {
    await Deno.copyFile(`${goldens}${name}/config.json`, `${folder.path}/config.json`);
    await Deno.copyFile(`${goldens}${name}/model.safetensors`, `${folder.path}/one.safetensors`);
    const names = [...readHeader(`${folder.path}/one.safetensors`).tensors.keys(), ...tensors];
    const weight_map = Object.fromEntries(names.map((name) => [name, "one.safetensors"]));
    await Deno.writeTextFile(`${folder.path}/model.safetensors.index.json`, JSON.stringify({ weight_map }));
    return () => openHuggingFace(folder.path);
  };
  const bias = "model.layers.0.self_attn.q_proj.bias";
  assertThrows(await copy("plain", [bias]), CheckpointError, `"${bias}" of one.safetensors is no parameter`);
  const further = "model.layers.2.mlp.up_proj.weight";
  assertThrows(await copy("plain", [further]), CheckpointError, `"${further}"`);
  (await copy("plain", ["model.layers.0.self_attn.rotary_emb.inv_freq"]))();
  (await copy("tied", ["lm_head.weight"]))();
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
