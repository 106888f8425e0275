import { assertEquals, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/weights/hugging_face.ts";
import { openWeights, readWeightsConfig } from "../../../train/weights/open.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tensorsOf, writeWeights } from "../checkpoint/fixture.ts";

/** In how many pieces a folder has a tensor. */
function piecesOf(path: string, name: string): number {
  const { manifest, piecesIn } = openWeights(path);
  return Object.keys(manifest.files).flatMap(piecesIn).filter(({ tensor }) => tensor === name).length;
}

const golden = new URL("../../goldens/hf/tied", import.meta.url).pathname;

Deno.test("config.json makes a folder Hugging Face's, params.json alone Meta's, and a folder with neither is refused", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder, { dim, numLayers, numHeads } = readHuggingFaceConfig(golden).sizes;
  assertThrows(() => readWeightsConfig(path).sizes, CheckpointError, "config.json");
  assertThrows(() => openWeights(path), CheckpointError, "params.json");
  writeWeights(path, await tensorsOf(openHuggingFace(golden)));
  const params = { dim, n_layers: numLayers, n_heads: numHeads, vocab_size: -1, hidden_dim: 24 };
  await Deno.writeTextFile(`${path}/params.json`, JSON.stringify(params));
  assertEquals(readWeightsConfig(path).sizes.normEps, 1e-5);
  assertEquals(piecesOf(path, "layers.0.attention.wq.weight"), 1);
  for (const file of ["config.json", "model.safetensors"]) await Deno.copyFile(`${golden}/${file}`, `${path}/${file}`);
  assertEquals(readWeightsConfig(path), readHuggingFaceConfig(golden));
  assertEquals(piecesOf(path, "layers.0.attention.wq.weight"), 16);
});
