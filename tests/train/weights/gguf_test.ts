import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { differences, readTensor } from "../../../train/checkpoint/inspect.ts";
import { load } from "../../../train/checkpoint/load.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { readStates, type Wanted } from "../../../train/checkpoint/read.ts";
import { exportGguf } from "../../../train/weights/gguf_export.ts";
import { openGguf, readGgufConfig } from "../../../train/weights/gguf.ts";
import { openHuggingFace, readHuggingFaceConfig } from "../../../train/weights/hugging_face.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { smallCheckpoint, smallFamily } from "./fixture.ts";

const goldens = new URL("../../goldens/", import.meta.url).pathname;
const golden = `${goldens}gguf/scaled.gguf`;

Deno.test("a Llama that llama.cpp's converter has written is the one that transformers had saved, scaled rotations included", async () => {
  assertEquals(readGgufConfig(golden), readHuggingFaceConfig(`${goldens}hf/scaled`));
  assertEquals(await differences(openHuggingFace(`${goldens}hf/scaled`), openGguf(golden)), []);
  assertEquals(load(golden).family, readGgufConfig(golden));
  assertEquals([load(golden).step, load(golden).content], [undefined, "model"]);
  const [one, other] = [openCheckpoint(golden), openGguf(golden)];
  assertEquals(one.manifest.tensors, other.manifest.tensors);
  assertEquals(one.piecesIn("scaled.gguf"), other.piecesIn("scaled.gguf"));
});

Deno.test("other architectures, other tensors and missing ones are refused by name", async () => {
  await using folder = await temporaryFolder();
  const { path } = folder;
  const refused = async (from: string, to: string, what: string) => {
    const file = await replaced(`${path}/a.gguf`, from, to);
    assertStringIncludes(assertThrows(() => openGguf(file), CheckpointError).message, what);
  };
  await refused("\x05\0\0\0\0\0\0\0llama", "\x05\0\0\0\0\0\0\0gemma", 'general.architecture is "gemma"');
  await refused(
    "blk.1.attn_q.weight",
    "blk.1.attn_q.biased",
    '"blk.1.attn_q.biased" is no parameter of a model of these sizes, with 2 layers',
  );
  await refused("llama.block_count", "llama.blockcount_", "llama.block_count is missing");
});

/** The same with bytes. */
async function replaced(path: string, from: string, to: string): Promise<string> {
  const bytes = await Deno.readFile(golden), old = Uint8Array.from(from, (c) => c.charCodeAt(0));
  const at = bytes.findIndex((_, i) => old.every((byte, j) => bytes[i + j] === byte));
  assert(at >= 0 && from.length === to.length, from);
  bytes.set(Uint8Array.from(to, (c) => c.charCodeAt(0)), at);
  await Deno.writeFile(path, bytes);
  return path;
}

Deno.test("a file that ends before its tensors do is damaged", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/cut.gguf`, bytes = await Deno.readFile(golden);
  await Deno.writeFile(path, bytes.subarray(0, bytes.length - 100));
  assertThrows(() => openGguf(path), CheckpointError, "a GGUF file with all of its bytes");
});

Deno.test("a box whose columns begin within a block of a quantized tensor has the numbers that the whole tensor has there", async () => {
  await using folder = await temporaryFolder();
  const from = openCheckpoint(await smallCheckpoint(`${folder.path}/step-3`)), path = `${folder.path}/q.gguf`;
  const options = { dtype: "q8_0", contextLength: 1, tokenizer: new Map(), name: "q" } as const;
  await exportGguf(from, smallFamily, path, options);
  const checkpoint = openGguf(path), name = "layers.0.feed_forward.w2.weight", [rows, width] = [64, 96];
  assertEquals(checkpoint.manifest.tensors[name], { kind: "parameter", dtype: "q8_0", shape: [rows, width] });
  const all = await readTensor(checkpoint, name);
  for (const [row, column, height, breadth] of [[0, 0, 64, 48], [3, 48, 60, 48], [63, 31, 1, 2], [10, 5, 4, 91]]) {
    const found = new Float32Array(height * breadth), bytes = new Uint8Array(found.buffer);
    const wanted: Wanted = {
      state: { name, kind: "parameter", dtype: "f32", shape: [rows, width] },
      dtype: "f32",
      offset: 0,
      box: { starts: [row, column], sizes: [height, breadth] },
    };
    const memory = { write: (at: number, from: Uint8Array) => Promise.resolve(bytes.set(from, at)) };
    await readStates(checkpoint, [wanted], { memory, verify: true });
    const expected = found.map((_, i) => all[(row + Math.floor(i / breadth)) * width + column + i % breadth]);
    assertEquals(found, expected);
  }
});
