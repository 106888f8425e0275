import { assert, assertEquals, assertThrows } from "@std/assert";
import { LayoutError, layoutText } from "../../../graph/layout.ts";
import { Mesh, type MeshOptions } from "../../../parallel/mesh.ts";
import { generationGraphs } from "../../../train/generate/graphs.ts";
import { bindGeneration } from "../../../train/generate/ranks.ts";
import { results, testRanks } from "../../native/mpirun.ts";
import { type Continued, continued } from "./decoder_rank.ts";
import { distance, randomLlama } from "./weights.ts";

const script = new URL("decoder_rank.ts", import.meta.url);

/** A random Llama's graphs, bound to a mesh. */
function bound(options: MeshOptions, ranks: number) {
  const { model } = randomLlama(), graphs = generationGraphs(model, { sequences: 3, maxLength: 40, dtype: "f64" });
  return { graphs, ranks: bindGeneration(model, graphs, { mesh: new Mesh(options, ranks), rank: 0 }) };
}

Deno.test("tp cuts caches by heads, and no other axis cuts them, nor what is read", () => {
  const { graphs: [decode], ranks } = bound({ dp_shard: 2, tp: 2 }, 4);
  const caches = decode.states.filter((s) => s.kind === "cache");
  assertEquals(caches.map((s) => layoutText(ranks.layouts.state(s))), Array(4).fill("tp: Shard(2)"));
  const local = ranks.partition(decode);
  assertEquals(local.inputs.map((i) => i.value.shape), decode.inputs.map((i) => i.value.shape));
  assertEquals(local.outputs.map((o) => o.value.shape), [[3, 48]]);
});

Deno.test("with tp, a token takes two sums a block, one for the embedding, and one gather of logits", () => {
  const { graphs: [decode], ranks } = bound({ tp: 2 }, 2);
  const count = (op: string) => ranks.partition(decode).nodes.filter((n) => n.op === op).length;
  assertEquals([count("all_reduce"), count("all_gather")], [2 * 2 + 1, 1]);
});

Deno.test("heads that a mesh cannot share out are refused", () => {
  assertThrows(() => bound({ tp: 3 }, 3), LayoutError, "a multiple of 3");
});

testRanks("ranks that share weights and caches continue as one process does", async () => {
  const alone = await continued();
  for (const mesh of [{ tp: 2 }, { dp_shard: 2 }]) {
    for (const found of await results({ size: 2, script, args: [JSON.stringify(mesh)] }) as unknown as Continued[]) {
      assertEquals(found.tokens, alone.tokens, JSON.stringify(mesh));
      assert(distance(found.logits, alone.logits) < 1e-10);
      assertEquals(found.cacheBytes, "tp" in mesh ? alone.cacheBytes / 2 : alone.cacheBytes);
    }
  }
});
