/** Stable text of a graph: what golden tests hold and what a person reads.
 * @module */
import { stateUse } from "./facts.ts";
import { type Attr, type Graph, inBackward, type Node, type Origin, typeText, type Value } from "./ir.ts";

function attrText(attr: Attr): string {
  if (typeof attr === "string") return /^[\w./]+$/.test(attr) ? attr : JSON.stringify(attr);
  if (Array.isArray(attr)) return `[${attr.map(attrText).join(",")}]`;
  if (typeof attr === "object") return `{${Object.entries(attr).map(([k, v]) => `${k}:${attrText(v)}`).join(",")}}`;
  return String(attr);
}

/** Where a node or an instruction comes from, for people: its module path, with a stroke in backward. */
export function scopeText(from: Pick<Origin, "scope" | "phase">): string {
  return `${from.scope}${inBackward(from) ? "'" : ""}`;
}

/** A scope in the words of a sentence: `the gradient of norm` of `norm'`. */
export function scopeInWords(text: string): string {
  return text.replace(/^(.+)'$/, "the gradient of $1");
}

/** A module path, or a parameter's name, with numbers of list elements left open: `layers.*.attention` of `layers.3.attention`. */
export function withoutNumbers(path: string): string {
  return path.replaceAll(/(?<=\.)\d+(?=[.']|$)/g, "*");
}

/** The modules on a path, for people, lists with their numbers: `layers.3` and `attention`. */
export function modulesOn(path: string): string[] {
  return path.split(/\.(?!\d)/).filter((name) => name !== "");
}

/** `%12: f32[4,8] = rmsnorm(%11, %7) eps=0.00001 @layers.0`, with `names` for the values. */
export function nodeText(node: Node, names: (value: Value) => string = (v) => `%${v.id}`): string {
  const outputs = node.outputs.map((v) => `${names(v)}: ${typeText(v)}`).join(", ");
  const attrs = Object.entries(node.attrs).filter(([k]) =>
    k !== "dtype" && !(stateUse(node) === "reads" && k === "shape")
  )
    .map(([k, v]) => ` ${k}=${attrText(v)}`).join("");
  const text = scopeText(node), again = node.phase === "remade" ? " again" : "", scope = text && `  @${text}${again}`;
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
  for (const { name: own, value, counts } of graph.inputs) {
    lines.push(`  input ${name(value)}: ${typeText(value)} "${own}"${counts ? " counts" : ""}`);
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
