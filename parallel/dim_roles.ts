/** What the dims of all values count, from what inputs say of theirs.
 * @module */
import { opOf } from "../graph/builder.ts";
import { touchedStates } from "../graph/edit.ts";
import { stateUse } from "../graph/facts.ts";
import type { DimRole, Graph, Node, Value } from "../graph/ir.ts";
import { labelsOf } from "./strategy.ts";

/** What the dims of each value of a graph count: a dim of a node counts what the other dims of its label do. */
export function dimRoles(graph: Graph): Map<Value, readonly DimRole[]> {
  const found = new Map<Value, readonly DimRole[]>(), none = ({ shape }: Value) => shape.map(() => "features" as const);
  const states = new Map(graph.states.map((s) => [s.name, s]));
  for (const { value, roles } of graph.inputs) found.set(value, roles ?? none(value));
  for (const node of graph.nodes) {
    const roles = stateUse(node) === "reads" ? states.get(touchedStates(node)[0])!.roles : undefined;
    if (roles) {
      found.set(node.outputs[0], roles);
      continue;
    }
    const dims = labelsOf(node)?.dims, byLabel = new Map<string | undefined, DimRole>();
    node.inputs.forEach((value, i) =>
      found.get(value)!.forEach((role, dim) => {
        if (role !== "features") byLabel.set(dims?.inputs[i][dim], role);
      })
    );
    const roleOf = (label: string | undefined) => (label === undefined ? undefined : byLabel.get(label)) ?? "features";
    node.outputs.forEach((value, i) => found.set(value, dims ? dims.outputs[i].map(roleOf) : none(value)));
  }
  return found;
}

/** Nodes to which the order of what a dim counts matters. */
export function inOrderOf(role: DimRole, graph: Graph): Node[] {
  const roles = dimRoles(graph);
  return graph.nodes.filter((node) => {
    const own = node.inputs.map((v) => roles.get(v)!);
    return opOf(node.op).split?.ordered?.(node).some((dim) => own.some((dims) => dims[dim] === role));
  });
}
