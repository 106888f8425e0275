/** Editing a copy of a graph: replace values, add and drop nodes anywhere; `finish` puts the nodes in order again, drops what
 * nothing needs, and leaves the original untouched. Passes that match patterns are written on it.
 * @module */
import { Builder, opOf, withInputs } from "./builder.ts";
import { type Attrs, type Graph, type Node, type Origin, producers, type State, type Value, withNodes } from "./ir.ts";

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

/** What each node waits for: the nodes that make its inputs, and those that touch its states before it does. */
export function dependencies(nodes: readonly Node[]): Map<Node, readonly Node[]> {
  const made = producers({ nodes }), lastWrite = new Map<string, Node>();
  const readsSince = new Map<string, Node[]>(), before = new Map<Node, Node[]>();
  for (const node of nodes) {
    const needs: Node[] = [];
    for (const value of node.inputs) {
      const maker = made.get(value);
      if (maker) needs.push(maker);
    }
    for (const state of touchedStates(node)) {
      const write = lastWrite.get(state), reads = readsSince.get(state) ?? [];
      if (write) needs.push(write);
      if (hasEffect(node)) {
        needs.push(...reads);
        lastWrite.set(state, node);
        readsSince.set(state, []);
      } else readsSince.set(state, [...reads, node]);
    }
    before.set(node, needs);
  }
  return before;
}

/** Nodes in an order in which each comes after what it waits for, its {@linkcode dependencies} unless others are given; otherwise as
 * they stand.
 * @throws {Error} when a node needs itself. */
export function inOrder(
  nodes: readonly Node[],
  before: ReadonlyMap<Node, readonly Node[]> = dependencies(nodes),
): Node[] {
  const order: Node[] = [], done = new Set<Node>(), open = new Set<Node>();
  for (const root of nodes) {
    if (done.has(root)) continue;
    if (before.get(root)!.every((node) => done.has(node))) {
      order.push(root);
      done.add(root);
      continue;
    }
    // Depth-first without recursion: a chain may be as long as the graph.
    const stack = [{ node: root, next: 0 }];
    while (stack.length > 0) {
      const top = stack.at(-1)!, { node } = top, needs = before.get(node)!;
      if (done.has(node)) top.next = needs.length;
      while (top.next < needs.length && done.has(needs[top.next])) top.next++;
      const next = needs[top.next];
      if (next) {
        open.add(node);
        if (open.has(next)) throw new Error(`Cannot order nodes: "${next.op}" needs itself`);
        stack.push({ node: next, next: 0 });
      } else {
        stack.pop();
        if (!done.has(node)) order.push(node);
        done.add(node);
      }
    }
  }
  return order;
}

/** A graph under edit. */
export class Editor {
  readonly nodes: Set<Node>;
  readonly #builder: Builder;
  readonly #graph: Graph;
  readonly #replaced = new Map<Value, Value>();
  /** Nodes to be put in front of a node: where a new node stands if nothing forces it elsewhere. */
  readonly #position = new Map<Node, Node>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#builder = Builder.extend(graph);
    this.nodes = new Set(graph.nodes);
  }

  /** Declares a state that new nodes touch. */
  declare(state: State): void {
    this.#builder.declare(state);
  }

  /** Makes a node that stands where `at` stands (or later, once its inputs are made), and comes from where that does. */
  add(at: Node, op: string, inputs: readonly Value[], attrs: Attrs = {}, origin: Origin = at): Node {
    this.#builder.emit(op, inputs.map((v) => this.current(v)), attrs, origin);
    const node = this.#builder.nodes.at(-1)!;
    this.nodes.add(node);
    this.#position.set(node, this.#position.get(at) ?? at);
    return node;
  }

  /** Lets a new node stand where `at` stands instead (or later, once its inputs are made). */
  move(node: Node, at: Node): void {
    this.#position.set(node, this.#position.get(at) ?? at);
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
    this.nodes.delete(node);
  }

  /** What a value of the original graph is now. */
  current(value: Value): Value {
    let now = value;
    for (let next; (next = this.#replaced.get(now)); now = next);
    return now;
  }

  /** The edited graph; the original where nothing was edited. */
  finish(): Graph {
    const isSame = this.#position.size === 0 && this.#replaced.size === 0 &&
      this.nodes.size === this.#graph.nodes.length;
    if (isSame && this.#builder.states.size === this.#graph.states.length) return this.#graph;
    const behind = new Map<Node, Node[]>();
    for (const [node, at] of this.#position) behind.set(at, [...behind.get(at) ?? [], node]);
    const placed = this.#graph.nodes.flatMap((n) => [...behind.get(n) ?? [], n]).filter((n) => this.nodes.has(n));
    const current = placed.map((node) => {
      const inputs = node.inputs.map((v) => this.current(v));
      return inputs.every((v, i) => v === node.inputs[i]) ? node : withInputs(node, inputs);
    });
    const ordered = inOrder(current);
    const live = new Set(this.#graph.outputs.map((o) => this.current(o.value)));
    const kept = ordered.toReversed().filter((node) => {
      if (!hasEffect(node) && !node.outputs.some((v) => live.has(v))) return false;
      node.inputs.forEach((v) => live.add(v));
      return true;
    }).reverse();
    const edited = withNodes(this.#graph, kept, (v) => this.current(v));
    const { states } = this.#builder;
    return states.size === edited.states.length ? edited : { ...edited, states: [...states.values()] };
  }
}
