import { assertEquals } from "@std/assert";
import { numel } from "../../graph/ir.ts";
import { readWhole } from "../../train/parameters.ts";
import { numbersOf, typedArray } from "../../train/typed_array.ts";
import { Random } from "../graph/random_graphs.ts";
import { randomMesh } from "../parallel/random_layouts.ts";
import { bytesOf, layouts, meetings, randomStates, Spread } from "./checkpoint/fixture.ts";

Deno.test("every rank of any mesh reads all values, whatever part it has, padding left out", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = new Random(seed),
      states = randomStates(random),
      whole = bytesOf(states, random),
      mesh = randomMesh(random);
    const { ranks } = new Spread(states, layouts(states, mesh, random), mesh).fill(whole), groups = meetings(mesh.size);
    const read = await Promise.all(ranks.map((own, rank) => {
      const gather = async (mine: Uint8Array) =>
        (await groups[rank].meet(Promise.resolve([...mine]))).map((m) => Uint8Array.from(m));
      return Array.fromAsync(readWhole(own, gather));
    }));
    for (const all of read) {
      assertEquals(all.map((p) => p.name), states.map((s) => s.name));
      states.forEach(({ name, shape, dtype }, i) => {
        const bytes = Uint8Array.from(whole.get(name)!);
        const expected = numbersOf(typedArray(dtype, bytes.buffer, 0, numel(shape)), dtype);
        assertEquals(`${all[i].values}`, `${expected}`, `seed ${seed}, ${name}`);
      });
    }
  }
});
