/** Fine-tuning on chats by real processes, beside one that does the same. @module */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { MeshOptions } from "../../parallel/mesh.ts";
import { temporaryFolder } from "../data/fixture.ts";
import { results, testRanks } from "../native/mpirun.ts";
import { type ChatRun, chatRun, SAMPLE_CHAT } from "./chat_rank.ts";

const script = new URL("chat_rank.ts", import.meta.url);

/** Meshes, and how many shards of four each of their ranks has a part in. */
const meshes: readonly (readonly [MeshOptions, number])[] = [
  [{ dp_shard: 2 }, 2],
  [{ tp: 2 }, 4],
  [{ dp_shard: 2, cp: 2 }, 2],
];

testRanks(
  "chats on ranks have the masked losses of one process, and each reads its share of those held out",
  async () => {
    await using folder = await temporaryFolder();
    const lines = (await Deno.readTextFile(new URL("chats.jsonl", SAMPLE_CHAT))).trim().split("\n");
    for (const [name, first, last] of [["training", 0, 90], ["held-out", 90, 120]] as const) {
      await Deno.mkdir(`${folder.path}/${name}`);
      const own = lines.slice(first, last);
      for (let shard = 0; shard < 4; shard++) {
        const text = own.filter((_, n) => n % 4 === shard).map((line) => `${line}\n`).join("");
        await Deno.writeTextFile(`${folder.path}/${name}/${shard}.json`, text);
      }
    }
    const one = await chatRun(folder.path, {}), unmasked = await chatRun(folder.path, {}, false);
    assert(one.heldOut.tokens < 0.7 * unmasked.heldOut.tokens, "what the user says is left out");
    assert(one.losses.at(-1)! < one.losses[0]);
    for (const [mesh, own] of meshes) {
      const size = Object.values(mesh).reduce((n, degree) => n * degree, 1);
      const runs = await results({ size, script, args: [folder.path, JSON.stringify(mesh)] }) as unknown as ChatRun[];
      for (const { losses, counts, heldOut, shards } of runs) {
        const name = JSON.stringify(mesh);
        assertEquals([counts, heldOut.tokens], [one.counts, one.heldOut.tokens], name);
        [...losses, heldOut.loss].forEach((loss, n) => {
          assertAlmostEquals(loss, [...one.losses, one.heldOut.loss][n], 1e-10, name);
        });
        assertEquals(shards.length, own, name);
      }
      assertEquals([...new Set(runs.flatMap(({ shards }) => shards))].sort(), [0, 1, 2, 3]);
    }
  },
);
