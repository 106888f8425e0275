import { assertEquals } from "@std/assert";
import { arr } from "../../../graph/array.ts";
import { interpret, interpretRanks, type Memory } from "../../../graph/interpret.ts";
import type { State } from "../../../graph/ir.ts";
import { verify } from "../../../graph/verify.ts";
import { exchangeGraph, passGraph, transferName } from "../../../parallel/pipeline/transfer_graphs.ts";

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
