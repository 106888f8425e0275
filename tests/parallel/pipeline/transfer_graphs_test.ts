import { assertEquals } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { Builder } from "../../../graph/builder.ts";
import { interpret, interpretRanks, type Memory } from "../../../graph/interpret.ts";
import type { State } from "../../../graph/ir.ts";
import { verify } from "../../../graph/verify.ts";
import { exchangeGraph, passGraph, resultGraph, transferName } from "../../../parallel/pipeline/transfer_graphs.ts";

const state = (slot: string, way: string): State => ({
  ...{ name: `${slot}/activation_${way}`, kind: "activation", of: slot, dtype: "f64", shape: [2, 3] },
});
const boundary = { sent: [state("microbatch.1", "out")], received: [state("microbatch.2", "in")] };
const value = arr([2, 3], [1, 2, 3, 4, 5, 6]);

Deno.test("what one rank sends the other has, whichever comes first in their group", () => {
  for (const ranks of [[0, 1], [1, 0]] as const) {
    const graphs = [0, 1].map((rank) => {
      const way = rank === ranks[0] ? "send" : "receive";
      return verify(exchangeGraph(way, "activation", { boundary, ranks: [...ranks], axes: ["pp"] }));
    });
    const memories: Memory[] = [0, 1].map((rank) => new Map(rank === ranks[0] ? [[boundary.sent[0].name, value]] : []));
    interpretRanks(graphs, memories.map((memory) => ({ memory })));
    assertEquals(memories[ranks[1]].get(boundary.received[0].name), value);
    assertEquals(graphs[ranks[0]].slot, "microbatch.1");
    assertEquals(graphs[ranks[1]].slot, "microbatch.2");
    // One group for both directions: its ranks in order.
    assertEquals(graphs.map((g) => g.nodes.find((n) => n.op === "exchange")!.attrs.group), [[0, 1], [0, 1]]);
  }
});

Deno.test("a rank that has both sides copies, into the slot of the stage that reads", () => {
  const graph = verify(passGraph("activation", boundary)), memory: Memory = new Map([[boundary.sent[0].name, value]]);
  interpret(graph, { memory });
  assertEquals(memory.get(boundary.received[0].name), value);
  assertEquals([graph.name, graph.slot], [
    transferName("pass", { what: "activation" }, "microbatch.2"),
    "microbatch.2",
  ]);
});

Deno.test("what the last stage gives the host, the hosts of all ranks have, and nothing stays behind", () => {
  const results = ["logits", "score"].map((name, i) => ({
    name,
    state: { ...state("decode.2", name), shape: [2, 3 + i] },
  }));
  const second = arr([2, 4], [8, 7, 6, 5, 4, 3, 2, 1]);
  const ranks = [0, 2, 3], from = 2, idle = new Builder("idle", [], "rank").finish();
  const graphs = ranks.map((rank) => verify(resultGraph("decode", results, { ranks, from, rank, axes: ["pp"] })));
  const memories: Memory[] = ranks.map((rank) =>
    new Map(rank === from ? [[results[0].state.name, value], [results[1].state.name, second]] : [])
  );
  const [first, ...others] = memories.map((memory) => ({ memory }));
  const found = interpretRanks([graphs[0], idle, ...graphs.slice(1)], [first, { memory: new Map() }, ...others]);
  assertEquals(ranks.map((r) => [found[r].logits, found[r].score]), ranks.map(() => [value, second]));
  assertEquals(memories.map((memory) => memory.size), [0, 2, 0]);
  assertEquals(graphs.map((g) => [g.name, g.slot]), [
    ["result of decode", undefined],
    ["result of decode", "decode.2"],
    [
      "result of decode",
      undefined,
    ],
  ]);
});
