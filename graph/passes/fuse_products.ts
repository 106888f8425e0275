/** Products that share an operand become one: wq, wk, wv (w1, w3) are read as one matrix, for which the memory plan puts the
 * weights one after another; so are their gradients.
 * @module */
import { parseDims } from "../dims.ts";
import { Editor, hasEffect, isCopy, touchedStates } from "../edit.ts";
import { consumers, type Graph, type Node, producers, type Value } from "../ir.ts";
import { str } from "../op.ts";

/** Products `contract(x, read(w_i))` of one x, by an einsum whose only free label of w is w's dim 0. */
interface Group {
  readonly members: readonly Node[];
  /** What backward makes again of each. */
  readonly copies: readonly (Node | undefined)[];
  readonly states: readonly string[];
  /** Output dim that holds the free label. */
  readonly dim: number;
}

const label = (dims: string, term: number, dim: number): string => {
  const { inputs, outputs } = parseDims(dims);
  return [...inputs, ...outputs][term][dim][0];
};

function findGroups(graph: Graph, made: Map<Value, Node>): Group[] {
  const byKey = new Map<string, Node[]>(), copies = new Map<Value, Node>();
  for (const node of graph.nodes) {
    if (node.op !== "contract") continue;
    if (isCopy(node)) copies.set(node.inputs[1], node);
    if (node.scope.endsWith("'")) continue;
    const weight = made.get(node.inputs[1]);
    if (weight?.op !== "read" || (weight.attrs.states as string[]).length !== 1) continue;
    const dims = str(node.attrs.dims), { inputs: [x, w], outputs: [y] } = parseDims(dims);
    const free = w.filter((d) => !x.some((e) => e[0] === d[0]));
    if (free.length !== 1 || free[0] !== w[0] || !y.some((d) => d[0] === w[0][0])) continue;
    const key = `${node.inputs[0].id} ${JSON.stringify(node.attrs)} ${node.inputs[1].shape.slice(1)}`;
    byKey.set(key, [...byKey.get(key) ?? [], node]);
  }
  const groups: Group[] = [], taken = new Set(graph.nodes.filter(hasEffect).flatMap(touchedStates));
  for (const members of byKey.values()) {
    const states = members.map((n) => (made.get(n.inputs[1])!.attrs.states as string[])[0]);
    if (members.length < 2 || new Set(states).size < states.length || states.some((s) => taken.has(s))) continue;
    states.forEach((s) => taken.add(s));
    const dims = str(members[0].attrs.dims), free = label(dims, 1, 0);
    const dim = parseDims(dims).outputs[0].findIndex((d) => d[0] === free);
    groups.push({ members, copies: members.map((n) => copies.get(n.inputs[1])), states, dim });
  }
  return groups;
}

/** The products of forward that {@linkcode joinProducts} makes one of, in lists. */
export function joinedProducts(graph: Graph): (readonly Node[])[] {
  return findGroups(graph, producers(graph)).map((g) => g.members);
}

/** Rewrites each group's products, the sum of their gradients to x, and their weights' gradients. */
export function joinProducts(graph: Graph): Graph {
  const made = producers(graph), uses = consumers(graph), edit = new Editor(graph);
  /** Nodes that touch each state. */
  const sinks = new Map<string, Node[]>();
  for (const node of graph.nodes) for (const s of touchedStates(node)) sinks.set(s, [...sinks.get(s) ?? [], node]);
  for (const group of findGroups(graph, made)) {
    const { members, copies, states, dim } = group;
    joinMembers(edit, group, members);
    // A copy is made by the same product as what it is a copy of, so that it has the same bits.
    joinMembers(edit, group, copies);
    const backward = gradients(members, states, made, uses, sinks, str(members[0].attrs.dims));
    if (backward) joinGradients(edit, backward, dim, states);
  }
  return edit.finish();
}

function joinMembers(edit: Editor, { members, states, dim }: Group, nodes: readonly (Node | undefined)[]): void {
  const first = nodes.find((n) => n !== undefined);
  if (!first) return;
  const joined = edit.add(first, "contract", [first.inputs[0], edit.read(first, states)], first.attrs).outputs[0];
  let at = 0;
  for (const [i, { outputs: [{ shape }] }] of members.entries()) {
    const starts = shape.map((_, d) => d === dim ? at : 0), node = nodes[i];
    if (node) {
      edit.replace(node.outputs[0], edit.add(first, "slice", [joined], { starts, shape: [...shape] }).outputs[0]);
    }
    at += shape[dim];
  }
}

interface Gradients {
  /** Cotangent of each product, in the group's order. */
  readonly cotangents: readonly Value[];
  /** `contract(dy_i, w_i)`, and the leaves of the sum that adds them. */
  readonly toInput: readonly Node[];
  readonly sum: Node;
  readonly leaves: readonly Value[];
  /** `contract(dy_i, x)` and where each is accumulated. */
  readonly toWeight: readonly Node[];
  readonly sinks: readonly Node[];
}

/** Finds the gradient products of a group, when all are there in the shape that autodiff gives them. */
function gradients(
  members: readonly Node[],
  states: readonly string[],
  made: Map<Value, Node>,
  uses: Map<Value, Node[]>,
  sinks: Map<string, Node[]>,
  dims: string,
): Gradients | undefined {
  const [left, out] = dims.split("->").map((s) => s.trim()), [x, w] = left.split(",").map((s) => s.trim());
  const ends = states.map((s) => sinks.get(`gradient/${s}`) ?? []);
  if (ends.some((e) => e.length !== 1 || e[0].op !== "accumulate")) return;
  const toWeight = ends.map(([e]) => made.get(e.inputs[0])!);
  const fits = toWeight.every((n) =>
    n?.op === "contract" && n.attrs.dims === `${out}, ${x} -> ${w}` && n.inputs[1] === toWeight[0].inputs[1] &&
    uses.get(n.outputs[0])!.length === 1
  );
  if (!fits) return;
  const cotangents = toWeight.map((n) => n.inputs[0]);
  const toInput = cotangents.map((dy, i) =>
    uses.get(dy)!.find((n) =>
      n.op === "contract" && n.inputs[0] === dy && n.inputs[1] === members[i].inputs[1] &&
      n.attrs.dims === `${out}, ${w} -> ${x}`
    )
  );
  if (toInput.some((n) => n === undefined)) return;
  // Climb from one product through single-use sums to the root that holds them all.
  let sum: Node | undefined = toInput[0];
  let leaves: Value[] = [];
  const wanted = toInput.map((n) => n!.outputs[0]);
  while (sum && !wanted.every((v) => leaves.includes(v))) {
    const above: Node[] = uses.get(sum.outputs[0]) ?? [];
    sum = above.length === 1 && above[0].op === "add" ? above[0] : undefined;
    if (sum) leaves = leavesOf(sum, made, uses);
  }
  // A product that is added twice stays as it is.
  if (!sum || leaves.filter((v) => wanted.includes(v)).length !== wanted.length) return;
  return { cotangents, toInput: toInput as Node[], sum, leaves, toWeight, sinks: ends.map(([e]) => e) };
}

function leavesOf(sum: Node, made: Map<Value, Node>, uses: Map<Value, Node[]>): Value[] {
  return sum.inputs.flatMap((v) => {
    const node = made.get(v);
    return node?.op === "add" && uses.get(v)!.length === 1 ? leavesOf(node, made, uses) : [v];
  });
}

function joinGradients(edit: Editor, g: Gradients, dim: number, states: readonly string[]): void {
  const at = g.sum;
  const dy = edit.add(at, "concat", g.cotangents, { dim }).outputs[0];
  const wanted = new Set(g.toInput.map((n) => n.outputs[0]));
  let total = edit.add(at, "contract", [dy, edit.read(at, states)], g.toInput[0].attrs).outputs[0];
  for (const leaf of g.leaves) if (!wanted.has(leaf)) total = edit.add(at, "add", [total, leaf]).outputs[0];
  edit.replace(g.sum.outputs[0], total);
  const dw = edit.add(at, "contract", [dy, g.toWeight[0].inputs[1]], g.toWeight[0].attrs).outputs[0];
  let row = 0;
  g.sinks.forEach((sink, i) => {
    const shape = [...g.toWeight[i].outputs[0].shape];
    const part = edit.add(at, "slice", [dw], { starts: shape.map((_, d) => d === 0 ? row : 0), shape }).outputs[0];
    edit.add(at, "accumulate", [part], sink.attrs);
    edit.drop(sink);
    row += shape[0];
  });
}
