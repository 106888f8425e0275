/** Editing a graph: replace values, add and drop nodes anywhere; `finish` puts the nodes in order again, drops what
 * nothing needs, and leaves the original untouched. Passes that match patterns are written on it.
 * @module */
import { Builder, opOf, withInputs } from "./builder.ts";
import {
  type Attrs,
  type Graph,
  idCount,
  type Node,
  type Origin,
  remembered,
  type State,
  type Value,
  ValueMap,
  withNodes,
} from "./ir.ts";

/** States that a node touches. */
export function touchedStates(node: Node): readonly string[] {
  return (node.attrs.states ?? node.attrs.into ?? []) as readonly string[];
}

/** Does the node change state, or do other ranks wait for it? In the graph of one rank a collective is done even where this rank has no
 * use for what it gives: the others have. */
export function hasEffect(node: Node): boolean {
  const { effect, together } = opOf(node.op);
  return effect === true || node.attrs.into !== undefined || (together !== undefined && node.attrs.group !== undefined);
}

/** The position in the graph of the node that makes each value, by the value's number; -1 for inputs. */
export const makerPositions: (graph: Pick<Graph, "nodes">) => Int32Array = remembered(({ nodes }) => {
  const positions = new Int32Array(idCount({ nodes })).fill(-1);
  for (let at = 0; at < nodes.length; at++) for (const value of nodes[at].outputs) positions[value.id] = at;
  return positions;
});

/** What each node waits for, by its position in the graph: the positions of the nodes that make its inputs, and of those that touch its
 * states before it does. */
export const positionsBefore: (graph: Pick<Graph, "nodes">) => readonly (readonly number[])[] = remembered(
  ({ nodes }) => {
    const maker = makerPositions({ nodes }), lastWrite = new Map<string, number>();
    const readsSince = new Map<string, number[]>();
    return nodes.map((node, at) => {
      const before: number[] = [];
      for (const value of node.inputs) if (maker[value.id] >= 0) before.push(maker[value.id]);
      for (const state of touchedStates(node)) {
        const write = lastWrite.get(state), reads = readsSince.get(state);
        if (write !== undefined) before.push(write);
        if (hasEffect(node)) {
          for (const read of reads ?? []) before.push(read); // too many for the arguments of one call
          lastWrite.set(state, at);
          readsSince.delete(state);
        } else if (reads) reads.push(at);
        else readsSince.set(state, [at]);
      }
      return before;
    });
  },
);

/** What each node waits for: the nodes that make its inputs, and those that touch its states before it does. */
export function dependencies({ nodes }: Pick<Graph, "nodes">): Map<Node, readonly Node[]> {
  const before = positionsBefore({ nodes });
  return new Map(nodes.map((node, at) => [node, before[at].map((position) => nodes[position])]));
}

/** Nodes in an order in which each comes after what it waits for, its {@linkcode dependencies} unless others are given; otherwise as
 * they stand.
 * @throws {Error} when a node needs itself. */
export function inOrder(nodes: readonly Node[], before?: ReadonlyMap<Node, readonly Node[]>): readonly Node[] {
  if (!before && isInOrder(nodes)) return nodes;
  const waits: readonly (readonly number[])[] = before ? positionsOf(nodes, before) : positionsBefore({ nodes });
  const order: Node[] = [], done = new Uint8Array(nodes.length), open = new Uint8Array(nodes.length);
  /** How many nodes that a node waits for are done already, from the first. */
  const next = new Int32Array(nodes.length);
  for (let root = 0; root < nodes.length; root++) {
    // Depth-first without recursion: a chain may be as long as the graph.
    const stack = done[root] ? [] : [root];
    while (stack.length > 0) {
      const at = stack[stack.length - 1], needs = waits[at];
      while (next[at] < needs.length && done[needs[next[at]]]) next[at]++;
      if (next[at] < needs.length) {
        const first = needs[next[at]];
        open[at] = 1;
        if (open[first]) throw new Error(`Cannot order nodes: "${nodes[at].op}" needs itself`);
        stack.push(first);
      } else {
        stack.pop();
        order.push(nodes[at]);
        done[at] = 1;
      }
    }
  }
  return order;
}

/** Does each node come after those that make its inputs? It comes after those that touched its states before in any case. */
function isInOrder(nodes: readonly Node[]): boolean {
  const maker = makerPositions({ nodes });
  return nodes.every(({ inputs }, at) => inputs.every((v) => !(maker[v.id] >= at)));
}

function positionsOf(nodes: readonly Node[], before: ReadonlyMap<Node, readonly Node[]>): number[][] {
  const position = new Map(nodes.map((n, at) => [n, at]));
  return nodes.map((n) => before.get(n)!.map((b) => position.get(b)!));
}

/** The nodes that some effect or one of these results needs. */
export function withoutDead(nodes: readonly Node[], results: readonly Value[]): Node[] {
  const live = new ValueMap<true>({ nodes }), kept: Node[] = [];
  for (const value of results) live.set(value, true);
  for (let at = nodes.length - 1; at >= 0; at--) {
    const node = nodes[at];
    if (!hasEffect(node) && !node.outputs.some((v) => live.has(v))) continue;
    for (const v of node.inputs) live.set(v, true);
    kept.push(node);
  }
  return kept.reverse();
}

/** A graph under edit. */
export class Editor {
  readonly #builder: Builder;
  readonly #graph: Graph;
  readonly #dropped = new Set<Node>();
  readonly #replaced = new Map<Value, Value>();
  /** Nodes to be put in front of a node: where a new node stands if nothing forces it elsewhere. */
  readonly #anchors = new Map<Node, Node>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#builder = Builder.beside(graph);
  }

  /** Declares a state that new nodes touch. */
  declare(state: State): void {
    this.#builder.declare(state);
  }

  /** Makes a node that stands where `at` stands (or later, once its inputs are made), and comes from where that does. */
  add(at: Node, op: string, inputs: readonly Value[], attrs: Attrs = {}, origin: Origin = at): Node {
    this.#builder.emit(op, inputs.map((v) => this.current(v)), attrs, origin);
    const node = this.#builder.nodes.at(-1)!;
    this.#anchors.set(node, this.#anchors.get(at) ?? at);
    return node;
  }

  /** Lets a new node stand where `at` stands instead (or later, once its inputs are made). */
  move(node: Node, at: Node): void {
    this.#anchors.set(node, this.#anchors.get(at) ?? at);
  }

  /** Reads states; see {@linkcode Builder.read}. */
  read(at: Node, names: readonly string[]): Value {
    const states = names.map((n) => this.#builder.states.get(n)!);
    const shape = [states.reduce((n, s) => n + s.shape[0], 0), ...states[0].shape.slice(1)];
    return this.add(at, "read", [], { states: [...names], dtype: states[0].dtype, shape }).outputs[0];
  }

  /** From now on `to` stands wherever `from` stood. */
  replace(from: Value, to: Value): void {
    this.#replaced.set(from, to);
  }

  /** Drops a node. */
  drop(node: Node): void {
    this.#dropped.add(node);
  }

  /** What a value of the original graph is now. */
  current(value: Value): Value {
    let now = value;
    for (let next; (next = this.#replaced.get(now)); now = next);
    return now;
  }

  /** A node on what its operands are now. */
  #current(node: Node): Node {
    const { inputs } = node;
    for (let i = 0; i < inputs.length; i++) {
      if (this.#replaced.has(inputs[i])) return withInputs(node, inputs.map((v) => this.current(v)));
    }
    return node;
  }

  /** The edited graph; the original where nothing was edited. */
  finish(): Graph {
    const isSame = this.#anchors.size === 0 && this.#replaced.size === 0 && this.#dropped.size === 0;
    if (isSame && this.#builder.states.size === this.#graph.states.length) return this.#graph;
    const behind = new Map<Node, Node[]>(), placed: Node[] = [];
    for (const [node, at] of this.#anchors) {
      const nodes = behind.get(at);
      if (nodes) nodes.push(node);
      else behind.set(at, [node]);
    }
    const place = (node: Node) => {
      if (!this.#dropped.has(node)) placed.push(this.#current(node));
    };
    for (const node of this.#graph.nodes) {
      behind.get(node)?.forEach(place);
      place(node);
    }
    const outputs = this.#graph.outputs.map((o) => this.current(o.value));
    const kept = withoutDead(inOrder(placed), outputs);
    const edited = withNodes(this.#graph, kept, (v) => this.current(v));
    const { states } = this.#builder;
    return states.size === edited.states.length ? edited : { ...edited, states: [...states.values()] };
  }
}
