import { assertEquals, assertThrows } from "@std/assert";
import { FlowNetwork } from "../../graph/min_cut.ts";
import { forSeeds, Random } from "./random_graphs.ts";

type Edge = readonly [from: number, to: number, capacity: number];

function network(nodes: number, edges: readonly Edge[]): FlowNetwork {
  const flow = new FlowNetwork();
  for (let i = 0; i < nodes; i++) flow.node();
  edges.forEach((e) => flow.edge(...e));
  return flow;
}

/** What a cut costs: the capacity of all edges from outside of a set into it. */
const price = (edges: readonly Edge[], behind: ReadonlySet<number>): number =>
  edges.reduce((sum, [a, b, capacity]) => sum + (!behind.has(a) && behind.has(b) ? capacity : 0), 0);

Deno.test("the cut of a random network is as cheap as the cheapest of all cuts", () => {
  forSeeds(200, (seed) => {
    const random = new Random(seed), nodes = random.int(2, 7), sink = nodes - 1;
    const edges: Edge[] = Array.from({ length: random.int(1, 16) }, () => {
      const from = random.int(0, nodes - 2);
      return [from, random.int(from + 1, nodes - 1), random.int(0, 9)] as const;
    });
    const behind = network(nodes, edges).behindCut(0, sink);
    assertEquals([behind.has(0), behind.has(sink)], [false, true]);
    let least = Infinity;
    for (let bits = 0; bits < 2 ** (nodes - 2); bits++) {
      const inner = Array.from({ length: nodes - 2 }, (_, i) => i + 1).filter((i) => bits >> (i - 1) & 1);
      least = Math.min(least, price(edges, new Set([...inner, sink])));
    }
    assertEquals(price(edges, behind), least);
  });
});

Deno.test("of two cuts of one price, the one nearer to the sink is taken", () => {
  assertEquals(network(4, [[0, 1, 2], [1, 2, Infinity], [2, 3, 2]]).behindCut(0, 3), new Set([3]));
});

Deno.test("a network without a finite cut is refused", () => {
  assertThrows(() => network(3, [[0, 1, Infinity], [1, 2, Infinity]]).behindCut(0, 2), Error, "no limit");
});
