import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { readGguf } from "../../../data/gguf.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { differences, readTensor } from "../../../train/checkpoint/inspect.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { decodeBlocks, encodeQ8 } from "../../../train/weights/gguf_blocks.ts";
import { exportGguf, GGUF_TYPES, type GgufType } from "../../../train/weights/gguf_export.ts";
import { openGguf, readGgufConfig } from "../../../train/weights/gguf.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/weights/hugging_face.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { tensorsOf, writeWeights } from "../checkpoint/fixture.ts";
import { smallCheckpoint, smallConfig, smallFamily, weightsOf } from "./fixture.ts";

const goldens = new URL("../../goldens/", import.meta.url).pathname;
const namesIn = (folder: string): string[] => [...Deno.readDirSync(folder)].map((e) => e.name).sort();
const options = (dtype: GgufType) => ({ dtype, contextLength: 512, tokenizer: new Map(), name: "a" });

for (const name of ["plain", "grouped", "tied", "scaled", "head_dim", "odd"]) {
  Deno.test(`a file has every number and size of the model that was written: ${name}`, async () => {
    await using folder = await temporaryFolder();
    const original = openHuggingFace(`${goldens}hf/${name}`), config = readHuggingFaceConfig(`${goldens}hf/${name}`);
    const path = `${folder.path}/a.gguf`, told: [number, number][] = [];
    await exportGguf(original, config, path, { ...options("f32"), progress: (...bytes) => told.push(bytes) });
    assertEquals(readGgufConfig(path), config);
    const lines = (await differences(original, openGguf(path))).map((line) => line.replace(/^.*: /, ""));
    assertEquals(lines.filter((line) => !line.endsWith("the same values")), []);
    const { size } = Deno.statSync(path);
    assertEquals([told.at(-1), namesIn(folder.path)], [[size, size], ["a.gguf"]]);
    assertEquals(readGguf(path).metadata.get("llama.context_length"), 512);
  });
}

Deno.test("what is written of Llama 3.1's scaling is, to the last bit but one, what llama.cpp's converter writes", async () => {
  await using folder = await temporaryFolder();
  const golden = `${goldens}gguf/scaled.gguf`, path = `${folder.path}/a.gguf`;
  await exportGguf(openGguf(golden), readGgufConfig(golden), path, options("f32"));
  const factors = (file: string) => {
    const { begin, ...form } = readGguf(file).tensors.get("rope_freqs.weight")!;
    return { form, numbers: new Float32Array(Deno.readFileSync(file).slice(begin, begin + 8).buffer) };
  };
  const [ours, theirs] = [factors(path), factors(golden)];
  assertEquals(ours.form, theirs.form);
  ours.numbers.forEach((x, i) => assert(Math.abs(x / theirs.numbers[i] - 1) < 2 ** -22));
  assert(theirs.numbers.some((x) => x > 1 && x < 8), "a factor between the ends");
});

Deno.test("matrices are in the type that is asked for, and norms in f32", async () => {
  await using folder = await temporaryFolder();
  const from = openCheckpoint(await smallCheckpoint(`${folder.path}/step-3`));
  const [matrix, norm] = ["layers.1.attention.wk.weight", "layers.1.ffn_norm.weight"];
  const numbers = Float32Array.from(await readTensor(from, matrix));
  const expected: Record<GgufType, ArrayLike<number>> = {
    f32: numbers,
    f16: numbers.map(Math.f16round),
    bf16: numbers.map((x) => {
      const bits = new Uint32Array(Float32Array.of(x).buffer);
      bits[0] = (bits[0] + 0x7fff + (bits[0] >>> 16 & 1)) & 0xffff0000;
      return new Float32Array(bits.buffer)[0];
    }),
    q8_0: decodeBlocks(encodeQ8(numbers), "q8_0"),
  };
  for (const dtype of Object.keys(GGUF_TYPES) as GgufType[]) {
    const path = `${folder.path}/${dtype}.gguf`;
    await exportGguf(from, smallFamily, path, options(dtype));
    const file = openGguf(path), { tensors } = file.manifest;
    assertEquals([tensors[matrix].dtype, tensors[norm].dtype], [dtype, "f32"]);
    assertEquals([...await readTensor(file, matrix)], [...Array.from(expected[dtype])], dtype);
    const { begin } = readGguf(path).tensors.get("blk.0.attn_q.weight")!;
    assertEquals(begin % 32, 0);
  }
});

Deno.test("rows that are no whole blocks, numbers that a type has not, and a name that is taken are refused, and leave no file", async () => {
  await using folder = await temporaryFolder();
  const golden = `${goldens}hf/tied`, config = readHuggingFaceConfig(golden), path = `${folder.path}/a.gguf`;
  const refused = async (dtype: GgufType, what: string, from = openHuggingFace(golden), of = config) => {
    const error = await assertRejects(() => exportGguf(from, of, path, options(dtype)), CheckpointError);
    assertStringIncludes(error.message, what);
  };
  await refused("q8_0", '"token_embd.weight" has rows of 16 numbers');
  await refused("f32", 'has no tensor "layers.2.attention.wq.weight"', undefined, {
    ...config,
    sizes: { ...config.sizes, numLayers: 3 },
  });
  const tensors = await tensorsOf(openHuggingFace(golden));
  tensors.get("layers.1.attention.wo.weight")!.numbers[7] = 66000;
  const large = writeWeights(`${folder.path}/own`, tensors);
  await refused("f16", 'Cannot write "blk.1.attn_output.weight": 66000 is too large for f16', large);
  assertEquals(namesIn(folder.path), ["own"]);
  await Deno.writeTextFile(path, "mine");
  await refused("f32", `${path}: it is there already`);
  assertEquals([await Deno.readTextFile(path), namesIn(folder.path)], ["mine", ["a.gguf", "own"]]);
});

Deno.test("a file that lacks the end of its last tensor is damaged", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/a.gguf`, golden = `${goldens}hf/plain`;
  await exportGguf(openHuggingFace(golden), readHuggingFaceConfig(golden), path, options("f32"));
  await Deno.truncate(path, Deno.statSync(path).size - 4);
  assertThrows(() => openGguf(path), CheckpointError, '"output.weight" is f32[32,16] at bytes');
});

Deno.test("a tensor is written in parts: none is longer than 16 MiB of f32", async () => {
  await using folder = await temporaryFolder();
  const config = { ...smallConfig, numLayers: 1, vocabSize: 80_000 }, tensors = weightsOf(config);
  let longest = 0;
  const { writeSync } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.writeSync = function (bytes) {
    longest = Math.max(longest, bytes.length);
    return writeSync.call(this, bytes);
  };
  const checkpoint = writeWeights(`${folder.path}/own`, tensors), path = `${folder.path}/a.gguf`;
  try {
    await exportGguf(checkpoint, { name: "llama", sizes: config }, path, options("f32"));
  } finally {
    Deno.FsFile.prototype.writeSync = writeSync;
  }
  assert(longest <= 2 ** 24 && longest > 2 ** 20, `the longest write has ${longest} bytes`);
  assertEquals(await readTensor(openGguf(path), "output.weight"), tensors.get("output.weight")!.numbers);
});
