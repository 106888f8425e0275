import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { exportHuggingFace } from "../../../train/weights/export.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/weights/hugging_face.ts";
import { differences, readTensor } from "../../../train/checkpoint/inspect.ts";
import { readHeader } from "../../../train/weights/safetensors.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tensorsOf, writeWeights } from "../checkpoint/fixture.ts";

const goldens = new URL("../../goldens/hf/", import.meta.url).pathname;
const sample = new URL("../../../data/sample", import.meta.url).pathname;
const namesIn = (folder: string): string[] => [...Deno.readDirSync(folder)].map((e) => e.name).sort();
const jsonOf = (path: string) => JSON.parse(Deno.readTextFileSync(path));

/** Bytes of all tensors of a folder. */
function tensorBytes(folder: string): Record<string, Uint8Array> {
  const files = namesIn(folder).filter((name) => name.endsWith(".safetensors")).map((name) => `${folder}/${name}`);
  return Object.fromEntries(
    files.flatMap((file) => {
      const bytes = Deno.readFileSync(file);
      return [...readHeader(file).tensors].map(([name, { begin, end }]) => [name, bytes.subarray(begin, end)]);
    }).sort(),
  );
}

for (const name of ["plain", "grouped", "tied", "scaled", "head_dim", "odd"]) {
  Deno.test(`what is exported is, byte for byte, what transformers had saved: ${name}`, async () => {
    await using folder = await temporaryFolder();
    const original = openHuggingFace(goldens + name), config = readHuggingFaceConfig(goldens + name);
    const path = `${folder.path}/out`;
    await exportHuggingFace(original, config, path, { dtype: name === "odd" ? "bf16" : "f32" });
    assertEquals(readHuggingFaceConfig(path), config);
    assertEquals(await differences(original, openHuggingFace(path)), []);
    assertEquals(tensorBytes(path), tensorBytes(goldens + name));
    // What config.json says, transformers has said too; the rest is for its version 4.
    const [ours, theirs] = [path, goldens + name].map((f) => jsonOf(`${f}/config.json`));
    const {
      rope_theta: _theta,
      rope_scaling: _scaling,
      torch_dtype: _type,
      bos_token_id: bos,
      eos_token_id: eos,
      ...now
    } = ours;
    assertEquals([bos, eos], [null, null]); // no tokenizer was given
    const { max_position_embeddings: most, ...same } = now;
    if (most !== undefined) {
      assertEquals(most, config.sizes.ropeScaling!.factor * config.sizes.ropeScaling!.originalContext);
    }
    assertEquals(same, Object.fromEntries(Object.keys(same).map((key) => [key, theirs[key]])));
  });
}

Deno.test("an export may be in bf16 or f16, takes a tokenizer's files along, and does not write over a folder", async () => {
  await using folder = await temporaryFolder();
  const checkpoint = openHuggingFace(`${goldens}odd`), config = readHuggingFaceConfig(`${goldens}odd`);
  const path = `${folder.path}/out`;
  await exportHuggingFace(checkpoint, config, path, { dtype: "bf16", tokenizer: sample });
  assertEquals(await differences(checkpoint, openHuggingFace(path)), []); // the original is in bf16
  assertEquals(namesIn(path), [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const { bos_token_id: bos, eos_token_id: eos } = jsonOf(`${path}/config.json`);
  assertEquals({ bos_token_id: bos, eos_token_id: eos }, jsonOf(`${path}/generation_config.json`));
  const error = await assertRejects(() => exportHuggingFace(checkpoint, config, path), CheckpointError);
  assertStringIncludes(error.message, `${path} is there already`);
  const larger = { ...config, sizes: { ...config.sizes, numLayers: 3 } };
  await assertRejects(() => exportHuggingFace(checkpoint, larger, `${path}2`), CheckpointError, "no tensor");
  const [f16, name] = [`${folder.path}/f16`, "layers.1.attention.wq.weight"];
  await exportHuggingFace(checkpoint, config, f16, { dtype: "f16" });
  const { torch_dtype: old, dtype } = jsonOf(`${f16}/config.json`);
  assertEquals([old, dtype, openHuggingFace(f16).manifest.tensors[name].dtype], ["float16", "float16", "f16"]);
  const [theirs, ours] = [await readTensor(checkpoint, name), await readTensor(openHuggingFace(f16), name)];
  assertEquals([...ours], [...theirs].map((x) => Math.f16round(x)));
  assertEquals(namesIn(folder.path), ["f16", "out"]);
});

Deno.test("a weight that f16 has not is refused with its tensor, and leaves no folder", async () => {
  await using folder = await temporaryFolder();
  const golden = `${goldens}tied`, config = readHuggingFaceConfig(golden), out = `${folder.path}/out`;
  const tensors = await tensorsOf(openHuggingFace(golden));
  tensors.get("norm.weight")!.numbers[3] = 66000;
  const checkpoint = writeWeights(`${folder.path}/own`, tensors);
  const error = await assertRejects(
    () => exportHuggingFace(checkpoint, config, out, { dtype: "f16" }),
    CheckpointError,
  );
  assertStringIncludes(error.message, 'Cannot write "model.norm.weight": 66000 is too large for f16');
  assertEquals(namesIn(folder.path), ["own"]);
  await exportHuggingFace(checkpoint, config, out, { dtype: "bf16" });
  assertEquals(namesIn(folder.path), ["out", "own"]);
});

Deno.test("an export never holds a tensor whole: no write is longer than a block", async () => {
  await using folder = await temporaryFolder();
  const { name, sizes } = readHuggingFaceConfig(`${goldens}tied`), { dim } = sizes;
  const config = { name, sizes: { ...sizes, numLayers: 0, vocabSize: 150_000 } };
  const table = Float32Array.from({ length: config.sizes.vocabSize * dim }, (_, i) => Math.sin(i));
  const checkpoint = writeWeights(
    `${folder.path}/own`,
    new Map([
      ["tok_embeddings.weight", { shape: [config.sizes.vocabSize, dim], numbers: table }],
      ["norm.weight", { shape: [dim], numbers: new Float32Array(dim) }],
    ]),
  );
  let longest = 0;
  const { writeSync } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.writeSync = function (bytes) {
    longest = Math.max(longest, bytes.length);
    return writeSync.call(this, bytes);
  };
  try {
    await exportHuggingFace(checkpoint, config, `${folder.path}/out`);
  } finally {
    Deno.FsFile.prototype.writeSync = writeSync;
  }
  assert(longest <= 8 * 2 ** 20 && longest > 2 ** 20, `the longest write has ${longest} bytes`);
  const written = tensorBytes(`${folder.path}/out`)["model.embed_tokens.weight"], bytes = new Uint8Array(table.buffer);
  assert(written.length === bytes.length && written.every((byte, i) => byte === bytes[i]));
});
