import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { DType, State } from "../../../graph/ir.ts";
import { dtypeBytes, numel } from "../../../graph/ir.ts";
import type { Layout } from "../../../graph/layout.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { findCheckpoints, MANIFEST, openCheckpoint } from "../../../train/checkpoint/manifest.ts";
import { readStates } from "../../../train/checkpoint/read.ts";
import { saveCheckpoint, STATE_FILE } from "../../../train/checkpoint/save.ts";
import { Random } from "../../graph/random_graphs.ts";
import { randomLayout, randomMesh } from "../../parallel/random_layouts.ts";
import { meetings, Spread } from "./fixture.ts";

function randomStates(random: Random): State[] {
  return Array.from({ length: random.int(1, 6) }, (_, i) => {
    const shape = Array.from({ length: random.int(0, 3) }, () => random.int(1, 9));
    const dtype = random.pick<DType>(["f32", "f64", "bf16"]), kind = random.oneIn(2) ? "parameter" : "moment";
    return { name: `${kind === "moment" ? "moment1/" : ""}w${i}.weight`, kind, dtype, shape };
  });
}

const bytesOf = (states: readonly State[], random: Random): Map<string, Uint8Array> =>
  new Map(states.map((s) => {
    const bytes = Array.from({ length: numel(s.shape) * dtypeBytes[s.dtype] }, () => random.int(0, 255));
    return [s.name, Uint8Array.from(bytes)];
  }));

function layouts(states: readonly State[], mesh: Mesh, random: Random): (state: State) => Layout {
  const all = new Map(states.map((s) => [s.name, randomLayout(s.shape, mesh, random, false)]));
  return (state) => all.get(state.name)!;
}

async function saveAll(path: string, spread: Spread, step = 1, content: "full" | "model" = "full"): Promise<void> {
  const groups = meetings(spread.ranks.length), state = { step };
  await Promise.all(
    spread.ranks.map((own, rank) => saveCheckpoint(path, own, { step, content, state, group: groups[rank] })),
  );
}

const load = async (path: string, to: Spread, verify = true) => {
  const checkpoint = openCheckpoint(path);
  for (const { wanted, memory } of to.ranks) await readStates(checkpoint, wanted, { memory, verify });
};

Deno.test("what any mesh saves any mesh loads, bit for bit, in any layouts, padding included", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed), states = randomStates(random), whole = bytesOf(states, random);
      const from = randomMesh(random), to = randomMesh(random), path = `${folder}/step-${seed}`;
      await saveAll(path, new Spread(states, layouts(states, from, random), from).fill(whole));
      const loaded = new Spread(states, layouts(states, to, random), to);
      await load(path, loaded);
      assert(loaded.holds(whole), `seed ${seed}`);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const weight: State = { name: "w.weight", kind: "parameter", dtype: "f32", shape: [4, 3] };
const moment: State = { ...weight, name: "moment1/w.weight", kind: "moment" };
const states = [weight, moment], whole = bytesOf(states, new Random(7));

/** A folder with a checkpoint of one process, `step-1`. */
async function saved(): Promise<{ folder: string; path: string } & AsyncDisposable> {
  const folder = await Deno.makeTempDir(), path = `${folder}/step-1`;
  await saveAll(path, new Spread(states).fill(whole));
  return { folder, path, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

Deno.test("every element of a state is written once, and the writing is shared out evenly", async () => {
  const folder = await Deno.makeTempDir();
  const mesh = new Mesh({ dp_replicate: 4, dp_shard: 1 }, 4), path = `${folder}/step-1`;
  const many = Array.from({ length: 8 }, (_, i): State => ({ ...weight, name: `w${i}`, shape: [64, 64] }));
  await saveAll(path, new Spread(many, undefined, mesh).fill(bytesOf(many, new Random(1))));
  const { manifest } = openCheckpoint(path), files = Object.entries(manifest.files).filter(([f]) => f !== STATE_FILE);
  assertEquals(files.map(([name]) => name).sort(), [1, 2, 3, 4].map((n) => `model-0000${n}-of-00004.safetensors`));
  const bytes = files.map(([, f]) => f.bytes);
  assert(Math.max(...bytes) - Math.min(...bytes) < 200, `${bytes}`);
  assertEquals(Object.values(manifest.tensors).map((t) => t.pieces.length), many.map(() => 1));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a checkpoint has a manifest with the length and hashes of every file", async () => {
  await using at = await saved();
  const names = [...Deno.readDirSync(at.path)].map((e) => e.name).sort();
  assertEquals(names, [MANIFEST, "model.safetensors", "optimizer.safetensors", STATE_FILE]);
  const { manifest } = openCheckpoint(at.path);
  assertEquals(Object.keys(manifest.files).sort(), ["model.safetensors", "optimizer.safetensors", STATE_FILE]);
  assertEquals(manifest.tensors["w.weight"].shape, [4, 3]);
  const sum = await new Deno.Command("sha256sum", { args: [`${at.path}/model.safetensors`] }).output();
  assertEquals(new TextDecoder().decode(sum.stdout).split(" ")[0], manifest.files["model.safetensors"].sha256[0]);
});

Deno.test("a folder without a manifest is no checkpoint, nor one whose files are missing or too short", async () => {
  await using at = await saved();
  await saveAll(`${at.folder}/step-9`, new Spread(states).fill(whole), 9);
  await saveAll(`${at.folder}/step-8`, new Spread(states).fill(whole), 8);
  await saveAll(`${at.folder}/step-7`, new Spread(states).fill(whole), 7);
  await Deno.remove(`${at.folder}/step-9/${MANIFEST}`);
  await Deno.truncate(`${at.folder}/step-8/optimizer.safetensors`, 100);
  await Deno.remove(`${at.folder}/step-7/model.safetensors`);
  const { complete, broken } = findCheckpoints(at.folder);
  assertEquals(complete.map((c) => c.path), [at.path]);
  assertEquals(broken.map((b) => b.path.split("/").at(-1)).sort(), ["step-7", "step-8", "step-9"]);
  assertStringIncludes(broken.find((b) => b.path.endsWith("8"))!.reason.message, "optimizer.safetensors has 100 bytes");
  assertStringIncludes(broken.find((b) => b.path.endsWith("7"))!.reason.message, "model.safetensors is missing");
  assertEquals(findCheckpoints(`${at.folder}/nowhere`).complete, []);
});

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

Deno.test("a save that fails on one rank is an error on all, and what was saved before stays", async () => {
  await using at = await saved();
  const spread = new Spread(states, undefined, new Mesh({ dp_replicate: 2, dp_shard: 1 }, 2)).fill(whole);
  spread.ranks[1].memory.read = () => Promise.reject(new Error("no memory here"));
  const groups = meetings(2), options = { step: 1, content: "full", state: {} } as const;
  const results = await Promise.allSettled(
    spread.ranks.map((own, rank) => saveCheckpoint(at.path, own, { ...options, group: groups[rank] })),
  );
  for (const result of results) {
    assert(result.status === "rejected" && result.reason instanceof CheckpointError);
    assertStringIncludes(result.reason.message, "rank 1: no memory here");
  }
  const loaded = new Spread(states);
  await load(at.path, loaded);
  assert(loaded.holds(whole));
});

Deno.test("a save in place of an older one leaves that one until the new one is complete", async () => {
  await using at = await saved();
  const newer = bytesOf(states, new Random(8)), loaded = new Spread(states);
  await saveAll(at.path, new Spread(states).fill(newer));
  await load(at.path, loaded);
  assert(loaded.holds(newer));
  assertEquals([...Deno.readDirSync(at.folder)].map((e) => e.name), ["step-1"]);
  await Deno.rename(at.path, `${at.path}.old`); // what a crash between two renames leaves
  assertEquals(findCheckpoints(at.folder).complete.map((c) => c.path), [`${at.path}.old`]);
});

Deno.test("a manifest that is none is refused with what is wrong", async () => {
  await using at = await saved();
  await Deno.writeTextFile(`${at.path}/${MANIFEST}`, '{"version": 2}');
  assertThrows(() => openCheckpoint(at.path), CheckpointError, "its version is 2");
  await Deno.writeTextFile(`${at.path}/${MANIFEST}`, "{");
  assertThrows(() => openCheckpoint(at.path), CheckpointError, "is no checkpoint");
});
