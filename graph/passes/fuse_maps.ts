/** Element-wise chains of reals become `map` nodes: clusters grow along producers, consumers and shared operands, as long as no path
 * leaves a cluster and comes back.
 * @module */
import { opOf } from "../builder.ts";
import { Editor, makerPositions, positionsBefore } from "../edit.ts";
import { fillOf, isElementwise } from "../facts.ts";
import {
  type Attrs,
  type Graph,
  inBackward,
  isReal,
  isStored,
  type Lookup,
  type Node,
  type Origin,
  producers,
  type Value,
  ValueMap,
  wide,
} from "../ir.ts";
import { ownersOf } from "../owners.ts";
import { type MapProgram, type MapStep, programAttr } from "../ops/map.ts";
import type { Target } from "../target/target.ts";

/** How far apart in the graph two parts of a cluster may stand; bounds the search for paths, and the life of values. */
const MAX_DISTANCE = 64;
/** Terms of a sum that may wait for each other, where they are made one after another. */
const MAX_TERMS = 3;

/** What is run at once: a cluster of element-wise nodes, or any other node alone. */
interface Cluster {
  readonly nodes: Node[];
  /** First and last of its nodes in the graph. */
  first: number;
  last: number;
  /** Its position in an order of clusters in which each comes after those that it needs. */
  at: number;
}

const isMappable = (node: Node | undefined): node is Node =>
  node !== undefined && isElementwise(node.op) && isReal(node.outputs[0].dtype);

/** The clusters of a graph. They never need each other in a circle. */
class Clusters {
  readonly #nodes: readonly Node[];
  readonly #needs: ReturnType<typeof positionsBefore>;
  readonly #makers: Int32Array;
  /** The cluster of each node, by its position in the graph. */
  readonly #of: Cluster[];
  readonly #order: (Cluster | undefined)[];
  readonly #owners: ReadonlyMap<Value, string>;

  /** @param maxSteps longest program. */
  constructor(graph: Graph, readonly maxSteps: number) {
    this.#nodes = graph.nodes;
    this.#needs = positionsBefore(graph);
    this.#makers = makerPositions(graph);
    this.#of = graph.nodes.map((node, at): Cluster => ({ nodes: [node], first: at, last: at, at }));
    this.#order = [...this.#of];
    this.#owners = ownersOf(graph);
  }

  of(node: Node): Cluster {
    return this.#of[this.#positionOf(node)];
  }

  /** Is the value made in another cluster than that of a reader, which stands at a position in the graph? */
  leaves(value: Value, reader: number): boolean {
    const maker = this.#makers[value.id];
    return maker >= 0 && this.#of[maker] !== this.#of[reader];
  }

  /** The nodes of a cluster in the order of the graph. */
  inOrder({ nodes }: Cluster): Node[] {
    return nodes.toSorted((a, b) => this.#positionOf(a) - this.#positionOf(b));
  }

  #positionOf({ outputs }: Node): number {
    return this.#makers[outputs[0].id];
  }

  /** Positions of all that the nodes of a cluster wait for. */
  #sources({ nodes, first }: Cluster): readonly number[] {
    return nodes.length === 1 ? this.#needs[first] : nodes.flatMap((n) => this.#needs[this.#positionOf(n)]);
  }

  /** Puts the nodes of `b` into `a`, if both can run at once. */
  join(a: Cluster, b: Cluster): void {
    const [x] = a.nodes, [y] = b.nodes, start = Math.min(a.at, b.at), end = Math.max(a.at, b.at);
    const [u, v] = [x.outputs[0], y.outputs[0]];
    if (wide(u.dtype) !== wide(v.dtype) || String(u.shape) !== String(v.shape)) return;
    if (a.nodes.length + b.nodes.length > this.maxSteps) return;
    // What follows from one parameter alone is there early, and stays apart.
    if (this.#owners.get(u) !== this.#owners.get(v)) return;
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
      a.nodes.push(node);
      this.#of[this.#positionOf(node)] = a;
    }
    a.first = Math.min(a.first, b.first);
    a.last = Math.max(a.last, b.last);
  }

  /** Would the two keep many terms of a sum until the last of them is made, as the gradient of a weight from chunk after chunk? */
  #keepsTerms(a: Cluster, b: Cluster): boolean {
    const isSum = (n: Node) => opOf(n.op).adds === true;
    if (!a.nodes.every(isSum) || !b.nodes.every(isSum)) return false;
    const terms = new Set([...this.#sources(a), ...this.#sources(b)]);
    const others = [...terms].filter((position) => this.#of[position] !== a && this.#of[position] !== b);
    const isWaiting = (position: number) =>
      !isMappable(this.#nodes[position]) && this.#of[position].at > Math.min(a.at, b.at);
    return others.length > MAX_TERMS && others.some(isWaiting);
  }

  /** Clusters from `start` on that `a` or `b` needs; `undefined` where a path leaves the two and comes back. */
  #between(a: Cluster, b: Cluster, start: number): Set<Cluster> | undefined {
    const found = new Set<Cluster>(), stack = [a, b];
    for (let one; (one = stack.pop());) {
      for (const source of this.#sources(one)) {
        const next = this.#of[source], isOwn = next === a || next === b;
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
  const made = producers(graph), clusters = new Clusters(graph, mapSteps);
  const readers = new ValueMap<Node[]>(graph), mappable = graph.nodes.filter(isMappable);
  for (const node of mappable) {
    const sources = node.inputs.map((v) => made.get(v)).filter(isMappable);
    const siblings = node.inputs.flatMap((v) => readers.get(v) ?? []);
    const near = new Set([...sources, ...siblings].map((n) => clusters.of(n)));
    for (const other of [...near].sort((a, b) => b.at - a.at)) clusters.join(clusters.of(node), other);
    for (const v of new Set(node.inputs)) {
      const known = readers.get(v);
      if (known) known.push(node);
      else readers.set(v, [node]);
    }
  }
  const edit = new Editor(graph), stored = new Set(graph.outputs.map((o) => o.value));
  for (const [at, node] of graph.nodes.entries()) {
    for (const v of node.inputs) if (isMappable(made.get(v)) && clusters.leaves(v, at)) stored.add(v);
  }
  for (const cluster of new Set(mappable.map((n) => clusters.of(n)))) {
    emit(edit, clusters.inOrder(cluster), made, stored);
  }
  return edit.finish();
}

/** Makes one node of a cluster; `stored`: values that are needed outside of their clusters. */
function emit(
  edit: Editor,
  nodes: readonly Node[],
  made: Lookup<Node>,
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
      isKept = isCast && !(isStored(node.outputs[0].dtype) && readInside.has(node.outputs[0]));
    if (isKept) registers.set(node.outputs[0], args[0]);
    else {
      registers.set(node.outputs[0], inputs.length + constants.length + steps.length);
      steps.push([isCast ? `round_${node.outputs[0].dtype}` : node.op, ...args]);
    }
  }
  const kept = nodes.map((n) => n.outputs[0]).filter((v) => stored.has(v));
  if (kept.length === 0) return;
  const program: MapProgram = { constants, steps, results: kept.map((v) => registers.get(v)!) };
  const { dtype, shape } = nodes[0].outputs[0];
  const narrow = Map.groupBy([...kept.keys()].filter((i) => isStored(kept[i].dtype)), (i) => kept[i].dtype);
  const attrs: Attrs = {
    program: programAttr(program),
    dtype: wide(dtype),
    shape: [...shape],
    ...Object.fromEntries(narrow),
  };
  const last = nodes.at(-1)!, isOne = nodes.every((n) => n.phase === last.phase);
  const origin: Origin = isOne ? last : { ...last, phase: "backward" };
  const map = edit.add(last, "map", inputs, attrs, origin);
  kept.forEach((v, i) => edit.replace(v, map.outputs[i]));
}
