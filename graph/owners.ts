/** Which values follow from one parameter alone, such as what it is scaled by: they are known before the first token.
 * @module */
import { touchedStates } from "./edit.ts";
import { fillOf, stateUse } from "./facts.ts";
import type { Graph, Node, Value } from "./ir.ts";

/** The parameter that each such value follows from, by name. Constants may take part. */
export function ownersOf(graph: Pick<Graph, "nodes" | "states">): Map<Value, string> {
  const kinds = new Map(graph.states.map((s) => [s.name, s.kind])), constants = new Set<Value>();
  const found = new Map<Value, string>();
  const ownerOf = (node: Node): string | undefined => {
    const states = touchedStates(node);
    if (stateUse(node) === "reads") {
      return states.length === 1 && kinds.get(states[0]) === "parameter" ? states[0] : undefined;
    }
    const made = node.inputs.filter((v) => !constants.has(v)), owner = found.get(made[0]);
    return states.length === 0 && made.every((v) => found.get(v) === owner) ? owner : undefined;
  };
  for (const node of graph.nodes) {
    const owner = ownerOf(node);
    if (fillOf(node) !== undefined) constants.add(node.outputs[0]);
    if (owner !== undefined) node.outputs.forEach((v) => found.set(v, owner));
  }
  return found;
}
