/** Pass `schedule`: the order of nodes, so that ranks compute while parameters and gradients travel. Kernels and collectives run in
 * this order, each on a stream of its own, and wait for each other only where they touch the same memory. So a gather begins early by
 * standing early, and nobody waits for a reduction whose sum stands late. The order is made on the graph of all ranks: they meet at
 * every collective.
 *
 * Gathers, in order of first use: each stands where the use of the one `prefetch` units before it begins, so that no more than
 * `prefetch` + 1 units are gathered at a time. Reductions stand where a unit's gradients are there, and what they give is added to
 * the sums where the next unit's are there. Sums are reduced once all is added, and nobody waits for them.
 * @module */
import { dependencies, inOrder } from "../edit.ts";
import { stateUse } from "../facts.ts";
import { consumers, type Graph, type Node, withNodes } from "../ir.ts";
import { type Transfer, transfersOf } from "../units.ts";

/** What the order is made for. */
export interface ScheduleOptions {
  /** How many units ahead parameters are gathered; with 0, ranks compute and exchange in turns. Default 1. */
  readonly prefetch?: number;
}

/** Orders the nodes of a graph whose collectives are grouped. Its meaning stays the same to the last bit. */
export function schedule(graph: Graph, { prefetch = 1 }: ScheduleOptions = {}): Graph {
  const transfers = transfersOf(graph);
  if (transfers.length === 0 || prefetch === 0) return graph;
  const position = new Map(graph.nodes.map((n, i) => [n, i])), uses = consumers(graph), at = new Map<Node, number>();
  const unitsOf = (kind: Transfer["kind"], start: (node: Node) => number) => {
    const units = [...Map.groupBy(transfers.filter((t) => t.kind === kind), (t) => t.unit).values()];
    return units.map((unit) => ({ unit, start: Math.min(...unit.map((t) => start(t.node))) }))
      .sort((a, b) => a.start - b.start);
  };
  const firstUse = ({ outputs }: Node) =>
    Math.min(...outputs.flatMap((v) => uses.get(v) ?? []).map((n) => position.get(n)!));
  const gathers = unitsOf("gather", firstUse);
  gathers.forEach(({ unit }, k) => {
    const place = k < prefetch ? k - gathers.length : gathers[k - prefetch].start - 0.5;
    unit.forEach((t) => at.set(t.node, place));
  });
  const reductions = unitsOf("reduction", (node) => position.get(node)!);
  reductions.forEach(({ unit }, k) => {
    const place = (reductions[k + 1]?.start ?? graph.nodes.length) - 0.5;
    for (const node of unit.flatMap((t) => t.links)) at.set(node, place);
  });
  const place = (node: Node): number => at.get(node) ?? position.get(node)!, before = dependencies(graph);
  for (const { node, links } of transfers.filter((t) => t.kind === "sum")) {
    const added = links.filter((n) => stateUse(n) === "reads").flatMap((n) => before.get(n)!);
    const last = Math.max(place(node), ...added.map((n) => place(n) + 0.25));
    for (const n of [node, ...links]) at.set(n, last);
  }
  const nodes = graph.nodes.toSorted((a, b) => place(a) - place(b));
  return withNodes(graph, inOrder(nodes, before));
}
