/** Pass `remat`: which forward values are kept for backward, and which are made again there by the nodes that made
 * them: activation checkpointing (Chen et al. 2016). Such a node is there twice, in the phase `remade` too; it computes the same numbers, so
 * gradients keep every bit. What leaves a block is always kept. The _turn_ is where backward begins.
 * @module */
import { Builder, opOf, withInputs } from "../builder.ts";
import { hasEffect } from "../edit.ts";
import { fillOf, isViewOp, stateUse } from "../facts.ts";
import { type Graph, inBackward, type Lookup, type Node, producers, sizeBytes, type Value, withNodes } from "../ir.ts";
import { FlowNetwork } from "../min_cut.ts";
import { flopsOf } from "../op.ts";
import { transfersOf } from "../units.ts";
import { joinedProducts } from "./fuse_products.ts";
import { removeDeadNodes } from "./simplify.ts";

/** What is made again in backward, beside what is nearly free (see {@linkcode leastKept}). The modes are torchtitan's. */
export type RematPolicy =
  /** Nothing, or everything inside of each block. */
  | { readonly mode: "none" | "full" }
  /** Everything inside of every n-th block; or (`op`) all but attention and every other product, where those that run as one (wq,
   * wk, wv) count as one. */
  | { readonly mode: "selective"; readonly option: number | "op" };

/** How many bytes a node may read for each one that it makes, if it is to count as nearly free. */
const MOST_READ = 8;

/** What decisions are made on: a graph as its values are needed in backward. Views are as good as what they show, so all is told
 * of their _root_, the value whose memory they lie on. */
export class Forward {
  /** Nodes before the turn that make values, in order. Not among them: what is there in backward anyway (inputs, constants, state,
   * parameters gathered from other ranks, of which pass `reshard` decides) and views, which are made again with their root. */
  readonly all: readonly Node[];
  /** Those of them that could be made again. */
  readonly nodes: readonly Node[];
  /** Blocks in order of appearance. */
  readonly blocks: readonly string[];
  /** Values that backward reads itself. */
  readonly needed: ReadonlySet<Value>;
  /** Nodes that make what leaves their block. */
  readonly leaving: ReadonlySet<Node>;
  readonly #made: Lookup<Node>;

  constructor(graph: Graph) {
    const made = this.#made = producers(graph), turn = graph.nodes.findIndex(inBackward);
    const first = turn < 0 ? [] : graph.nodes.slice(0, turn), rest = graph.nodes.slice(first.length);
    // What forward needs after the turn (the head, chunk by chunk) is there in any case.
    const stays = new Set<Value | undefined>(graph.outputs.map((o) => this.root(o.value)));
    for (const node of rest) if (!inBackward(node)) node.inputs.forEach((v) => stays.add(this.root(v)));
    const gathers = transfersOf(graph).filter((t) => t.kind === "gather");
    const gathered = new Set(gathers.flatMap((t) => [t.node, ...t.links]));
    const isThere = (n: Node) =>
      isViewOp(n.op) || stateUse(n) === "reads" || fillOf(n) !== undefined || gathered.has(n);
    this.all = first.filter((n) => !isThere(n));
    this.nodes = this.all.filter((n) => !hasEffect(n) && !n.outputs.some((v) => stays.has(v)));
    const isGathered = (v: Value) => gathered.has(made.get(v)!);
    this.needed = new Set(
      rest.filter(inBackward).flatMap((n) => n.inputs.map((v) => this.root(v))).filter((v) => !isGathered(v)),
    );
    const blocks = first.map((n) => n.block).filter((b) => b !== undefined), leaving = new Set<Node>();
    for (const node of first) {
      if (isViewOp(node.op)) continue;
      for (const source of node.inputs.map((v) => made.get(this.root(v)))) {
        if (source && source.block !== node.block) leaving.add(source);
      }
    }
    this.blocks = [...new Set(blocks)];
    this.leaving = leaving;
  }

  /** The value whose memory a view shows; the value itself, where it is none. */
  root(value: Value): Value {
    for (let v = value;;) {
      const node = this.#made.get(v);
      if (!node || !isViewOp(node.op)) return v;
      v = node.inputs[0];
    }
  }

  /** Nodes inside of some blocks: all that could be made again but what leaves the block. */
  inside(blocks: ReadonlySet<string>): Node[] {
    return this.nodes.filter((n) => n.block !== undefined && blocks.has(n.block) && !this.leaving.has(n));
  }

  /** Values that are kept when some nodes are made again: what gradients read, or what is made again. */
  keptWith(remade: ReadonlySet<Node>): Set<Value> {
    const kept = new Set(this.needed);
    for (const node of this.nodes.toReversed()) {
      if (!remade.has(node)) continue;
      if (node.outputs.some((v) => kept.has(v))) node.inputs.forEach((v) => kept.add(this.root(v)));
      node.outputs.forEach((v) => kept.delete(v));
    }
    return kept;
  }
}

/** Is a node nearly free to run: element-wise work, a norm, a cast? What reads much more than it makes is not. */
function isNearlyFree(node: Node): boolean {
  const bytes = (values: readonly Value[]) => values.reduce((sum, v) => sum + sizeBytes(v), 0);
  return opOf(node.op).recompute === "cheap" && bytes(node.outputs) * MOST_READ >= bytes(node.inputs);
}

/** Chooses what is made again among what may be: so that the fewest bytes are kept, and then as little as possible (a minimum cut
 * between what must be kept, if anything needs it, and what backward reads). What is nearly free may always be made again, unless
 * it leaves its block.
 * @param keep nodes whose values are kept in any case. */
export function leastKept(
  forward: Forward,
  allowed: ReadonlySet<Node>,
  keep: ReadonlySet<Node> = new Set(),
): Set<Node> {
  const network = new FlowNetwork(), source = network.node(), sink = network.node();
  /** Where a value is made and where it is read; the edge between is the price of keeping it. */
  const ends = new Map<Value, { made: number; read: number }>();
  const mayRemake = new Set(
    forward.nodes.filter((n) => !keep.has(n) && (allowed.has(n) || isNearlyFree(n) && !forward.leaving.has(n))),
  );
  for (const node of forward.all) {
    for (const value of node.outputs) {
      const made = network.node(), read = network.node();
      ends.set(value, { made, read });
      network.edge(made, read, sizeBytes(value));
      if (forward.needed.has(value)) network.edge(read, sink, Infinity);
      if (!mayRemake.has(node)) network.edge(source, made, Infinity);
      else {for (const root of node.inputs.map((v) => ends.get(forward.root(v)))) {
          if (root) network.edge(root.read, made, Infinity);
        }}
    }
  }
  const behind = network.behindCut(source, sink);
  return new Set([...mayRemake].filter((n) => n.outputs.some((v) => behind.has(ends.get(v)!.made))));
}

/** What the policy allows to make again, beside what is nearly free. */
function allowedBy(graph: Graph, forward: Forward, policy: RematPolicy): Node[] {
  const { mode } = policy, option = mode === "selective" ? policy.option : 1;
  if (mode === "none") return [];
  if (option !== "op") {
    return forward.inside(new Set(forward.blocks.filter((_, i) => (i + 1) % Math.max(1, option) === 0)));
  }
  const products = new Map<string, number>(), first = new Map<Node, Node>();
  for (const nodes of joinedProducts(graph)) nodes.forEach((n) => first.set(n, nodes[0]));
  const isEven = new Map<Node, boolean>();
  return forward.inside(new Set(forward.blocks)).filter((node) => {
    const { recompute } = opOf(node.op), block = node.block!;
    if (recompute !== "matmul") return recompute === "cheap";
    const product = first.get(node) ?? node, count = products.get(block) ?? 0;
    if (!isEven.has(product)) {
      isEven.set(product, count % 2 === 1);
      products.set(block, count + 1);
    }
    return isEven.get(product)!;
  });
}

/** Decides by a policy and rewrites the graph. Its meaning stays the same to the last bit. A graph without a gradient stays as it is. */
export function remat(graph: Graph, policy: RematPolicy = { mode: "none" }): Graph {
  const forward = new Forward(graph);
  return remake(graph, leastKept(forward, new Set(allowedBy(graph, forward, policy))));
}

/** Lets backward make what some forward nodes make again, right before the first of it is read, instead of reading what forward made.
 * @param remade nodes before the turn, without effect; views need not be named. Those that backward does not need are not repeated. */
export function remake(graph: Graph, remade: ReadonlySet<Node>): Graph {
  if (remade.size === 0) return graph;
  const made = producers(graph), position = new Map(graph.nodes.map((n, at) => [n, at]));
  const builder = Builder.beside(graph), nodes: Node[] = [], again = new Map<Value, Value>();
  const isRepeated = new Map<Node, boolean>();
  for (const node of graph.nodes) {
    const source = isViewOp(node.op) ? made.get(node.inputs[0]) : undefined;
    isRepeated.set(node, remade.has(node) || source !== undefined && isRepeated.get(source)!);
  }
  /** Nodes to repeat for a node of backward, in their old order. */
  const missing = (reader: Node): Node[] => {
    const found = new Set<Node>(), stack = [reader];
    for (let node; (node = stack.pop());) {
      for (const v of node.inputs) {
        const source = made.get(v);
        if (!source || !isRepeated.get(source) || again.has(v) || found.has(source)) continue;
        found.add(source);
        stack.push(source);
      }
    }
    return [...found].sort((a, b) => position.get(a)! - position.get(b)!);
  };
  const now = (v: Value): Value => again.get(v) ?? v;
  for (const node of graph.nodes) {
    if (!inBackward(node)) {
      nodes.push(node);
      continue;
    }
    for (const source of missing(node)) {
      const made = builder.emit(source.op, source.inputs.map(now), source.attrs, { ...source, phase: "remade" });
      made.forEach((v, i) => again.set(source.outputs[i], v));
      nodes.push(builder.nodes.at(-1)!);
    }
    nodes.push(node.inputs.some((v) => again.has(v)) ? withInputs(node, node.inputs.map(now)) : node);
  }
  return removeDeadNodes(withNodes(graph, nodes));
}

/** FLOPs of what a graph makes again, and of all else. */
export function recomputedFlops(graph: Graph): { readonly recomputed: number; readonly other: number } {
  const sum = (nodes: readonly Node[]) => nodes.reduce((n, node) => n + flopsOf(opOf(node.op), node), 0);
  const isRemade = (n: Node) => n.phase === "remade";
  return { recomputed: sum(graph.nodes.filter(isRemade)), other: sum(graph.nodes.filter((n) => !isRemade(n))) };
}
