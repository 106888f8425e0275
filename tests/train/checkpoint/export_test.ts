import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { exportHuggingFace } from "../../../train/checkpoint/export.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/checkpoint/hugging_face.ts";
import { differences } from "../../../train/checkpoint/inspect.ts";
import { readHeader } from "../../../train/checkpoint/safetensors.ts";
import { temporaryFolder } from "../../data/fixture.ts";

const goldens = new URL("../../goldens/hf/", import.meta.url).pathname;

for (const name of ["plain", "grouped", "tied", "scaled", "head_dim"]) {
  Deno.test(`what is exported is, file for file, what transformers had saved: ${name}`, async () => {
    await using folder = await temporaryFolder();
    const original = openHuggingFace(goldens + name), config = readHuggingFaceConfig(goldens + name);
    const path = `${folder.path}/out`;
    await exportHuggingFace(original, config, path);
    assertEquals(readHuggingFaceConfig(path), config);
    assertEquals(await differences(original, openHuggingFace(path)), []);
    const [theirs, ours] = [goldens + name, path].map((f) => readHeader(`${f}/model.safetensors`).tensors);
    assertEquals([...ours.keys()].sort(), [...theirs.keys()].sort());
    const bytes = (f: string, { begin, end }: { begin: number; end: number }) =>
      Deno.readFileSync(`${f}/model.safetensors`).subarray(begin, end);
    for (const [tensor, at] of ours) assertEquals(bytes(path, at), bytes(goldens + name, theirs.get(tensor)!), tensor);
  });
}

Deno.test("an export may be in bf16, takes a tokenizer's files along, and does not write over a folder", async () => {
  await using folder = await temporaryFolder();
  const checkpoint = openHuggingFace(`${goldens}odd`), config = readHuggingFaceConfig(`${goldens}odd`);
  const path = `${folder.path}/out`, tokenizer = new URL("../../../data/sample", import.meta.url).pathname;
  await exportHuggingFace(checkpoint, config, path, { dtype: "bf16", tokenizer });
  assertEquals(await differences(checkpoint, openHuggingFace(path)), []); // the original is in bf16
  assertEquals([...Deno.readDirSync(path)].map((e) => e.name).sort(), [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const error = await assertRejects(() => exportHuggingFace(checkpoint, config, path), CheckpointError);
  assertStringIncludes(error.message, `${path} is there already`);
  const larger = { ...config, numLayers: 3 };
  await assertRejects(() => exportHuggingFace(checkpoint, larger, `${path}2`), CheckpointError, "no tensor");
  assertEquals([...Deno.readDirSync(folder.path)].map((e) => e.name), ["out"]);
});
