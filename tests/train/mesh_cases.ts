/** Cases of the matrix of meshes: runs them as real processes, and says where one is not as one process.
 * @module */
import { assert, assertEquals } from "@std/assert";
import { AXES, type MeshOptions } from "../../parallel/mesh.ts";
import { results } from "../native/mpirun.ts";
import { KIND } from "../native/native.ts";
import type { MeshCase, MeshResult } from "./mesh_rank.ts";

const script = new URL("mesh_rank.ts", import.meta.url);

const nameOf = (run: MeshCase): string => JSON.stringify(run).replaceAll(/["{}]/g, "");
const sizeOf = (mesh: MeshOptions): number => AXES.reduce((n, axis) => n * (mesh[axis] ?? 1), 1);
const withDefaults = (run: MeshCase): MeshCase => ({ ...run, mesh: { dp_shard: 1, ...run.mesh } });

/** Runs cases, those of as many ranks in one job. */
export async function run(list: readonly MeshCase[]): Promise<Map<MeshCase, MeshResult>> {
  const found = new Map<MeshCase, MeshResult>();
  for (const [size, group] of Map.groupBy(list, ({ mesh }) => sizeOf(mesh))) {
    const file = await Deno.makeTempFile();
    await results({ size, script, args: [JSON.stringify(group.map(withDefaults)), file] });
    const compared: MeshResult[] = JSON.parse(await Deno.readTextFile(file));
    await Deno.remove(file);
    group.forEach((run, i) => found.set(run, compared[i]));
  }
  return found;
}

/** Fails unless all ran as one process does.
 * @param tolerance of first gradients, of losses, and perhaps of the first three of these alone. */
export function assertAsOne(
  found: ReadonlyMap<MeshCase, MeshResult>,
  tolerance: { gradient: number; loss: number; firstLosses?: number },
): void {
  for (const [run, { sameStart, repeats, gradient, loss, firstLosses, last, arena, traffic }] of found) {
    assertEquals({ sameStart, repeats }, { sameStart: true, repeats: true }, nameOf(run));
    assert(gradient <= tolerance.gradient, `${nameOf(run)}: gradients are off by ${gradient}`);
    assert(loss <= tolerance.loss, `${nameOf(run)}: losses are off by ${loss}`);
    assert(
      firstLosses <= (tolerance.firstLosses ?? Infinity),
      `${nameOf(run)}: first losses are off by ${firstLosses}`,
    );
    // A GPU's memory is not the process's.
    const inProcess = KIND === "cuda" ? 0 : arena.planned;
    assertEquals(arena, { planned: arena.planned, mapped: inProcess, resident: inProcess }, nameOf(run));
    assertEquals(traffic.counted, traffic.planned, nameOf(run));
    if (run.steps === undefined) assert(last < 4.1, `${nameOf(run)}: it has not learned, loss ${last}`); // ln 64 = 4.16
  }
}
