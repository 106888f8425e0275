/** What every graph must be: a list of named rules, checked after each pass in tests. Reading it tells what a graph may hold.
 * @module */
import { opOf } from "./builder.ts";
import { consumers, type Graph, type Node, numel, sameType, typeText, type Value, wide } from "./ir.ts";
import { inferTypes } from "./op.ts";
import { nodeText } from "./print.ts";

type Rule = readonly [name: string, check: (graph: Graph) => Generator<string>];

const statesOf = (node: Node): readonly string[] => (node.attrs.states ?? node.attrs.into ?? []) as readonly string[];

/** The rules. */
export const rules: readonly Rule[] = [
  ["a value is made once, before it is used", function* (graph) {
    const made = new Set<Value>(graph.inputs.map((i) => i.value));
    for (const node of graph.nodes) {
      for (const v of node.inputs) if (!made.has(v)) yield `%${v.id} in ${nodeText(node)}`;
      for (const v of node.outputs) {
        if (made.has(v)) yield `%${v.id} is made again by ${nodeText(node)}`;
        made.add(v);
      }
    }
    for (const { name, value } of graph.outputs) if (!made.has(value)) yield `output "${name}"`;
  }],
  ["ids are unique", function* (graph) {
    const seen = new Map<number, Value>();
    for (const v of [...graph.inputs.map((i) => i.value), ...graph.nodes.flatMap((n) => n.outputs)]) {
      if (seen.has(v.id)) yield `%${v.id}`;
      seen.set(v.id, v);
    }
  }],
  ["output types follow from op, inputs and attributes", function* (graph) {
    for (const node of graph.nodes) {
      const types = inferTypes(opOf(node.op), node.inputs, node.attrs);
      if (types.length !== node.outputs.length || types.some((t, i) => !sameType(t, node.outputs[i]))) {
        yield `${nodeText(node)}: expected ${types.map(typeText).join(", ")}`;
      }
    }
  }],
  ["dims are positive whole numbers", function* (graph) {
    for (const node of graph.nodes) {
      for (const v of node.outputs) if (v.shape.some((d) => !(Number.isInteger(d) && d > 0))) yield nodeText(node);
    }
  }],
  ["states are declared, and a value put into them has their type", function* (graph) {
    const states = new Map(graph.states.map((s) => [s.name, s]));
    for (const node of graph.nodes) {
      const touched = statesOf(node).map((name) => states.get(name));
      if (touched.some((s) => s === undefined)) yield `undeclared in ${nodeText(node)}`;
      else if (touched.length > 0) {
        const into = node.attrs.into ? opOf(node.op).accumulates! : -1;
        const value = node.op === "read" || into >= 0 ? node.outputs[Math.max(0, into)] : node.inputs[0];
        const size = touched.reduce((n, s) => n + numel(s!.shape), 0);
        const fits = node.op === "accumulate"
          ? wide(value.dtype) === wide(touched[0]!.dtype)
          : value.dtype === touched[0]!.dtype;
        if (!fits || numel(value.shape) !== size) yield nodeText(node);
      }
    }
  }],
  ["a value added into state is not read", function* (graph) {
    const uses = consumers(graph), results = new Set(graph.outputs.map((o) => o.value));
    for (const node of graph.nodes) {
      if (!node.attrs.into) continue;
      const value = node.outputs[opOf(node.op).accumulates!];
      if (uses.has(value) || results.has(value)) yield nodeText(node);
    }
  }],
  ["no state is read after it was assigned", function* (graph) {
    const assigned = new Set<string>();
    for (const node of graph.nodes) {
      if (node.op === "read") {
        for (const s of statesOf(node)) if (assigned.has(s)) yield `"${s}" in ${nodeText(node)}`;
      }
      if (node.op === "assign") statesOf(node).forEach((s) => assigned.add(s));
    }
  }],
];

/** Checks a graph against all rules and returns it.
 * @throws {Error} naming the graph, the rule and the node. */
export function verify(graph: Graph): Graph {
  for (const [name, check] of rules) {
    for (const fault of check(graph)) throw new Error(`Invalid graph "${graph.name}": ${name}: ${fault}`);
  }
  return graph;
}
