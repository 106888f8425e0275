/** Gradient sums of which every rank has a summand: ranks add up for themselves microbatch by microbatch, and in the last one of a step
 * the sums are reduced, each in its own memory and as soon as its last summand is there (DDP's and HSDP's all-reduce).
 * @module */
import { Builder } from "../graph/builder.ts";
import { touchedStates } from "../graph/edit.ts";
import { stateUse } from "../graph/facts.ts";
import { type Graph, type Node, type State, withNodes } from "../graph/ir.ts";
import { degreeOf, type Layout, partialAxes } from "../graph/layout.ts";
import type { Mesh } from "./mesh.ts";

/** Are sums of gradients added up here, and not only read? */
export function sumsGradients({ nodes, states }: Graph): boolean {
  const gradients = new Set(states.filter((s) => s.kind === "gradient").map((s) => s.name));
  return nodes.some((n) => stateUse(n) !== "reads" && touchedStates(n).some((s) => gradients.has(s)));
}

/** Adds the reductions to a graph of all ranks behind pass `fuse`.
 * @param layoutOf layout of a gradient sum before them; behind them it is partial no more. */
export function reduceSums(graph: Graph, mesh: Mesh, layoutOf: (state: State) => Layout): Graph {
  const last = new Map<Node, State[]>(), touched = new Map<string, Node>(), builder = Builder.beside(graph);
  for (const node of graph.nodes) {
    if (stateUse(node) !== "reads") touchedStates(node).forEach((s) => touched.set(s, node));
  }
  for (const state of graph.states) {
    const node = state.kind === "gradient" ? touched.get(state.name) : undefined;
    if (node) last.set(node, [...last.get(node) ?? [], state]);
  }
  const nodes = graph.nodes.flatMap((node) => {
    const from = builder.nodes.length;
    builder.origin = node;
    for (const state of last.get(node) ?? []) {
      const { name } = state, layout = layoutOf(state), summands = partialAxes(layout, "sum");
      const axes = Object.keys(mesh.factors).filter((axis) => summands.includes(axis));
      if (axes.length === 0) continue;
      const attrs = { axes, size: degreeOf(axes, mesh.factors), by: "sum", last: true };
      builder.assign(name, builder.emit("all_reduce", [builder.read(name)], attrs)[0]);
    }
    return [node, ...builder.nodes.slice(from)];
  });
  return withNodes(graph, nodes);
}
