/** Pass `gather_once`: what ranks gather of parameters in the first microbatch of a step is there until the last, as no microbatch changes
 * a parameter. It costs the memory of all that is gathered, and saves the exchanges of all microbatches but one (FSDP without "reshard
 * after forward").
 * @module */
import { type Graph, inBackward, withNodes } from "../ir.ts";
import { transfersOf } from "../units.ts";

/** Marks the gathers of parameters, in a graph that has a backward: an evaluation is no microbatch of a step. The graph's meaning stays the
 * same to the last bit: what a microbatch would gather again is what the first one has left. */
export function gatherOnce(graph: Graph): Graph {
  if (!graph.nodes.some(inBackward)) return graph;
  const gathers = new Set(transfersOf(graph).filter((t) => t.kind === "gather").map((t) => t.node));
  if (gathers.size === 0) return graph;
  return withNodes(graph, graph.nodes.map((n) => gathers.has(n) ? { ...n, attrs: { ...n.attrs, first: true } } : n));
}
