import { assert, assertEquals } from "@std/assert";
import { openCheckpoint } from "../../../train/checkpoint/open.ts";
import { STATE_FILE } from "../../../train/checkpoint/save.ts";
import type { MeshOptions } from "../../../parallel/mesh.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Random } from "../../graph/random_graphs.ts";
import { results, testRanks } from "../../native/mpirun.ts";
import { type Leg, runLeg } from "./mesh_rank.ts";

const script = new URL("mesh_rank.ts", import.meta.url);

const sentence = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ";

const meshes: readonly MeshOptions[] = [
  {},
  { dp_shard: 2 },
  { dp_replicate: 2 },
  { tp: 2 },
  { cp: 2 },
  { dp_shard: 4 },
  { dp_shard: 2, tp: 2 },
  { cp: 2, tp: 2 },
  { dp_replicate: 2, dp_shard: 2 },
  { pp: 2 },
  { pp: 2, dp_shard: 2 },
  { pp: 2, tp: 2 },
];

/** A run of as many legs, each on another of some meshes, beside one that stays on one process. */
async function assertMoves(
  meshes: readonly MeshOptions[],
  { seed, legs, ...common }: { readonly seed: number; readonly legs: number } & Partial<Leg>,
): Promise<void> {
  const random = new Random(seed), legSteps = 2, steps = legs * legSteps;
  await using folder = await temporaryFolder();
  for (const name of ["a", "b", "c", "d"]) {
    const words = Array.from({ length: 400 }, () => random.pick(["the", "quick", "brown", "fox", name, "jumps"]));
    await Deno.writeTextFile(`${folder.path}/${name}.txt`, words.join(" "));
  }
  const whole = await runLeg({ mesh: {}, until: steps, ...common }, folder.path, steps);
  await Deno.remove(`${folder.path}/checkpoint`, { recursive: true });
  let last: MeshOptions | undefined;
  for (let i = 0; i < legs; i++) {
    const mesh = random.pick(meshes.filter((m) => m !== last)), until = (i + 1) * legSteps;
    const leg: Leg = {
      ...{ ...common, mesh, until, async: random.oneIn(2) },
      accumulation: random.oneIn(3) && !mesh.dp_replicate && mesh.dp_shard !== 4 ? 2 : 1,
    };
    const size = Object.values(mesh).reduce((n, d) => n * d, 1), args = [JSON.stringify(leg), folder.path, `${steps}`];
    const all = size === 1
      ? [await runLeg(leg, folder.path, steps)]
      : (await results({ size, script, args })).map((r) => r.losses as number[]);
    const expected = whole.slice(until - legSteps, until), name = `${JSON.stringify(last)} to ${JSON.stringify(leg)}`;
    for (const losses of all) {
      assertEquals(losses.length, legSteps, name);
      const off = Math.max(...losses.map((loss, k) => Math.abs(loss - expected[k]) / expected[k]));
      assert(off <= 1e-10, `${name}: losses are off by ${off}`);
    }
    last = mesh;
  }
}

testRanks("a run that moves from mesh to mesh at every checkpoint has the losses of one that stays", async () => {
  await assertMoves(meshes, { seed: 5, legs: 21 });
});

testRanks("a table that two stages share is one state in checkpoints, wherever it is loaded", async () => {
  await assertMoves([{}, { pp: 2 }, { pp: 2, dp_shard: 2 }, { dp_shard: 2 }], { seed: 7, legs: 8, tied: true });
});

testRanks("experts move between meshes that share them out in other ways, and losses stay", async () => {
  await using folder = await temporaryFolder();
  for (const name of ["a", "b", "c", "d"]) {
    await Deno.writeTextFile(`${folder.path}/${name}.txt`, `${name} ${sentence}`.repeat(40));
  }
  const legs: readonly MeshOptions[] = [{ dp_shard: 4, ep: 2 }, {}, { dp_shard: 2, ep: 2 }, { dp_shard: 4, ep: 4 }];
  const steps = 2 * legs.length, whole = await runLeg({ mesh: {}, until: steps, experts: true }, folder.path, steps);
  await Deno.remove(`${folder.path}/checkpoint`, { recursive: true });
  for (const [i, mesh] of legs.entries()) {
    const leg: Leg = { mesh, until: 2 * (i + 1), experts: true }, size = mesh.dp_shard ?? 1;
    const args = [JSON.stringify(leg), folder.path, `${steps}`];
    const all = size === 1
      ? [await runLeg(leg, folder.path, steps)]
      : (await results({ size, script, args })).map((r) => r.losses as number[]);
    for (const losses of all) {
      const off = losses.map((loss, k) => Math.abs(loss - whole[2 * i + k]));
      assert(losses.length === 2 && Math.max(...off) <= 1e-10, `${JSON.stringify(mesh)}: losses are off by ${off}`);
    }
  }
});

/** A mesh, and what else is saved and loaded on it. */
const resumed: Readonly<Record<string, Pick<Leg, "mesh" | "options" | "accumulation" | "tied">>> = {
  "dp 2, with accumulation": { mesh: { dp_shard: 2 }, accumulation: 2, options: { dtype: "f32" } },
  "tp 2, with bf16 in all that is stored": {
    mesh: { tp: 2 },
    options: { dtype: "f32", precision: { param: "bf16", reduce: "bf16", stored: "bf16" } },
  },
  "cp 2, with documents": { mesh: { cp: 2 }, options: { documents: true } },
  "pp 2": { mesh: { pp: 2 }, accumulation: 2 },
  "pp 2 x dp 2, with a table that two stages share": {
    ...{ mesh: { pp: 2, dp_shard: 2 }, accumulation: 2, tied: true, options: { dtype: "f32" } },
  },
  "dp 2 x tp 2, with activation checkpointing": { mesh: { dp_shard: 2, tp: 2 }, options: { remat: { mode: "full" } } },
};
for (const [name, common] of Object.entries(resumed)) {
  testRanks(`40 steps are 20, and 20 more from a checkpoint, bit for bit: ${name}`, async () => {
    await using folder = await temporaryFolder();
    for (const name of ["a", "b", "c", "d"]) {
      await Deno.writeTextFile(`${folder.path}/${name}.txt`, sentence.repeat(40));
    }
    const size = Object.values(common.mesh).reduce((n, d) => n * d, 1);
    const run = async (leg: Omit<Leg, "mesh">) => {
      const args = [JSON.stringify({ ...common, interval: 15, ...leg }), folder.path, "50"];
      const all = (await results({ size, script, args })).map((r) => r.losses);
      const { manifest } = openCheckpoint(`${folder.path}/${leg.checkpoints}/step-${leg.until}`);
      const hashes = Object.entries(manifest.files).filter(([file]) => file !== STATE_FILE).map(([, f]) => f.sha256);
      return { losses: all[0] as number[], hashes };
    };
    const whole = await run({ until: 40, checkpoints: "whole" });
    for (const [checkpoints, async] of [["sync", false], ["async", true]] as const) {
      const first = await run({ until: 20, checkpoints, async }), second = await run({ until: 40, checkpoints, async });
      assertEquals([...first.losses, ...second.losses], whole.losses);
      assertEquals(second.hashes, whole.hashes); // parameters and moments
    }
  });
}
