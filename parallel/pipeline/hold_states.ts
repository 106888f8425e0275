/** The graphs of a step that are about parameters (`initialize`, `update`) and sums (`evaluate_result`), on the ranks of some stages: what
 * belongs to others is left out, and what all need is reduced over `pp`: sums over all parameters, sums of losses, and the gradients of
 * parameters that several ranks have, such as an embedding that is the output layer too.
 * @module */
import { Builder, opOf } from "../../graph/builder.ts";
import { touchedStates } from "../../graph/edit.ts";
import { stateUse } from "../../graph/facts.ts";
import { type Graph, type State, type Value, withNodes } from "../../graph/ir.ts";
import { removeDeadNodes } from "../../graph/passes/simplify.ts";

/** Which ranks along `pp` have a state, in order. */
export type Holders = (state: State) => readonly number[];

/** The graph as the ranks at one place along `pp` run it.
 * @param graph a graph of all ranks. @param options `at`: their place; `size`: ranks along `pp`; `axes`: what `pp` is called in the graph. */
export function holdStates(
  graph: Graph,
  { holders, at, size, axes = ["pp"], parts = [] }: {
    readonly holders: Holders;
    /** Sums of gradients that stages of this rank have beside those of the graph, as each rank has them. */
    readonly parts?: readonly State[];
    readonly at: number;
    readonly size: number;
    readonly axes?: readonly string[];
  },
): Graph {
  const builder = Builder.extend({ ...graph, nodes: [], outputs: [], activations: [] });
  const states = new Map(graph.states.map((s) => [s.name, s])), now = new Map<Value, Value | undefined>();
  /** Values that several ranks have alike: a sum over all ranks takes the first one's. */
  const counted = new Map<Value, boolean>();
  const current = (v: Value): Value | undefined => now.has(v) ? now.get(v) : v;
  const sum = (value: Value, among?: readonly number[]): Value =>
    builder.emit("all_reduce", [value], {
      axes,
      size: among?.length ?? size,
      by: "sum",
      ...among && among.length < size ? { among } : {},
    })[0];
  const zero = ({ dtype, shape }: Value) => builder.emit("constant", [], { value: 0, dtype, shape })[0];
  for (const node of graph.nodes) {
    builder.origin = node;
    const inputs = node.inputs.map(current), [name] = touchedStates(node), state = name && states.get(name);
    const own = state ? holders(state) : [at], isHere = own.includes(at), [y] = node.outputs;
    if (state && stateUse(node) === "reads") {
      if (state.kind === "sum") {
        now.set(y, sum(isHere ? builder.read(name) : zero(y)));
      } else if (isHere) {
        const value = parts.filter((part) => part.kind === state.kind && part.of === state.of).reduce((all, part) => {
          builder.declare(part);
          return builder.emit("add", [all, builder.read(part.name)])[0];
        }, builder.read(name));
        now.set(y, state.kind === "gradient" && own.length > 1 ? sum(value, own) : value);
        counted.set(y, own[0] === at);
      } else now.set(y, undefined);
      continue;
    }
    if (opOf(node.op).split?.additive) {
      const some = node.inputs.filter((v) => current(v) && counted.get(v) !== false).map((v) => current(v)!);
      now.set(y, sum(some.length > 0 ? builder.emit(node.op, some, node.attrs)[0] : zero(y)));
      continue;
    }
    if (!isHere || inputs.includes(undefined)) {
      node.outputs.forEach((v) => now.set(v, undefined));
      continue;
    }
    builder.emit(node.op, inputs as Value[], node.attrs).forEach((v, i) => now.set(node.outputs[i], v));
    // What is made of one value is counted as that is.
    const of = node.inputs.map((v) => counted.get(v)).find((c) => c !== undefined);
    if (of !== undefined) node.outputs.forEach((v) => counted.set(v, of));
  }
  const made = withNodes({ ...graph, activations: [] }, builder.nodes, (v) => current(v)!);
  const held = [
    ...graph.states.filter((s) => holders(s).includes(at)),
    ...parts.filter((p) => builder.states.has(p.name)),
  ];
  return removeDeadNodes({ ...made, states: held });
}
