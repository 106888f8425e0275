/** Pass `fuse`: fewer passes over memory. Each rule is a small pure pass of its own, in the order of {@linkcode fusions}.
 * @module */
import { opOf } from "../builder.ts";

import { Editor } from "../edit.ts";
import { consumers, type Graph, type Node, producers, type Value } from "../ir.ts";
import { nums } from "../op.ts";
import { joinProducts } from "./fuse_products.ts";
import { fuseMaps } from "./fuse_maps.ts";

const results = (graph: Graph): Set<Value> => new Set(graph.outputs.map((o) => o.value));

/** Is a value read by one node alone (and no graph output)? */
function soleUse(uses: Map<Value, Node[]>, outputs: ReadonlySet<Value>, value: Value): Node | undefined {
  const list = uses.get(value) ?? [];
  return list.length === 1 && !outputs.has(value) ? list[0] : undefined;
}

/** RoPE happens while attention loads a head: `attention(rope(q), rope(k), v)` reads raw q and k, and its gradient writes
 * raw dq and dk. */
export function ropeIntoAttention(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), outputs = results(graph), edit = new Editor(graph);
  const turned = (v: Value) => {
    const node = made.get(v);
    return node?.op === "rope" && !node.attrs.inverse ? node : undefined;
  };
  for (const node of graph.nodes) {
    if (node.op !== "attention" && node.op !== "attention_backward" || node.attrs.rope) continue;
    const [q, k] = [turned(node.inputs[0]), turned(node.inputs[1])];
    if (!q || !k) continue;
    const backward = node.op === "attention_backward";
    const back = [0, 1].map((i) => backward ? soleUse(uses, outputs, node.outputs[i]) : undefined);
    const undone = back.every((n, i) => n?.op === "rope" && n.attrs.inverse && n.inputs[1] === [q, k][i].inputs[1]);
    if (backward && !undone) continue;
    const inputs = [q.inputs[0], k.inputs[0], ...node.inputs.slice(2), q.inputs[1], k.inputs[1]];
    const fused = edit.add(node, node.op, inputs, { ...node.attrs, rope: true });
    node.outputs.forEach((v, i) => edit.replace(back[i]?.outputs[0] ?? v, fused.outputs[i]));
  }
  return edit.finish();
}

/** A residual sum and the norm after it are one kernel; so are the norm's gradient and the sum with the residual's gradient. */
export function residualNorms(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), outputs = results(graph), edit = new Editor(graph);
  const fused = new Set<Node>();
  for (const node of graph.nodes) {
    if (node.op === "rmsnorm") {
      const sum = made.get(node.inputs[0]);
      if (sum?.op !== "add" || fused.has(sum)) continue;
      const joined = edit.add(node, "add_rmsnorm", [...sum.inputs, node.inputs[1]], node.attrs);
      [sum.outputs[0], ...node.outputs].forEach((v, i) => edit.replace(v, joined.outputs[i]));
      fused.add(sum);
    } else if (node.op === "rmsnorm_backward" && node.inputs.length === 4) {
      const sum = soleUse(uses, outputs, node.outputs[0]);
      if (sum?.op !== "add" || fused.has(sum) || sum.inputs[0] === sum.inputs[1]) continue;
      const residual = sum.inputs.find((v) => v !== node.outputs[0])!;
      if (dependsOn(made, residual, node)) continue;
      const joined = edit.add(node, "rmsnorm_backward", [...node.inputs, residual], node.attrs);
      edit.replace(sum.outputs[0], joined.outputs[0]);
      edit.replace(node.outputs[1], joined.outputs[1]);
      fused.add(sum);
    }
  }
  return edit.finish();
}

function dependsOn(made: Map<Value, Node>, value: Value, target: Node): boolean {
  const seen = new Set<Value>(), stack = [value];
  while (stack.length > 0) {
    const v = stack.pop()!;
    if (seen.has(v)) continue;
    seen.add(v);
    const node = made.get(v);
    if (node === target) return true;
    // Values are numbered as they are made: nothing older than the target's outputs can depend on it.
    if (node && v.id > target.outputs[0].id) stack.push(...node.inputs);
  }
  return false;
}

/** Gradients are added into state by the kernel that makes them: a sum goes in term by term, and an op that can add its
 * output into memory gets the attribute `into`. */
export function accumulateInPlace(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), outputs = results(graph), edit = new Editor(graph);
  const put = (at: Node, states: readonly string[], value: Value, begin: boolean): void => {
    const node = made.get(value);
    const alone = soleUse(uses, outputs, value) !== undefined;
    if (alone && node?.op === "add") {
      put(node, states, node.inputs[0], begin);
      put(node, states, node.inputs[1], false);
    } else if (alone && node && opOf(node.op).accumulates === node.outputs.indexOf(value) && !node.attrs.into) {
      const attrs = { ...node.attrs, into: [...states], begin };
      const fused = edit.add(node, node.op, node.inputs, attrs);
      node.outputs.forEach((v, i) => v !== value && edit.replace(v, fused.outputs[i]));
    } else edit.add(at, "accumulate", [value], { states: [...states], begin });
  };
  const touches = new Map<string, number>();
  for (const node of graph.nodes) {
    if (node.op === "accumulate") for (const s of node.attrs.states as string[]) touches.set(s, (touches.get(s) ?? 0) + 1);
  }
  for (const node of graph.nodes) {
    if (node.op !== "accumulate") continue;
    const states = node.attrs.states as string[];
    // Where a state is touched more than once the order of its terms must stay.
    if (states.some((s) => touches.get(s)! > 1)) continue;
    edit.drop(node);
    put(node, states, node.inputs[0], node.attrs.begin === true);
  }
  return joinSlices(edit.finish());
}

/** `accumulate` of all row slices of one product into states that lie one after another is one product into all of them. */
function joinSlices(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), edit = new Editor(graph);
  for (const node of graph.nodes) {
    if (node.op !== "contract" || node.attrs.into) continue;
    const slices = uses.get(node.outputs[0]) ?? [];
    const sinks = slices.map((s) => s.op === "slice" ? uses.get(s.outputs[0]) : undefined);
    if (slices.length < 2 || !sinks.every((s) => s?.length === 1 && s[0].op === "accumulate")) continue;
    let row = 0;
    const covers = slices.every((s) => {
      const fits = nums(s.attrs.starts)[0] === row && s.outputs[0].shape.slice(1).every((d, i) => d === node.outputs[0].shape[i + 1]);
      row += s.outputs[0].shape[0];
      return fits;
    });
    if (!covers || row !== node.outputs[0].shape[0]) continue;
    const begins = new Set(sinks.map((s) => s![0].attrs.begin));
    if (begins.size > 1) continue;
    const states = sinks.map((s) => (s![0].attrs.states as string[])[0]);
    sinks.forEach((s) => edit.drop(s![0]));
    edit.add(node, "contract", node.inputs, { ...node.attrs, into: states, begin: [...begins][0] === true });
  }
  return edit.finish();
}

/** All AdamW steps with the same scalars are one kernel over many tensors. */
export function joinUpdates(graph: Graph): Graph {
  const groups = new Map<string, Node[]>();
  for (const node of graph.nodes) {
    if (node.op !== "adamw") continue;
    const key = JSON.stringify([node.attrs, node.inputs.slice(-3).map((v) => v.id), node.inputs[0].dtype]);
    groups.set(key, [...groups.get(key) ?? [], node]);
  }
  const edit = new Editor(graph);
  for (const nodes of groups.values()) {
    if (nodes.length < 2) continue;
    const part = (k: number): Value[] => nodes.flatMap((n) => n.inputs.slice(k * sizeOf(n), (k + 1) * sizeOf(n)));
    const joined = edit.add(nodes.at(-1)!, "adamw", [...[0, 1, 2, 3].flatMap(part), ...nodes[0].inputs.slice(-3)], nodes[0].attrs);
    const total = joined.outputs.length / 3;
    let at = 0;
    for (const node of nodes) {
      const n = sizeOf(node);
      node.outputs.forEach((v, i) => edit.replace(v, joined.outputs[Math.floor(i / n) * total + at + i % n]));
      at += n;
    }
  }
  return edit.finish();
}

const sizeOf = (adamw: Node): number => adamw.outputs.length / 3;

/** The rules, in order: products and norms before sums go into state, element-wise chains last. */
export const fusions: readonly [name: string, rule: (graph: Graph) => Graph][] = [
  ["ropeIntoAttention", ropeIntoAttention],
  ["residualNorms", residualNorms],
  ["joinProducts", joinProducts],
  ["accumulateInPlace", accumulateInPlace],
  ["joinUpdates", joinUpdates],
  ["fuseMaps", fuseMaps],
];

/** Fuses a graph. Its meaning stays the same up to the order of sums. */
export function fuse(graph: Graph): Graph {
  return fusions.reduce((g, [, rule]) => rule(g), graph);
}
