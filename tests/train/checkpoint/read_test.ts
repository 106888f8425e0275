import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { State } from "../../../graph/ir.ts";
import { shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { readStates } from "../../../train/checkpoint/read.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { load, saveAll, saved, Spread, states, weight, whole } from "./fixture.ts";

Deno.test("one flipped bit is found, and told by file and tensor", async () => {
  await using at = await saved();
  const file = `${at.path}/optimizer.safetensors`, bytes = await Deno.readFile(file);
  bytes[bytes.length - 1] ^= 1;
  await Deno.writeFile(file, bytes);
  const error = await assertRejects(() => load(at.path, new Spread(states)), CheckpointError);
  assertStringIncludes(error.message, "optimizer.safetensors is damaged");
  assertStringIncludes(error.message, '"moment1/w.weight"');
  await load(at.path, new Spread(states), false); // as it was asked not to look
});

Deno.test("a state of another shape, or one that was not saved, is refused before anything is read", async () => {
  await using at = await saved();
  const other = new Spread([{ ...weight, shape: [3, 4] }]);
  const before = other.ranks[0].memory.bytes.slice();
  await assertRejects(() => load(at.path, other), CheckpointError, 'tensor "w.weight" has shape [4,3]');
  assertEquals(other.ranks[0].memory.bytes, before);
  await assertRejects(() => load(at.path, new Spread([{ ...weight, name: "v" }])), CheckpointError, 'no tensor "v"');
  await saveAll(at.path, new Spread([weight]).fill(whole), 2, "model");
  await assertRejects(() => load(at.path, new Spread(states)), CheckpointError, "no state of the optimizer");
  const named = new Spread([{ ...weight, name: "momentum.weight" }]); // a parameter all the same
  await assertRejects(() => load(at.path, named), CheckpointError, 'no tensor "momentum.weight"');
});

Deno.test("values are loaded into another element type as the nearest that it has", async () => {
  await using at = await saved();
  const spread = new Spread([weight]), values = Float32Array.from({ length: 12 }, (_, i) => i + 1 / 3);
  await saveAll(at.path, spread.fill(new Map([["w.weight", new Uint8Array(values.buffer)]])));
  const [wide, half] = (["f64", "bf16"] as const).map((dtype) => new Spread([{ ...weight, dtype }]));
  await load(at.path, wide);
  assertEquals([...new Float64Array(wide.ranks[0].memory.bytes.buffer, 0, 12)], [...values]);
  await load(at.path, half);
  const bits = new Uint16Array(half.ranks[0].memory.bytes.buffer, 0, 12);
  const nearest = [...bits].map((b) => new Float32Array(Uint32Array.of(b << 16).buffer)[0]);
  nearest.forEach((x, i) => assert(Math.abs(x - values[i]) <= values[i] / 256, `${x} for ${values[i]}`));
});

Deno.test("a part is read without the rest of its file, and checked by the blocks that it lies in", async () => {
  const long: State = { ...weight, shape: [3, 1 << 20] }, folder = await Deno.makeTempDir(), path = `${folder}/step-1`;
  try {
    const bytes = new Map([[long.name, new Uint8Array(12 << 20).map((_, i) => i * 13)]]);
    await saveAll(path, new Spread([long]).fill(bytes));
    const file = `${path}/model.safetensors`, content = await Deno.readFile(file);
    content[content.length - 1] ^= 1; // in the second block of 8 MiB
    await Deno.writeFile(file, content);
    const mesh = new Mesh({ dp_shard: 3 }, 3), thirds = () => new Map([["dp_shard", shard(0)]]);
    const parts = new Spread([long], thirds, mesh), checkpoint = openCheckpoint(path);
    const read = ({ wanted, memory }: typeof parts.ranks[0]) =>
      readStates(checkpoint, wanted, { memory, verify: true });
    await read(parts.ranks[0]);
    assertEquals(parts.ranks[0].memory.bytes.subarray(0, 4 << 20), bytes.get(long.name)!.subarray(0, 4 << 20));
    const error = await assertRejects(() => read(parts.ranks[2]), CheckpointError);
    assertStringIncludes(error.message, "model.safetensors is damaged behind byte 8388608");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
