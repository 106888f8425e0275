import { assert, assertEquals } from "@std/assert";
import type { MeshOptions } from "../../../parallel/mesh.ts";
import { temporaryFolder } from "../../data/fixture.ts";
import { Random } from "../../graph/random_graphs.ts";
import { results, testRanks } from "../../native/mpirun.ts";
import { type Leg, runLeg } from "./mesh_rank.ts";

const script = new URL("mesh_rank.ts", import.meta.url);

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
];

testRanks("a run that moves from mesh to mesh at every checkpoint has the losses of one that stays", async () => {
  const random = new Random(5), legSteps = 2, legs = 21, steps = legs * legSteps;
  await using folder = await temporaryFolder();
  for (const name of ["a", "b", "c", "d"]) {
    const words = Array.from({ length: 400 }, () => random.pick(["the", "quick", "brown", "fox", name, "jumps"]));
    await Deno.writeTextFile(`${folder.path}/${name}.txt`, words.join(" "));
  }
  const whole = await runLeg({ mesh: {}, until: steps }, folder.path, steps);
  await Deno.remove(`${folder.path}/checkpoint`, { recursive: true });
  let last: MeshOptions | undefined;
  for (let i = 0; i < legs; i++) {
    const mesh = random.pick(meshes.filter((m) => m !== last)), until = (i + 1) * legSteps;
    const leg: Leg = {
      mesh,
      until,
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
});
