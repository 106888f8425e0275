/** Products that share an operand become one: wq, wk, wv (w1, w3) are read as one matrix, for which the memory plan puts the
 * weights one after another; so are their gradients. Weights that other ranks store are gathered right into that matrix.
 * @module */
import { opOf } from "../builder.ts";
import { parseDims } from "../dims.ts";
import { Editor, hasEffect, touchedStates } from "../edit.ts";
import { isGather, isViewOp, stateUse } from "../facts.ts";
import { consumers, type Graph, inBackward, type Lookup, type Node, producers, type Value } from "../ir.ts";
import { str } from "../op.ts";

/** Products `contract(x, w_i)` of one x and parameters, by an einsum whose only free label of w is w's dim 0. */
interface Group {
  readonly members: readonly Node[];
  /** What backward makes again of each. */
  readonly remade: readonly (Node | undefined)[];
  /** The parameters. */
  readonly states: readonly string[];
  /** Output dim that holds the free label. */
  readonly dim: number;
}

/** What a graph tells about its values. */
class Facts {
  readonly made: Lookup<Node>;
  readonly uses: Lookup<readonly Node[]>;
  readonly results: ReadonlySet<Value>;
  /** Nodes that touch each state. */
  readonly touching: ReadonlyMap<string, readonly Node[]>;

  #products: ReadonlyMap<string, readonly Node[]> | undefined;

  constructor(readonly graph: Graph) {
    this.made = producers(graph);
    this.uses = consumers(graph);
    this.results = new Set(graph.outputs.map((o) => o.value));
    const touching = new Map<string, Node[]>();
    for (const n of graph.nodes) for (const s of touchedStates(n)) touching.set(s, [...touching.get(s) ?? [], n]);
    this.touching = touching;
  }

  /** The products whose second operand is a parameter, in an einsum.
   * @param dims as the product has it. */
  productsWith(parameter: string, dims: string): readonly Node[] {
    this.#products ??= Map.groupBy(
      this.graph.nodes.filter((n) => n.op === "contract"),
      (n) => `${this.parameterOf(n.inputs[1])} ${n.attrs.dims}`,
    );
    return this.#products.get(`${parameter} ${dims}`) ?? [];
  }

  usesOf(value: Value): readonly Node[] {
    return this.uses.get(value) ?? [];
  }

  /** The parameter that a value is, as it is stored or gathered. */
  parameterOf(value: Value): string | undefined {
    let node = this.made.get(value);
    while (node && (isGather(node) || opOf(node.op).converts)) node = this.made.get(node.inputs[0]);
    const states = node && stateUse(node) === "reads" ? touchedStates(node) : [];
    return states.length === 1 ? states[0] : undefined;
  }

  /** Do other ranks read a value where it lies? Then it cannot be one of several in the rows of a larger one. */
  isSent(value: Value): boolean {
    return this.usesOf(value).some((n) =>
      opOf(n.op).together !== undefined || isViewOp(n.op) && n.outputs.some((v) => this.isSent(v))
    );
  }

  /** Does a value only go on into sums that nobody else touches: as it is, written in another way, or reduced over ranks? */
  isOnlySummed(value: Value): boolean {
    const ends = (n: Node): boolean =>
      stateUse(n) === "adds"
        ? touchedStates(n).every((s) => this.touching.get(s)!.length === 1)
        : (opOf(n.op).converts || opOf(n.op).together !== undefined) && n.outputs.every((v) => this.isOnlySummed(v));
    return !this.results.has(value) && this.usesOf(value).every(ends);
  }
}

const label = (dims: string, term: number, dim: number): string => {
  const { inputs, outputs } = parseDims(dims);
  return [...inputs, ...outputs][term][dim][0];
};

function findGroups(facts: Facts): Group[] {
  const { graph, made } = facts, byKey = new Map<string, Node[]>(), remade = new Map<string, Node>();
  for (const node of graph.nodes) {
    if (node.op !== "contract") continue;
    const weight = made.get(node.inputs[1]), state = facts.parameterOf(node.inputs[1]);
    if (state === undefined || !weight) continue;
    if (node.phase === "remade") remade.set(state, node);
    if (inBackward(node) || facts.isSent(node.outputs[0])) continue;
    const dims = str(node.attrs.dims), { inputs: [x, w], outputs: [y] } = parseDims(dims);
    const free = w.filter((d) => !x.some((e) => e[0] === d[0]));
    if (free.length !== 1 || free[0] !== w[0] || !y.some((d) => d[0] === w[0][0])) continue;
    const { dtype, shape } = node.inputs[1];
    const key = `${node.inputs[0].id} ${JSON.stringify(node.attrs)} ${weight.op} ${dtype} ${shape.slice(1)}`;
    byKey.set(key, [...byKey.get(key) ?? [], node]);
  }
  const groups: Group[] = [], taken = new Set(graph.nodes.filter(hasEffect).flatMap(touchedStates));
  for (const members of byKey.values()) {
    const states = members.map((n) => facts.parameterOf(n.inputs[1])!);
    if (members.length < 2 || new Set(states).size < states.length || states.some((s) => taken.has(s))) continue;
    states.forEach((s) => taken.add(s));
    const dims = str(members[0].attrs.dims), free = label(dims, 1, 0);
    const dim = parseDims(dims).outputs[0].findIndex((d) => d[0] === free);
    groups.push({ members, remade: states.map((s) => remade.get(s)), states, dim });
  }
  return groups;
}

/** The products of forward that {@linkcode joinProducts} makes one of, in lists. */
export function joinedProducts(graph: Graph): (readonly Node[])[] {
  return findGroups(new Facts(graph)).map((g) => g.members);
}

/** Rewrites each group's products, the sum of their gradients to x, and their weights' gradients. */
export function joinProducts(graph: Graph): Graph {
  const facts = new Facts(graph), edit = new Editor(graph);
  for (const group of findGroups(facts)) {
    const weights = new Weights(edit, facts, group), backward = gradients(group, facts);
    joinMembers(edit, group, group.members, weights);
    // What is made again is made by the same product, so that it has the same bits.
    joinMembers(edit, group, group.remade, weights);
    if (backward) joinGradients(edit, backward, weights);
  }
  return edit.finish();
}

/** The weights of a group as one matrix: read as one, or gathered into one, which forward and backward each do if backward gathers
 * again. */
class Weights {
  readonly #gathered = new Map<string, Value>();

  constructor(readonly edit: Editor, readonly facts: Facts, readonly group: Group) {}

  /** @param nodes for each member a product with its weight; without one, it takes the weight of forward. */
  joined(at: Node, nodes: readonly (Node | undefined)[]): Value {
    const { members, states } = this.group;
    const weights = members.map((member, i) => (nodes[i] ?? member).inputs[1]);
    if (stateUse(this.facts.made.get(weights[0])) === "reads") return this.edit.read(at, states);
    const key = String(weights.map((w) => w.id));
    if (!this.#gathered.has(key)) this.#gathered.set(key, this.edit.add(at, "concat", weights, { dim: 0 }).outputs[0]);
    return this.#gathered.get(key)!;
  }
}

function joinMembers(
  edit: Editor,
  { members, dim }: Group,
  nodes: readonly (Node | undefined)[],
  weights: Weights,
): void {
  const first = nodes.find((n) => n !== undefined);
  if (!first) return;
  const joined = edit.add(first, "contract", [first.inputs[0], weights.joined(first, nodes)], first.attrs).outputs[0];
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
  /** `contract(dy_i, x)`. */
  readonly toWeight: readonly Node[];
}

/** Finds the gradient products of a group, when all are there in the shape that autodiff gives them. */
function gradients({ members, states }: Group, facts: Facts): Gradients | undefined {
  const [left, out] = str(members[0].attrs.dims).split("->").map((s) => s.trim());
  const [x, w] = left.split(",").map((s) => s.trim());
  const toInput = states.map((s) => facts.productsWith(s, `${out}, ${w} -> ${x}`));
  if (toInput.some((list) => list.length !== 1)) return;
  const cotangents = toInput.map(([n]) => n.inputs[0]);
  const toWeight = cotangents.map((dy) =>
    facts.usesOf(dy).filter((n) => n.op === "contract" && n.inputs[0] === dy && n.attrs.dims === `${out}, ${x} -> ${w}`)
  );
  if (toWeight.some((list) => list.length !== 1)) return;
  const [first] = toWeight[0],
    fits = toWeight.every(([n]) => n.inputs[1] === first.inputs[1] && facts.isOnlySummed(n.outputs[0]));
  if (!fits || new Set(cotangents).size < cotangents.length) return;
  // Climb from one product through single-use sums to the root that holds them all.
  let sum: Node | undefined = toInput[0][0], leaves: Value[] = [];
  const wanted = toInput.map(([n]) => n.outputs[0]);
  while (sum && !wanted.every((v) => leaves.includes(v))) {
    const above: readonly Node[] = facts.usesOf(sum.outputs[0]);
    sum = above.length === 1 && opOf(above[0].op).adds ? above[0] : undefined;
    if (sum) leaves = leavesOf(sum, facts);
  }
  // A product that is added twice stays as it is.
  if (!sum || leaves.filter((v) => wanted.includes(v)).length !== wanted.length) return;
  return { cotangents, toInput: toInput.flat(), sum, leaves, toWeight: toWeight.flat() };
}

function leavesOf(sum: Node, facts: Facts): Value[] {
  return sum.inputs.flatMap((v) => {
    const node = facts.made.get(v);
    return node && opOf(node.op).adds && facts.usesOf(v).length === 1 ? leavesOf(node, facts) : [v];
  });
}

function joinGradients(edit: Editor, g: Gradients, weights: Weights): void {
  const at = g.sum;
  const dy = edit.add(at, "concat", g.cotangents, { dim: weights.group.dim }).outputs[0];
  const wanted = new Set(g.toInput.map((n) => n.outputs[0]));
  let total = edit.add(at, "contract", [dy, weights.joined(at, g.toInput)], g.toInput[0].attrs).outputs[0];
  for (const leaf of g.leaves) if (!wanted.has(leaf)) total = edit.add(at, "add", [total, leaf]).outputs[0];
  edit.replace(g.sum.outputs[0], total);
  let dw = edit.add(at, "contract", [dy, g.toWeight[0].inputs[1]], g.toWeight[0].attrs).outputs[0];
  let parts = g.toWeight.map((n) => n.outputs[0]);
  // Where all are rounded, so is the whole: its kernel will do that.
  const casts = parts.flatMap((v) => weights.facts.usesOf(v).filter((n) => opOf(n.op).converts));
  if (
    new Set(casts.map((n) => n.outputs[0].dtype)).size === 1 && casts.length === parts.length &&
    parts.every((v) => weights.facts.usesOf(v).length === 1)
  ) {
    dw = edit.add(at, "cast", [dw], casts[0].attrs).outputs[0];
    parts = casts.map((n) => n.outputs[0]);
  }
  let row = 0;
  for (const part of parts) {
    const starts = part.shape.map((_, d) => d === 0 ? row : 0);
    edit.replace(part, edit.add(at, "slice", [dw], { starts, shape: [...part.shape] }).outputs[0]);
    row += part.shape[0];
  }
}
