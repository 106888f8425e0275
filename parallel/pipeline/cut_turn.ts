/** Cuts the graph of a stage where backward begins into what runs when: its forward, and its backward, perhaps in two, the gradients of
 * what it was given and those of its parameters. What one part makes for another is kept in states of the stage's slot, and what is gathered
 * once a step in states that all microbatches share. It is done last,
 * to a graph as it will run: so what is fused, made again or gathered is what it would be without stages.
 * @module */
import { Builder, opOf, withInputs } from "../../graph/builder.ts";
import { dependencies, touchedStates } from "../../graph/edit.ts";
import { fillOf, isViewOp, stateUse } from "../../graph/facts.ts";
import { type Graph, type Node, producers, type State, type StateKind, type Value } from "../../graph/ir.ts";
import type { Section } from "./rank_actions.ts";

/** The graph of each part, in the order in which a microbatch goes through them; all share the values of the stage's graph. */
export type StageSections = Readonly<Partial<Record<Section, Graph>>>;

/** Cuts a stage's graph.
 *
 * - All of forward is forward. So is what needs no gradient of a block: on the last stage the head's, which is made chunk by chunk.
 * - The rest is backward. Cut in two (`halves`), what the gradient for the stage before depends on comes first (`backward_input`); what is
 *   left makes gradients of parameters (`backward_weight`). The first stage gives no gradient to anybody: all of its backward is left.
 * @throws {Error} when a sum that one part begins is added to by one before it. */
export function cutTurn(graph: Graph, { halves }: { readonly halves: boolean }): StageSections {
  if (graph.slot === undefined) throw new Error(`Cannot cut graph "${graph.name}" at its turn: it is not of a stage`);
  const hasBackward = graph.nodes.some((n) => n.phase !== "forward");
  const names: readonly Section[] = !hasBackward
    ? ["forward"]
    : halves
    ? ["forward", "backward_input", "backward_weight"]
    : ["forward", "backward"];
  const kinds: Kinds = new Map(graph.states.map((s) => [s.name, s.kind]));
  const part = partsOf(graph, halves, kinds), made = producers(graph), kept = new Map<Value, State>();
  const free = new Map(graph.nodes.map((n) => [n, isFree(n, kinds)]));
  /** By part: what it reads that an earlier one makes. */
  const reads = names.map(() => new Set<Value>()), uses = names.map(() => new Set<Node>());
  const use = (value: Value, at: number): void => {
    const node = made.get(value);
    if (!node) return;
    if (free.get(node)) {
      if (uses[at].has(node)) return;
      uses[at].add(node);
      node.inputs.forEach((v) => use(v, at));
    } else if (part.get(node)! < at) {
      reads[at].add(value);
      if (!kept.has(value)) kept.set(value, keptState(graph.slot!, value, kept.size, isGatheredOnce(value, made)));
    } else if (part.get(node)! > at) throw new Error(`Part ${at} of "${graph.name}" needs %${value.id} of a later one`);
  };
  for (const node of graph.nodes) if (!free.get(node)) node.inputs.forEach((v) => use(v, part.get(node)!));
  for (const { value } of graph.outputs) use(value, part.get(made.get(value)!) ?? 0);
  const states = [...graph.states, ...kept.values()];
  return Object.fromEntries(names.map((name, at): [Section, Graph] => {
    const builder = Builder.extend({ ...graph, states }), now = new Map<Value, Value>(), nodes: Node[] = [];
    /** What the builder makes comes from where a value's maker does. */
    const make = (value: Value, body: () => void) => {
      builder.origin = { scope: "", phase: made.get(value)!.phase };
      body();
      nodes.push(builder.nodes.at(-1)!);
    };
    for (const value of reads[at]) make(value, () => now.set(value, builder.read(kept.get(value)!.name)));
    for (const node of graph.nodes) {
      if (free.get(node) ? !uses[at].has(node) : part.get(node) !== at) continue;
      nodes.push(
        node.inputs.some((v) => now.has(v)) ? withInputs(node, node.inputs.map((v) => now.get(v) ?? v)) : node,
      );
      if (free.get(node)) continue;
      for (const value of node.outputs) {
        const state = kept.get(value);
        if (state) make(value, () => builder.assign(state.name, value));
      }
    }
    return [name, sectionOf({ ...graph, states }, name, nodes)];
  }));
}

/** The kinds of states, by name. */
type Kinds = ReadonlyMap<string, StateKind>;

/** The part that each node runs in. */
function partsOf(graph: Graph, halves: boolean, kinds: Kinds): Map<Node, number> {
  const before = dependencies(graph), part = new Map<Node, number>();
  for (const node of graph.nodes) {
    // Gradients from the stage behind come with the first node of backward.
    const comesLate = stateUse(node) === "reads" && node.phase !== "forward" && isActivation(node, kinds);
    const early = !comesLate && (node.phase === "forward" ||
      node.phase === "backward" && node.block === undefined && before.get(node)!.every((n) => part.get(n) === 0));
    part.set(node, early ? 0 : 1);
  }
  if (!halves) return part;
  const needed = new Set<Node>();
  for (const node of graph.nodes.toReversed()) {
    if (part.get(node) === 0) continue;
    const gives = stateUse(node) === "replaces" && isActivation(node, kinds);
    if (!gives && !needed.has(node)) part.set(node, 2);
    else before.get(node)!.forEach((n) => needed.add(n));
  }
  return part;
}

/** Is it made again by each part that uses it, as there is nothing to run: a view, a constant, a read of what no part changes? */
function isFree(node: Node, kinds: Kinds): boolean {
  if (stateUse(node) !== "reads") return isViewOp(node.op) || fillOf(node) !== undefined;
  return touchedStates(node).map((name) => kinds.get(name)).every((kind) =>
    kind === "parameter" || kind === "activation"
  );
}

function isActivation(node: Node, kinds: Kinds): boolean {
  return kinds.get(touchedStates(node)[0]) === "activation";
}

const keptState = (slot: string, { dtype, shape }: Value, i: number, once: boolean): State => ({
  name: `${slot}/kept.${i}`,
  ...once ? { kind: "gathered" } : { kind: "activation", of: slot },
  dtype,
  shape,
});

/** Is a value made by a step's first microbatch for all of them? */
function isGatheredOnce(value: Value, made: ReturnType<typeof producers>): boolean {
  const { op, attrs, inputs } = made.get(value)!;
  return attrs.first === true || opOf(op).joins === true && inputs.every((v) => isGatheredOnce(v, made));
}

/** The graph of a part: with the states and results that its nodes have to do with, and all inputs, so that those of all parts lie alike. */
function sectionOf(graph: Graph, name: Section, nodes: readonly Node[]): Graph {
  const own = new Set(nodes.flatMap((n) => n.outputs));
  const touched = new Set(nodes.flatMap((n) => touchedStates(n)));
  for (const { name, of } of graph.states) if (of !== undefined && touched.has(name)) touched.add(of);
  return {
    ...graph,
    name: `${name} of ${graph.name}`,
    states: graph.states.filter((s) => touched.has(s.name)),
    nodes,
    outputs: graph.outputs.filter((o) => own.has(o.value)),
    activations: [],
  };
}
