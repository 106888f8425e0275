/** Pass `group`: the collectives of a unit (`graph/units.ts`) become one, over as many tensors: what is gathered for a block, the maxima
 * that this is scaled by, what is reduced of its gradients. It stands where the first gather stood, or the last reduction.
 * @module */
import { dependencies, inOrder } from "../edit.ts";
import { type Graph, type Node, withNodes } from "../ir.ts";
import { type Transfer, transfersOf } from "../units.ts";

/** Joins what does the same to tensors of one type over the same ranks. What depends on one another stays apart. */
function kindOf({ node: { op, attrs, inputs }, kind, unit, depth }: Transfer): string {
  return JSON.stringify([op, attrs, inputs[0].dtype, kind, unit, depth]);
}

function join(members: readonly Transfer[]): Node {
  const [{ node: first, block }] = members, modules = [...new Set(members.map((t) => t.module))].join(", ");
  if (members.length === 1) return first;
  return {
    ...first,
    inputs: members.flatMap((t) => t.node.inputs),
    outputs: members.flatMap((t) => t.node.outputs),
    scope: modules,
    block,
  };
}

/** What is one. */
export interface GroupOptions {
  /** Are the maxima of all parameters found by one exchange, at the start, rather than unit by unit? Default no. */
  readonly maximaAtOnce?: boolean;
}

/** Groups a graph. Its meaning stays the same to the last bit. */
export function group(graph: Graph, { maximaAtOnce = false }: GroupOptions = {}): Graph {
  const transfers = transfersOf(graph).map((t) => t.kind === "maximum" && maximaAtOnce ? { ...t, unit: t.kind } : t);
  if (transfers.length === 0) return graph;
  const position = new Map(graph.nodes.map((n, i) => [n, i])), at = new Map<Node, number>();
  const joined = new Map<Node, Node>(), now = (node: Node): Node => joined.get(node) ?? node;
  for (const members of Map.groupBy(transfers, kindOf).values()) {
    const node = join(members);
    members.forEach((t) => joined.set(t.node, node));
  }
  for (const unit of Map.groupBy(transfers, (t) => t.unit).values()) {
    const positions = unit.map((t) => position.get(t.node)!),
      isEarly = unit[0].kind === "gather" || unit[0].kind === "maximum";
    const place = isEarly ? Math.min(...positions) : Math.max(...positions);
    for (const { node, links } of unit) {
      at.set(now(node), place);
      if (!isEarly) links.forEach((n) => at.set(n, place + 0.5));
    }
  }
  const before = new Map<Node, Node[]>();
  for (const [node, needs] of dependencies(graph)) {
    before.set(now(node), [...before.get(now(node)) ?? [], ...needs.map(now)]);
  }
  const place = (node: Node): number => at.get(node) ?? position.get(node)!;
  const nodes = [...new Set(graph.nodes.map(now))].sort((a, b) => place(a) - place(b));
  return withNodes(graph, inOrder(nodes, before));
}
