/** Casts between f32 and bf16 that kernels make as they load and store, so that no pass over memory is left for them.
 * @module */
import { opOf } from "../builder.ts";
import { Editor } from "../edit.ts";
import { isElementwise, stateUse } from "../facts.ts";
import { consumers, type Graph, type Node, producers, type Value } from "../ir.ts";
import { takesBf16 } from "../op.ts";

const isNarrowing = (node: Node): boolean => opOf(node.op).converts === true && node.outputs[0].dtype === "bf16";
const isWidening = (node: Node): boolean =>
  opOf(node.op).converts === true && node.inputs[0].dtype === "bf16" && node.outputs[0].dtype === "f32";

/** What multiplies takes and gives bf16 only where it multiplies in it. */
const isExact = (node: Node): boolean => opOf(node.op).rounding !== undefined && !node.attrs.round;

/** May the kernel that makes a value store it as bf16? Element-wise nodes become part of a `map`, which may. */
function storesBf16(node: Node | undefined, value: Value): node is Node {
  if (!node || isExact(node)) return false;
  return takesBf16(opOf(node.op), "output", node.outputs.indexOf(value), node.inputs.length);
}

/** A product rounds an f32 operand as it loads it: masters of weights, and values that others need in f32 anyway. */
export function castsIntoProducts(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), edit = new Editor(graph);
  const results = new Set(graph.outputs.map((o) => o.value));
  for (const cast of graph.nodes.filter(isNarrowing)) {
    const [value] = cast.inputs, [rounded] = cast.outputs, { dtype } = rounded, source = made.get(value);
    const isOnlyCast = uses.get(value)!.length === 1 && !results.has(value);
    if (isOnlyCast && storesBf16(source, value)) continue;
    const readers = uses.get(rounded) ?? [];
    if (results.has(rounded) || !readers.every((n) => opOf(n.op).rounding?.plain && n.attrs.round === dtype)) continue;
    edit.replace(rounded, value);
  }
  return edit.finish();
}

/** What makes a value stores it as bf16 where only its cast is read, and what computes in f32 widens bf16 as it loads it. */
export function castsIntoKernels(graph: Graph): Graph {
  return widenAtLoads(roundAtStores(graph));
}

function roundAtStores(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), edit = new Editor(graph);
  const results = new Set(graph.outputs.map((o) => o.value)), rounded = new Map<Node, Map<Value, Value>>();
  for (const cast of graph.nodes.filter(isNarrowing)) {
    const [value] = cast.inputs, source = made.get(value);
    if (uses.get(value)!.length > 1 || results.has(value) || !storesBf16(source, value)) continue;
    if (isElementwise(source.op)) continue;
    rounded.set(source, (rounded.get(source) ?? new Map()).set(value, cast.outputs[0]));
  }
  for (const [node, casts] of rounded) {
    const stored = [...casts.keys()].map((v) => node.outputs.indexOf(v));
    const bf16 = [...(node.attrs.bf16 ?? []) as number[], ...stored].sort((a, b) => a - b);
    const again = edit.add(node, node.op, node.inputs, { ...node.attrs, bf16 });
    node.outputs.forEach((v, i) => edit.replace(casts.get(v) ?? v, again.outputs[i]));
    edit.drop(node);
  }
  return edit.finish();
}

function widenAtLoads(graph: Graph): Graph {
  const made = producers(graph), edit = new Editor(graph);
  for (const node of graph.nodes) {
    if (opOf(node.op).bf16 === "kept" && stateUse(node) !== "adds" || isExact(node)) continue;
    const inputs = node.inputs.map((v, i) => {
      const cast = made.get(v), takes = takesBf16(opOf(node.op), "input", i, node.inputs.length);
      return cast && isWidening(cast) && takes ? cast.inputs[0] : v;
    });
    if (inputs.every((v, i) => v === node.inputs[i])) continue;
    const again = edit.add(node, node.op, inputs, node.attrs);
    node.outputs.forEach((v, i) => edit.replace(v, again.outputs[i]));
    edit.drop(node);
  }
  return edit.finish();
}
