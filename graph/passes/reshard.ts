/** Pass `reshard`: parameters are gathered for forward, and again for backward, instead of being kept in between (ZeRO-3; FSDP's
 * "reshard after forward"). What backward reads, also to make activations again, are gathers again. The last unit stays as it
 * is: backward begins with it.
 * @module */
import { type Graph, inBackward } from "../ir.ts";
import { transfersOf } from "../units.ts";
import { remake } from "./remat.ts";

/** Gathers parameters again in backward. The graph's meaning stays the same to the last bit. */
export function reshard(graph: Graph): Graph {
  const gathers = transfersOf(graph).filter((t) => t.kind === "gather" && !inBackward(t.node)),
    last = gathers.at(-1)?.unit;
  return remake(graph, new Set(gathers.filter((t) => t.unit !== last).flatMap((t) => [...t.links, t.node])));
}
