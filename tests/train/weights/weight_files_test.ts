import { assertEquals, assertThrows } from "@std/assert";
import { llamaConfig } from "../../../model/llama.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { checkpointOf, SizesFile } from "../../../train/weights/weight_files.ts";
import { temporaryFolder } from "../../data/fixture.ts";

Deno.test("sizes are numbers above 0, counts are whole, and a file that is no object in JSON is refused with its path", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/sizes.json`;
  const open = (text: string) => {
    Deno.writeTextFileSync(path, text);
    return new SizesFile(path);
  };
  const file = open('{"a": 2, "b": 0.5, "c": -1, "d": null, "e": "7"}');
  assertEquals([file.count("a"), file.number("b"), file.number("d", 3), file.count("f", 4)], [2, 0.5, 3, 4]);
  assertThrows(() => file.count("b"), CheckpointError, `Cannot use ${path}: b is 0.5`);
  for (const key of ["c", "d", "e", "f"]) assertThrows(() => file.number(key), CheckpointError, `${key} is `);
  for (const text of ["{", "[1]", "null", "7"]) assertThrows(() => open(text), CheckpointError, `Cannot read ${path}`);
});

Deno.test("a tensor of a type that is no float, or that lies across its elements, is refused by name", async () => {
  await using folder = await temporaryFolder();
  const config = llamaConfig("debug", { dim: 4, numHeads: 2, numLayers: 0, vocabSize: 2, tiedEmbeddings: true });
  const open = (dtype: string, size: number, pad: number) => {
    const entries = { a: { dtype, shape: [4], data_offsets: [0, 4 * size] } };
    const json = JSON.stringify(entries), header = json.padEnd(Math.ceil(json.length / 8) * 8 + pad);
    const bytes = new Uint8Array(8 + header.length + 4 * size);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
    bytes.set(new TextEncoder().encode(header), 8);
    Deno.writeFileSync(`${folder.path}/one.safetensors`, bytes);
    return checkpointOf({
      ...{ folder: folder.path, sizes: config, derived: /^$/ },
      files: new Map([["a", "one.safetensors"]]),
      names: new Map([["norm.weight", "a"]]),
    });
  };
  for (
    const [type, size, dtype] of [["F32", 4, "f32"], ["F64", 8, "f64"], ["F16", 2, "f16"], ["BF16", 2, "bf16"]] as const
  ) {
    assertEquals(open(type, size, 0).manifest.tensors["norm.weight"].dtype, dtype);
  }
  for (const [type, size] of [["I32", 4], ["I64", 8], ["F8_E4M3", 1]] as const) {
    assertThrows(() => open(type, size, 0), CheckpointError, `its type is ${type}`);
  }
  assertThrows(() => open("F32", 4, 2), CheckpointError, "a multiple of 4");
});
