/** Stable text of a graph: what golden tests hold and what a person reads.
 * @module */
import { type Attr, type Graph, type Node, typeText, type Value } from "./ir.ts";

function attrText(attr: Attr): string {
  if (typeof attr === "string") return /^[\w./]+$/.test(attr) ? attr : JSON.stringify(attr);
  if (Array.isArray(attr)) return `[${attr.map(attrText).join(",")}]`;
  if (typeof attr === "object") return `{${Object.entries(attr).map(([k, v]) => `${k}:${attrText(v)}`).join(",")}}`;
  return String(attr);
}

/** `%12: f32[4,8] = rmsnorm(%11, %7) eps=0.00001 @layers.0`, with `names` for the values. */
export function nodeText(node: Node, names: (value: Value) => string = (v) => `%${v.id}`): string {
  const outputs = node.outputs.map((v) => `${names(v)}: ${typeText(v)}`).join(", ");
  const attrs = Object.entries(node.attrs).filter(([k]) => k !== "dtype" && !(node.op === "read" && k === "shape"))
    .map(([k, v]) => ` ${k}=${attrText(v)}`).join("");
  const scope = node.scope ? `  @${node.scope}` : "";
  return `${outputs}${outputs ? " = " : ""}${node.op}(${node.inputs.map(names).join(", ")})${attrs}${scope}`;
}

/** Text of a graph: inputs, states that it touches, nodes, outputs. Values are numbered in order of appearance, so that
 * two graphs that do the same print the same. */
export function print(graph: Graph): string {
  const numbers = new Map<Value, number>();
  const name = (value: Value): string => {
    if (!numbers.has(value)) numbers.set(value, numbers.size);
    return `%${numbers.get(value)}`;
  };
  const touched = new Set(graph.nodes.flatMap((n) => [n.attrs.states, n.attrs.into]).flat());
  const lines = [`graph ${graph.name}`];
  for (const input of graph.inputs) {
    lines.push(`  input ${name(input.value)}: ${typeText(input.value)} "${input.name}"`);
  }
  for (const state of graph.states) {
    if (touched.has(state.name)) lines.push(`  ${state.kind} "${state.name}": ${typeText(state)}`);
  }
  for (const node of graph.nodes) {
    node.outputs.forEach(name);
    lines.push(`  ${nodeText(node, name)}`);
  }
  for (const output of graph.outputs) lines.push(`  output ${name(output.value)} "${output.name}"`);
  return lines.join("\n") + "\n";
}
