import { assert, assertEquals, assertThrows } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import type { Memory } from "../../../graph/interpret.ts";
import { Llama } from "../../../model/llama.ts";
import { namedParameters } from "../../../model/module.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { readTensor } from "../../../train/checkpoint/inspect.ts";
import { openMeta, readMetaParams } from "../../../train/weights/meta.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { parityFolder, readSafetensors } from "../../goldens.ts";
import { logitsOf } from "../../model/tiny.ts";
import { type Numbers, writeWeights } from "../checkpoint/fixture.ts";

// A Llama in PyTorch whose RoPE turns pairs of neighbours and whose parameters have Meta's names.
const golden = readSafetensors(new URL("parameters.safetensors", parityFolder));
const PARAMS = { dim: 32, n_layers: 2, n_heads: 4, n_kv_heads: 2, hidden_dim: 48, vocab_size: -1, rope_theta: 500000 };

/** A folder as Meta names it. */
async function metaFolder(params: Record<string, unknown>, tensors = goldenTensors()) {
  const folder = await temporaryFolder(), { path } = folder;
  writeWeights(path, tensors, "consolidated.00.safetensors");
  const write = (more: Record<string, unknown>) =>
    Deno.writeTextFileSync(`${path}/params.json`, JSON.stringify({ ...params, ...more }));
  write({});
  return { path, write, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

function goldenTensors(): Map<string, Numbers> {
  return new Map([...golden].map(([name, { shape, data }]) => [name, { shape, numbers: Float32Array.from(data) }]));
}

Deno.test("a Llama under Meta's names gives PyTorch's logits, its rows as they lie", async () => {
  const freqs = { shape: [4], numbers: new Float32Array(4) };
  await using folder = await metaFolder(PARAMS, goldenTensors().set("rope.freqs", freqs));
  const config = readMetaParams(folder.path).sizes, model = new Llama(config), checkpoint = openMeta(folder.path);
  assertEquals(config, {
    ...{ dim: 32, numLayers: 2, numHeads: 4, numKvHeads: 2, headDim: 8, ffnHiddenDim: 48, vocabSize: 61 },
    ...{ normEps: 1e-5, ropeTheta: 500000, ropeScaling: null, tiedEmbeddings: false },
  });
  const memory: Memory = new Map();
  for (const [name, { shape }] of namedParameters(model)) {
    assertEquals(checkpoint.manifest.tensors[name].shape, shape);
    memory.set(name, arr(shape, [...await readTensor(checkpoint, name)]));
  }
  assertEquals(memory.size, golden.size);
  const batches = readSafetensors(new URL("batches.safetensors", parityFolder));
  const { shape: [batch, seqLen], data } = batches.get("tokens.0")!, tokens = [...data];
  const ours = logitsOf(model, memory, { tokens, positions: tokens.map((_, i) => i % seqLen) }, batch);
  const { data: theirs } = readSafetensors(new URL("plain.safetensors", parityFolder)).get("logits")!;
  const off = Math.max(...theirs.map((x, i) => Math.abs(x - ours[i])));
  assert(off < 1e-5, `logits are off by ${off}`);
});

Deno.test("sizes come from params.json: the feed-forward width by its rule, scaled rotations, heads of their own size", async () => {
  await using folder = await metaFolder(PARAMS);
  const sizes = (more: Record<string, unknown>) => {
    folder.write({ hidden_dim: undefined, ...more });
    return readMetaParams(folder.path).sizes;
  };
  // As in Llama 3.2 1B.
  const small = { dim: 2048, n_heads: 32, n_kv_heads: 8, multiple_of: 256, ffn_dim_multiplier: 1.5 };
  assertEquals([sizes(small).ffnHiddenDim, sizes(small).headDim, sizes(small).vocabSize], [8192, 64, 61]);
  const llama2 = { dim: 4096, n_heads: 32, n_kv_heads: null, multiple_of: 256, norm_eps: 1e-6, rope_theta: undefined };
  const { ffnHiddenDim, numKvHeads, normEps, ropeTheta } = sizes(llama2);
  assertEquals([ffnHiddenDim, numKvHeads, normEps, ropeTheta], [11008, 32, 1e-6, 10000]);
  const scaling = { factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 };
  assertEquals(sizes({ use_scaled_rope: true }).ropeScaling, scaling);
  assertEquals(sizes({ use_scaled_rope: true, rope_scaling_factor: 32 }).ropeScaling, { ...scaling, factor: 32 });
  assertEquals([sizes({ head_dim: 64 }).headDim, sizes({ vocab_size: 99 }).vocabSize], [64, 99]);
  assertThrows(() => sizes({ moe: { num_experts: 8 } }), CheckpointError, 'moe is {"num_experts":8}');
  assertThrows(() => sizes({ n_kv_heads: 3 }), CheckpointError, "3 key and value heads do not divide 4");
  assertThrows(() => sizes({ dim: "32" }), CheckpointError, 'dim is "32"');
  assertEquals(sizes({ use_biases: false, sliding_window: null, max_seq_len: 4096 }).dim, 32);
});

Deno.test("embeddings are tied where there is no output layer, and any other missing or further tensor is named", async () => {
  const tensors = goldenTensors();
  tensors.delete("output.weight");
  await using tied = await metaFolder(PARAMS, tensors);
  assertEquals(readMetaParams(tied.path).sizes.tiedEmbeddings, true);
  assertEquals("output.weight" in openMeta(tied.path).manifest.tensors, false);
  tensors.set("layers.0.attention.wq.bias", { shape: [1], numbers: new Float32Array(1) });
  await using biased = await metaFolder(PARAMS, tensors);
  assertThrows(() => openMeta(biased.path), CheckpointError, '"layers.0.attention.wq.bias"');
  tied.write({ n_layers: 3 });
  assertThrows(() => openMeta(tied.path), CheckpointError, 'no file has the tensor "layers.2.attention.wq.weight"');
});

Deno.test("shards for model parallelism are refused with what to do, and pickles with why", async () => {
  await using folder = await metaFolder(PARAMS);
  await Deno.copyFile(`${folder.path}/consolidated.00.safetensors`, `${folder.path}/consolidated.01.safetensors`);
  for (const use of [openMeta, readMetaParams]) {
    assertThrows(
      () => use(folder.path),
      CheckpointError,
      '"tok_embeddings.weight" is in consolidated.00.safetensors and in consolidated.01.safetensors',
    );
  }
  for (const i of [0, 1]) await Deno.remove(`${folder.path}/consolidated.0${i}.safetensors`);
  assertThrows(() => openMeta(folder.path), CheckpointError, "there is no safetensors file");
  await Deno.writeTextFile(`${folder.path}/consolidated.00.pth`, "");
  assertThrows(
    () => openMeta(folder.path),
    CheckpointError,
    "consolidated.00.pth is a pickle, which runs whatever code it holds",
  );
});
