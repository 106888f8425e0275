import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { State } from "../../../graph/ir.ts";
import { replicated, shard } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { type Destination, readStates } from "../../../train/checkpoint/read.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { library } from "../../../ffi/library.ts";
import { Device } from "../../../ffi/device.ts";
import { Program } from "../../../ffi/program.ts";
import { type Loadable, nativeReader } from "../../../train/checkpoint/chunk_reader.ts";
import { sha256 } from "../../../train/checkpoint/files.ts";
import { encoded, type TestProgram } from "../../ffi/encoded.ts";
import { Random } from "../../graph/random_graphs.ts";
import { load, moment, saveAll, saved, Spread, states, weight, whole } from "./fixture.ts";

library(); // which stays open

/** A program that does nothing, for the sake of its memory. */
const empty: TestProgram = { tensors: [], sections: { nothing: [] } };

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

Deno.test("native memory is filled straight from files whatever pieces they have, and by way of this process where types differ", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/step-1`;
  const long: State = { ...weight, shape: [6, 100_000] }, random = new Random(7), mesh = new Mesh({ tp: 2 }, 2);
  const bytes = new Map([[long.name, Uint8Array.from({ length: 2_400_000 }, () => random.int(0, 255))]]);
  bytes.set(moment.name, Uint8Array.from({ length: 48 }, () => random.int(0, 255)));
  const columns = ({ kind }: State) => kind === "moment" ? replicated : new Map([["tp", shard(1)]]);
  try {
    await saveAll(path, new Spread([long, moment], () => new Map([["tp", shard(0)]]), mesh).fill(bytes));
    using device = new Device({ threads: 1 });
    for (const verify of [true, false]) {
      for (const dtype of ["f32", "bf16"] as const) {
        const states = [{ ...long, dtype }, moment],
          spread = new Spread(states, columns, mesh);
        let [loads, writes] = [0, 0];
        for (const { memory, wanted } of spread.ranks) {
          using program = await Program.create(device, encoded({ ...empty, arenaBytes: memory.bytes.length }));
          const native: Destination & Loadable = {
            write: (offset, from) => (writes++, program.write(offset, from)),
            load: (parts, length, hashes) => (loads++, program.load(parts, length, hashes)),
          };
          const checkpoint = openCheckpoint(path);
          await readStates(checkpoint, wanted, { memory: native, verify, reader: () => nativeReader(native) });
          await program.read(0, memory.bytes);
        }
        if (dtype === "f32") assertEquals([spread.holds(bytes), writes], [true, 0]);
        else {
          const here = new Spread(states, columns, mesh);
          await load(path, here, verify);
          const held = (s: Spread) => s.ranks.map(({ memory }) => memory.bytes.subarray(0, 600_000));
          assertEquals(held(spread).map(sha256), held(here).map(sha256));
          assertEquals([loads > 0, writes > 0], [true, true]); // the moment's type is the same
        }
      }
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bytes that are not those that were written are an error also where they went straight to native memory", async () => {
  await using at = await saved();
  const file = `${at.path}/optimizer.safetensors`, content = await Deno.readFile(file);
  const { ranks: [{ memory, wanted }] } = new Spread(states), checkpoint = openCheckpoint(at.path);
  using device = new Device({ threads: 1 });
  using program = await Program.create(device, encoded({ ...empty, arenaBytes: memory.bytes.length }));
  const read = (verify: boolean) =>
    readStates(checkpoint, wanted, { memory: program, verify, reader: () => nativeReader(program) });
  await read(true);
  await Deno.writeFile(file, content.with(content.length - 1, content.at(-1)! ^ 1));
  const error = await assertRejects(() => read(true), CheckpointError, "its bytes are not those that were written");
  assertStringIncludes(error.message, 'optimizer.safetensors is damaged behind byte 0, in "moment1/w.weight"');
  await read(false); // as it was asked not to look
  await Deno.writeFile(file, content.subarray(0, content.length - 1));
  for (const verify of [true, false]) {
    await assertRejects(() => read(verify), CheckpointError, "the file ends before");
  }
});

Deno.test("a part is read without the rest of its file, and checked by the chunks that it lies in", async () => {
  const long: State = { ...weight, shape: [3, 1 << 20] }, folder = await Deno.makeTempDir(), path = `${folder}/step-1`;
  try {
    const bytes = new Map([[long.name, new Uint8Array(12 << 20).map((_, i) => i * 13)]]);
    await saveAll(path, new Spread([long]).fill(bytes));
    const file = `${path}/model.safetensors`, content = await Deno.readFile(file);
    content[content.length - 1] ^= 1; // in the second chunk of 8 MiB
    await Deno.writeFile(file, content);
    const mesh = new Mesh({ dp_shard: 3 }, 3), thirds = () => new Map([["dp_shard", shard(0)]]);
    const parts = new Spread([long], thirds, mesh), checkpoint = openCheckpoint(path);
    const read = ({ wanted, memory }: typeof parts.ranks[0], from = checkpoint) =>
      readStates(from, wanted, { memory, verify: true });
    await read(parts.ranks[0]);
    assertEquals(parts.ranks[0].memory.bytes.subarray(0, 4 << 20), bytes.get(long.name)!.subarray(0, 4 << 20));
    const error = await assertRejects(() => read(parts.ranks[2]), CheckpointError);
    assertStringIncludes(error.message, "model.safetensors is damaged behind byte 8388608");
    const { "model.safetensors": saved, ...others } = checkpoint.manifest.files;
    const files = { ...others, "model.safetensors": { ...saved, sha256: saved.sha256.slice(0, 1) } }; // no hash for the second
    const short = { ...checkpoint, manifest: { ...checkpoint.manifest, files } };
    await read(parts.ranks[0], short);
    await assertRejects(() => read(parts.ranks[2], short), CheckpointError, "is damaged behind byte 8388608");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
