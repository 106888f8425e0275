import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { texts } from "../../../data/dataset.ts";
import { shard } from "../../../graph/layout.ts";
import { library } from "../../../ffi/library.ts";
import { buildModel } from "../../../model/families.ts";
import { namedParameters } from "../../../model/module.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { load } from "../../../train/checkpoint/load.ts";
import { readHeader } from "../../../train/weights/safetensors.ts";
import { Trainer } from "../../../train/trainer.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { moment, type Numbers, saveAll, saved, Spread, states, weight, whole, writeWeights } from "./fixture.ts";

library(); // opened once by a process, and never closed

const golden = (name: string) => new URL(`../../goldens/hf/${name}`, import.meta.url).pathname;

Deno.test("a checkpoint of several ranks is opened, and its tensors are read whole by their names", async () => {
  await using at = await saved();
  const mesh = new Mesh({ dp_shard: 2 }, 2);
  await saveAll(at.path, new Spread(states, () => new Map([["dp_shard", shard(0)]]), mesh).fill(whole), 7);
  const checkpoint = load(at.path);
  assertEquals([checkpoint.path, checkpoint.step, checkpoint.content], [at.path, 7, "full"]);
  assertEquals([...checkpoint.tensors], states.map(({ name, shape, dtype }) => [name, { shape, dtype }]));
  for (const { name } of [weight, moment]) {
    assertEquals(new Uint8Array((await checkpoint.read(name)).buffer), whole.get(name));
  }
  assertEquals(checkpoint.family, undefined);
});

Deno.test("a run's checkpoint tells family and sizes of its model, and holds the values of its parameters", async () => {
  await using folder = await temporaryFolder();
  await Deno.writeTextFile(`${folder.path}/a.txt`, "The quick brown fox jumps over the lazy dog. ".repeat(40));
  const model = tinyLlama({ vocabSize: 2048 }), data = texts(`${folder.path}/a.txt`), path = `${folder.path}/step-2`;
  await using trainer = await Trainer.open({ model, data, steps: 2, batch: 1, seqLen: 16, lanes: 1, threads: 1 });
  await Array.fromAsync(trainer);
  await trainer.save(path, "model");
  const { family, step, content, read, tensors } = load(path);
  assertEquals([family, step, content], [model.family, 2, "model"]);
  assertEquals([...namedParameters(buildModel(family!)).keys()].sort(), [...tensors.keys()].sort());
  for (const name of tensors.keys()) assertEquals([...await read(name)], [...await trainer.program.readState(name)]);
});

Deno.test("a folder of transformers has our names, and rows in our order", async () => {
  const { step, content, family, tensors, read } = load(golden("plain"));
  const { dim, numHeads } = family!.sizes;
  assertEquals([step, content], [undefined, "model"]);
  const parameters = namedParameters(buildModel(family!));
  assertEquals(
    [...tensors].map(([name, { shape }]) => [name, shape]).sort(),
    [...parameters].map(([name, p]) => [
      name,
      p.shape,
    ]).sort(),
  );
  // The second of a pair of rows is there in the second half of its head.
  const wq = "layers.0.attention.wq.weight", values = await read(wq), half = dim / numHeads / 2;
  const file = `${golden("plain")}/model.safetensors`, [, width] = tensors.get(wq)!.shape;
  const { dtype, begin } = readHeader(file).tensors.get("model.layers.0.self_attn.q_proj.weight")!;
  assertEquals(dtype, "F32");
  const theirs = new Float32Array((await Deno.readFile(file)).slice(begin, begin + 4 * values.length).buffer);
  for (const [row, there] of [[0, 0], [1, half], [2, 1], [2 * half + 1, 3 * half]]) {
    const [ours, same] = [values, theirs].map((v, k) => [...v.subarray([row, there][k] * width).subarray(0, width)]);
    assertEquals(ours, same, `row ${row}`);
  }
});

Deno.test("a folder under Meta's names is opened too, with the sizes of its params.json", async () => {
  await using folder = await temporaryFolder();
  const { family, tensors } = load(golden("head_dim"));
  const { dim, numLayers, numHeads, numKvHeads, headDim, ffnHiddenDim } = family!.sizes;
  const numbers = new Map<string, Numbers>();
  for (const [name, { shape }] of tensors) {
    numbers.set(name, { shape, numbers: Float32Array.from(await load(golden("head_dim")).read(name)) });
  }
  writeWeights(folder.path, numbers, "consolidated.safetensors");
  const sizes = { dim, n_layers: numLayers, n_heads: numHeads, n_kv_heads: numKvHeads, head_dim: headDim };
  const params = { ...sizes, hidden_dim: ffnHiddenDim, vocab_size: -1 };
  await Deno.writeTextFile(`${folder.path}/params.json`, JSON.stringify(params));
  const meta = load(folder.path);
  assertEquals(meta.family, family);
  for (const [name, { numbers: own }] of numbers) assertEquals([...await meta.read(name)], [...own], name);
});

Deno.test("what cannot be opened is told with what it is instead, and with what to name", async () => {
  await using at = await saved();
  const refused = (path: string, ...parts: string[]) => {
    const { message } = assertThrows(() => load(path), CheckpointError);
    for (const part of parts) assertStringIncludes(message, part);
  };
  refused(
    `${at.folder}/nowhere`,
    "nowhere: there is no such folder",
    "or save a checkpoint (train --checkpoint.enable)",
  );
  refused(`${at.path}/model.safetensors`, "it is a file", "fix: name the folder");
  refused(at.folder, "it is a folder of checkpoints", `such as ${at.path}`);
  await Deno.mkdir(`${at.folder}/step-2.tmp`);
  refused(`${at.folder}/step-2.tmp`, "its save was not finished");
  await Deno.mkdir(`${at.folder}/other`);
  refused(`${at.folder}/other`, "has no config.json");
  await Deno.remove(`${at.path}/optimizer.safetensors`);
  refused(at.path, "optimizer.safetensors is missing");
});

Deno.test("a tensor that is not there, and one that is damaged, are told by their names", async () => {
  await using at = await saved();
  const checkpoint = load(at.path), file = `${at.path}/model.safetensors`, bytes = await Deno.readFile(file);
  await assertRejects(() => checkpoint.read("toString"), CheckpointError, 'one of its 2, such as "w.weight"');
  bytes[bytes.length - 1] ^= 1;
  await Deno.writeFile(file, bytes);
  const { message } = await assertRejects(() => checkpoint.read(weight.name), CheckpointError);
  for (const part of [file, weight.name]) assertStringIncludes(message, part);
});
