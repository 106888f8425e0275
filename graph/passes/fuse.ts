/** Pass `fuse`: fewer passes over memory. Each rule is a small pure pass of its own, in the order of {@linkcode fusions}.
 * @module */
import { opOf } from "../builder.ts";
import { Editor, hasEffect, makerPositions, touchedStates } from "../edit.ts";
import { isGather, stateUse } from "../facts.ts";
import { consumers, type Graph, type Lookup, type Node, producers, type Value } from "../ir.ts";
import { nums } from "../op.ts";
import type { Fusion, Target } from "../target/target.ts";
import { castsIntoKernels, castsIntoProducts } from "./fuse_casts.ts";
import { joinProducts } from "./fuse_products.ts";
import { fuseMaps } from "./fuse_maps.ts";

const results = (graph: Graph): Set<Value> => new Set(graph.outputs.map((o) => o.value));

/** Is a value read by one node alone (and no graph output)? */
function soleUse(uses: Lookup<readonly Node[]>, outputs: ReadonlySet<Value>, value: Value): Node | undefined {
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

/** Answers whether a value is there when a node runs: it is made before the node stands, or is a read that may stand earlier, with
 * what gathers it from other ranks. */
function availability(graph: Graph): (value: Value, at: Node) => boolean {
  const made = producers(graph), positions = makerPositions(graph);
  const positionOf = (node: Node) => positions[node.outputs[0].id];
  const firstChange = new Map<string, number>();
  for (const [at, node] of graph.nodes.entries()) {
    if (hasEffect(node)) { for (const s of touchedStates(node)) if (!firstChange.has(s)) firstChange.set(s, at); }
  }
  const isOld = (read: Node) => touchedStates(read).every((s) => positionOf(read) < (firstChange.get(s) ?? Infinity));
  const isThere = (value: Value, at: Node): boolean => {
    const node = made.get(value);
    if (node === undefined || positionOf(node) < positionOf(at)) return true;
    return stateUse(node) === "reads" ? isOld(node) : isGather(node) && node.inputs.every((v) => isThere(v, at));
  };
  return isThere;
}

/** A residual sum and the norm after it are one kernel; so are the norm's gradient and the sum with the residual's gradient. The
 * first of the two must find all operands of both. */
export function residualNorms(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), outputs = results(graph), edit = new Editor(graph);
  const isThere = availability(graph), fused = new Set<Node>();
  for (const node of graph.nodes) {
    if (node.op === "rmsnorm") {
      const sum = made.get(node.inputs[0]);
      if (sum?.op !== "add" || fused.has(sum) || !isThere(node.inputs[1], sum)) continue;
      // A norm that is made again in backward does not belong to the sum that forward keeps.
      if (node.phase !== sum.phase) continue;
      const joined = edit.add(node, "add_rmsnorm", [...sum.inputs, node.inputs[1]], node.attrs);
      [sum.outputs[0], ...node.outputs].forEach((v, i) => edit.replace(v, joined.outputs[i]));
      fused.add(sum);
    } else if (node.op === "rmsnorm_backward" && node.inputs.length === 4) {
      const sum = soleUse(uses, outputs, node.outputs[0]);
      if (sum?.op !== "add" || fused.has(sum) || sum.inputs[0] === sum.inputs[1]) continue;
      const residual = sum.inputs.find((v) => v !== node.outputs[0])!;
      if (!isThere(residual, node)) continue;
      const joined = edit.add(node, "rmsnorm_backward", [...node.inputs, residual], node.attrs);
      edit.replace(sum.outputs[0], joined.outputs[0]);
      edit.replace(node.outputs[1], joined.outputs[1]);
      fused.add(sum);
    }
  }
  return edit.finish();
}

/** States that only one node touches: that node may stand anywhere. */
function touchedOnce(graph: Graph): (states: readonly string[]) => boolean {
  const touches = new Map<string, number>();
  for (const s of graph.nodes.flatMap(touchedStates)) touches.set(s, (touches.get(s) ?? 0) + 1);
  return (states) => states.every((s) => touches.get(s) === 1);
}

/** Gradients are added into state by the kernel that makes them: a sum goes in term by term, in the order in which the terms are
 * made, and an op whose kernel can add its output into memory gets the attribute `into`. */
export function accumulateInPlace(graph: Graph, { lowerings }: Target): Graph {
  const made = producers(graph), uses = consumers(graph), outputs = results(graph), edit = new Editor(graph);
  const positions = makerPositions(graph), isFree = touchedOnce(graph);
  /** Terms of a sum that is there for one accumulation alone, each with the node where it can be added. A sum may be as long as the
   * graph, so this is no recursion. */
  const termsOf = (sum: Value, sink: Node, sinkPosition: number): { value: Value; at: Node; position: number }[] => {
    const open = [{ value: sum, at: sink, position: sinkPosition }], terms: typeof open = [];
    for (let term; (term = open.pop());) {
      const { value } = term, node = made.get(value), position = positions[value.id];
      if (!node || !soleUse(uses, outputs, value)) terms.push(term);
      else if (opOf(node.op).adds) {
        open.push(...node.inputs.toReversed().map((v) => ({ value: v, at: node, position })));
      } else {
        const isAdded = lowerings[node.op]?.accumulates && opOf(node.op).into === node.outputs.indexOf(value);
        terms.push(isAdded ? { value, at: node, position } : term);
      }
    }
    return terms;
  };
  for (const [position, sink] of graph.nodes.entries()) {
    if (stateUse(sink) !== "adds" || !isFree(touchedStates(sink))) continue;
    edit.drop(sink);
    const terms = termsOf(sink.inputs[0], sink, position).sort((a, b) => a.position - b.position);
    terms.forEach(({ value, at }, i) => {
      const begin = i === 0 && sink.attrs.begin === true, states = [...touchedStates(sink)];
      if (at !== made.get(value)) edit.add(at, sink.op, [value], { states, begin });
      else {
        const fused = edit.add(at, at.op, at.inputs, { ...at.attrs, into: states, begin });
        at.outputs.forEach((v, k) => v !== value && edit.replace(v, fused.outputs[k]));
      }
    });
  }
  return lowerings.contract?.accumulates ? joinSlices(edit.finish()) : edit.finish();
}

/** `accumulate` of all row slices of one product into states that lie one after another is one product into all of them. */
function joinSlices(graph: Graph): Graph {
  const uses = consumers(graph), outputs = results(graph), edit = new Editor(graph), isFree = touchedOnce(graph);
  for (const node of graph.nodes) {
    if (node.op !== "contract" || node.attrs.into || outputs.has(node.outputs[0])) continue;
    const [product] = node.outputs, rowOf = (s: Node) => nums(s.attrs.starts ?? [0])[0];
    const slices = (uses.get(product) ?? []).toSorted((a, b) => rowOf(a) - rowOf(b));
    const sinks = slices.map((s) => s.op === "slice" ? soleUse(uses, outputs, s.outputs[0]) : undefined)
      .filter((n): n is Node => n !== undefined && stateUse(n) === "adds" && isFree(touchedStates(n)));
    const isRow = (s: Node) => s.outputs[0].shape.slice(1).every((d, i) => d === product.shape[i + 1]);
    if (slices.length < 2 || sinks.length < slices.length || !slices.every(isRow)) continue;
    let row = 0;
    const covers = slices.every((s) => {
      const start = row;
      row += s.outputs[0].shape[0];
      return rowOf(s) === start;
    });
    const { begin } = sinks[0].attrs;
    if (!covers || row !== product.shape[0] || sinks.some((s) => s.attrs.begin !== begin)) continue;
    sinks.forEach((s) => edit.drop(s));
    edit.add(node, "contract", node.inputs, { ...node.attrs, into: sinks.flatMap(touchedStates), begin });
  }
  return edit.finish();
}

/** All AdamW steps with the same scalars are one kernel over many tensors. The first of them must find all operands. */
export function joinUpdates(graph: Graph): Graph {
  const updates = graph.nodes.filter((n) => n.op === "adamw"), groups = new Map<string, Node[]>();
  if (updates.length < 2) return graph;
  const isThere = availability(graph);
  for (const node of updates) {
    const key = JSON.stringify([node.attrs, node.inputs.slice(-3).map((v) => v.id), node.inputs[0].dtype]);
    const group = groups.get(key);
    if (!group) groups.set(key, [node]);
    else if (node.inputs.every((v) => isThere(v, group[0]))) group.push(node);
  }
  const edit = new Editor(graph);
  for (const nodes of groups.values()) {
    if (nodes.length < 2) continue;
    const part = (k: number): Value[] => nodes.flatMap((n) => n.inputs.slice(k * sizeOf(n), (k + 1) * sizeOf(n)));
    const operands = [...[0, 1, 2, 3].flatMap(part), ...nodes[0].inputs.slice(-3)];
    const total = nodes.reduce((sum, node) => sum + sizeOf(node), 0);
    let at = 0;
    const indices = nodes.map((node) => {
      const n = sizeOf(node), first = at;
      at += n;
      return node.outputs.map((_, i) => Math.floor(i / n) * total + first + i % n);
    });
    const { bf16, ...attrs } = nodes[0].attrs;
    const stored = bf16 && { bf16: indices.flatMap((p) => nums(bf16).map((i) => p[i])).sort((a, b) => a - b) };
    const joined = edit.add(nodes.at(-1)!, "adamw", operands, { ...attrs, ...stored });
    nodes.forEach((node, j) => node.outputs.forEach((v, i) => edit.replace(v, joined.outputs[indices[j][i]])));
  }
  return edit.finish();
}

const sizeOf = (adamw: Node): number => adamw.outputs.length / 3;

/** The rules, in order: products and norms before sums go into state, casts into what is left of them, element-wise chains last. */
export const fusions: readonly [name: Fusion, rule: (graph: Graph, target: Target) => Graph][] = [
  ["castsIntoProducts", castsIntoProducts],
  ["ropeIntoAttention", ropeIntoAttention],
  ["residualNorms", residualNorms],
  ["joinProducts", joinProducts],
  ["accumulateInPlace", accumulateInPlace],
  ["castsIntoKernels", castsIntoKernels],
  ["joinUpdates", joinUpdates],
  ["fuseMaps", fuseMaps],
];

/** Fuses a graph by the rules that pay on a target. Its meaning stays the same up to the order of sums. */
export function fuse(graph: Graph, target: Target): Graph {
  const begun = target.ownFusion?.(graph) ?? graph;
  return fusions.reduce((g, [name, rule]) => target.fusions.has(name) ? rule(g, target) : g, begun);
}
