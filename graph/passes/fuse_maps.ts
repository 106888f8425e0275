/** Element-wise chains of reals become `map` nodes: clusters grow along producers, consumers and shared operands, as long as no path
 * leaves a cluster and comes back.
 * @module */
import { opOf } from "../builder.ts";
import { dependencies, Editor } from "../edit.ts";
import { fillOf, isElementwise } from "../facts.ts";
import {
  type Attrs,
  type Graph,
  inBackward,
  isReal,
  type Node,
  type Origin,
  producers,
  type Value,
  wide,
} from "../ir.ts";
import { type MapProgram, type MapStep, programAttr } from "../ops/map.ts";
import type { Target } from "../target/target.ts";

/** How far apart in the graph two parts of a cluster may stand; bounds the search for paths, and the life of values. */
const MAX_DISTANCE = 64;
/** Terms of a sum that may wait for each other, where they are made one after another. */
const MAX_TERMS = 3;

/** What is run at once: a cluster of element-wise nodes, or any other node alone. */
interface Cluster {
  readonly nodes: Set<Node>;
  /** First and last of its nodes in the graph. */
  first: number;
  last: number;
  /** Its place in an order of clusters in which each comes after those that it needs. */
  at: number;
}

const isMappable = (node: Node | undefined): node is Node =>
  node !== undefined && isElementwise(node.op) && isReal(node.outputs[0].dtype);

/** The clusters of a graph. They never need each other in a circle. */
class Clusters {
  readonly #needs: ReadonlyMap<Node, readonly Node[]>;
  readonly #of: Map<Node, Cluster>;
  readonly #order: (Cluster | undefined)[];

  /** @param maxSteps longest program. */
  constructor(graph: Graph, readonly maxSteps: number) {
    this.#needs = dependencies(graph.nodes);
    const clusters = graph.nodes.map((node, at): Cluster => ({ nodes: new Set([node]), first: at, last: at, at }));
    this.#of = new Map(graph.nodes.map((node, at) => [node, clusters[at]]));
    this.#order = clusters;
  }

  of(node: Node): Cluster {
    return this.#of.get(node)!;
  }

  /** Puts the nodes of `b` into `a`, if both can run at once. */
  join(a: Cluster, b: Cluster): void {
    const [x] = a.nodes, [y] = b.nodes, start = Math.min(a.at, b.at), end = Math.max(a.at, b.at);
    const [u, v] = [x.outputs[0], y.outputs[0]];
    if (wide(u.dtype) !== wide(v.dtype) || String(u.shape) !== String(v.shape)) return;
    if (a.nodes.size + b.nodes.size > this.maxSteps) return;
    // What only backward needs is not made in forward.
    if (inBackward(x) !== inBackward(y) || Math.max(a.last, b.last) - Math.min(a.first, b.first) > MAX_DISTANCE) return;
    if (this.#keepsTerms(a, b)) return;
    const before = this.#between(a, b, start);
    if (!before) return;
    const others = this.#order.slice(start, end + 1).filter((u) => u && u !== a && u !== b) as Cluster[];
    const ordered = [...others.filter((u) => before.has(u)), a, ...others.filter((u) => !before.has(u))];
    for (let at = start; at <= end; at++) {
      const one = this.#order[at] = ordered[at - start];
      if (one) one.at = at;
    }
    for (const node of b.nodes) {
      a.nodes.add(node);
      this.#of.set(node, a);
    }
    a.first = Math.min(a.first, b.first);
    a.last = Math.max(a.last, b.last);
  }

  /** Would the two keep many terms of a sum until the last of them is made, as the gradient of a weight from chunk after chunk? */
  #keepsTerms(a: Cluster, b: Cluster): boolean {
    const nodes = new Set([...a.nodes, ...b.nodes]), terms = new Set([...nodes].flatMap((n) => this.#needs.get(n)!));
    const others = [...terms].filter((n) => !nodes.has(n));
    const isWaiting = (n: Node) => !isMappable(n) && this.of(n).at > Math.min(a.at, b.at);
    return [...nodes].every((n) => opOf(n.op).adds) && others.length > MAX_TERMS && others.some(isWaiting);
  }

  /** Clusters from `start` on that `a` or `b` needs; `undefined` where a path leaves the two and comes back. */
  #between(a: Cluster, b: Cluster, start: number): Set<Cluster> | undefined {
    const found = new Set<Cluster>(), stack = [a, b];
    for (let one; (one = stack.pop());) {
      for (const source of [...one.nodes].flatMap((n) => this.#needs.get(n)!)) {
        const next = this.of(source), isOwn = next === a || next === b;
        if (isOwn && found.has(one)) return;
        if (isOwn || next.at < start || found.has(next)) continue;
        found.add(next);
        stack.push(next);
      }
    }
    return found;
  }
}

/** Replaces every cluster of element-wise nodes by one `map`. */
export function fuseMaps(graph: Graph, { mapSteps }: Target): Graph {
  const made = producers(graph), order = new Map(graph.nodes.map((n, i) => [n, i]));
  const clusters = new Clusters(graph, mapSteps);
  const readers = new Map<Value, Node[]>(), mappable = graph.nodes.filter(isMappable);
  for (const node of mappable) {
    const sources = node.inputs.map((v) => made.get(v)).filter(isMappable);
    const siblings = node.inputs.flatMap((v) => readers.get(v) ?? []);
    const near = new Set([...sources, ...siblings].map((n) => clusters.of(n)));
    for (const other of [...near].sort((a, b) => b.at - a.at)) clusters.join(clusters.of(node), other);
    for (const v of new Set(node.inputs)) readers.set(v, [...readers.get(v) ?? [], node]);
  }
  const edit = new Editor(graph), stored = new Set(graph.outputs.map((o) => o.value));
  for (const node of graph.nodes) {
    for (const v of node.inputs) if (clusters.of(node) !== clusters.of(made.get(v) ?? node)) stored.add(v);
  }
  for (const cluster of new Set(mappable.map((n) => clusters.of(n)))) {
    const nodes = [...cluster.nodes].sort((a, b) => order.get(a)! - order.get(b)!);
    emit(edit, nodes, made, stored);
  }
  return edit.finish();
}

/** Makes one node of a cluster; `stored`: values that are needed outside of their clusters. */
function emit(
  edit: Editor,
  nodes: readonly Node[],
  made: ReadonlyMap<Value, Node>,
  stored: ReadonlySet<Value>,
): void {
  const inside = new Map(nodes.map((n) => [n.outputs[0], n]));
  const outer = new Set(nodes.flatMap((n) => n.inputs).filter((v) => !inside.has(v)));
  const numberOf = (v: Value): number | undefined => fillOf(made.get(v));
  const inputs = [...outer].filter((v) => numberOf(v) === undefined), constants: number[] = [];
  const registers = new Map<Value, number>(inputs.map((v, i) => [v, i]));
  for (const v of outer) {
    const number = numberOf(v);
    if (number === undefined) continue;
    // Object.is tells -0 from 0, and finds NaN.
    let at = constants.findIndex((c) => Object.is(c, number));
    if (at < 0) at = constants.push(number) - 1;
    registers.set(v, inputs.length + at);
  }
  const steps: MapStep[] = [], readInside = new Set(nodes.flatMap((n) => n.inputs));
  for (const node of nodes) {
    const args = node.inputs.map((v) => registers.get(v)!);
    // A load converts by itself, and so does a store; only what is read again here has to be rounded.
    const isCast = opOf(node.op).converts,
      isStored = isCast && !(node.outputs[0].dtype === "bf16" && readInside.has(node.outputs[0]));
    if (isStored) registers.set(node.outputs[0], args[0]);
    else {
      registers.set(node.outputs[0], inputs.length + constants.length + steps.length);
      steps.push([isCast ? "round_bf16" : node.op, ...args]);
    }
  }
  const kept = nodes.map((n) => n.outputs[0]).filter((v) => stored.has(v));
  if (kept.length === 0) return;
  const program: MapProgram = { constants, steps, results: kept.map((v) => registers.get(v)!) };
  const { dtype, shape } = nodes[0].outputs[0], bf16 = [...kept.keys()].filter((i) => kept[i].dtype === "bf16");
  const attrs: Attrs = { program: programAttr(program), dtype: wide(dtype), shape: [...shape] };
  const last = nodes.at(-1)!, isOne = nodes.every((n) => n.phase === last.phase);
  const origin: Origin = isOne ? last : { ...last, phase: "backward" };
  const map = edit.add(last, "map", inputs, bf16.length > 0 ? { ...attrs, bf16 } : attrs, origin);
  kept.forEach((v, i) => edit.replace(v, map.outputs[i]));
}
