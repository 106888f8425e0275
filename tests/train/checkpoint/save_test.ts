import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Mesh } from "../../../parallel/mesh.ts";
import { CheckpointError } from "../../../train/checkpoint/error.ts";
import { findCheckpoints } from "../../../train/checkpoint/open.ts";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { saveCheckpoint } from "../../../train/checkpoint/save.ts";
import { Staging } from "../../../train/checkpoint/staging.ts";
import { numbersOf, setNumbers } from "../../../train/typed_array.ts";
import { Random } from "../../graph/random_graphs.ts";
import { randomMesh } from "../../parallel/random_layouts.ts";
import {
  bytesOf,
  layouts,
  load,
  meetings,
  randomStates,
  saveAll,
  saved,
  Spread,
  states,
  weight,
  whole,
} from "./fixture.ts";

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

Deno.test("a save that fails on one rank is an error on all, and what was saved before stays", async () => {
  await using at = await saved();
  const spread = new Spread(states, undefined, new Mesh({ dp_replicate: 2, dp_shard: 1 }, 2)).fill(whole);
  spread.ranks[1].memory.read = () => Promise.reject(new Error("no memory here"));
  const groups = meetings(2), options = { step: 1, content: "full", state: {} } as const;
  const results = await Promise.allSettled(spread.ranks.map(async (own, rank) => {
    const staging = new Staging(), group = groups[rank];
    return await (await saveCheckpoint(at.path, own, { ...options, group, staging })).done;
  }));
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

Deno.test("what is saved in another element type is rounded once, and half as large", async () => {
  await using at = await saved();
  const values = Float32Array.from({ length: 12 }, (_, i) => i + 1 / 3);
  const [rank] = new Spread([weight]).fill(new Map([[weight.name, new Uint8Array(values.buffer)]])).ranks;
  const options = { step: 1, content: "model", state: {}, dtype: "bf16", staging: new Staging() } as const;
  await (await saveCheckpoint(at.path, rank, options)).done;
  const { manifest, piecesIn } = openCheckpoint(at.path), { dtype } = manifest.tensors[weight.name];
  const [{ file, begin }] = piecesIn("model.safetensors");
  assertEquals([dtype, (await Deno.stat(`${at.path}/${file}`)).size], ["bf16", begin + 24]);
  const loaded = new Spread([weight]), nearest = new Uint16Array(12);
  setNumbers(nearest, "bf16", values);
  await load(at.path, loaded);
  assertEquals([...new Float32Array(loaded.ranks[0].memory.bytes.buffer, 0, 12)], [...numbersOf(nearest, "bf16")]);
});
