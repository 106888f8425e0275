/** Pass `autodiff`: appends the gradient of one scalar to the graph, in reverse order, from each op's vjp.
 * @module */
import { Builder, opOf } from "../builder.ts";
import { gradientName, gradientOf, type Graph, isReal, type Node, type Value } from "../ir.ts";
import { nodeText } from "../print.ts";
import { constant, Tensor } from "../tensor.ts";

/** What to differentiate. */
export interface AutodiffOptions {
  /** Name of the scalar output. */
  readonly of: string;
  /** Cotangent of that output; default 1. A loss that is a sum over tokens is scaled by 1 / (global batch x seq_len). */
  readonly seed?: number;
  /** States whose gradients are accumulated into `gradient/NAME`. */
  readonly states?: readonly string[];
  /** Inputs whose gradients become outputs `gradient/NAME`. */
  readonly inputs?: readonly string[];
  /** Are the outputs of the forward graph kept? Default true. */
  readonly keep?: boolean;
}

/** The forward graph, then its gradient. A node's vjp is asked once, when all cotangents of its outputs are known.
 * @throws {TypeError} when the output is not a real scalar, or an op on the way has no vjp. */
export function autodiff(forward: Graph, options: AutodiffOptions): Graph {
  const { of, seed = 1, states = [], inputs = [], keep = true } = options;
  const loss = forward.outputs.find((o) => o.name === of)?.value;
  if (!loss || loss.shape.length > 0 || !isReal(loss.dtype)) {
    throw new TypeError(`Cannot differentiate graph "${forward.name}": expected a real scalar output "${of}"`);
  }
  const builder = Builder.extend(forward);
  if (!keep) builder.outputs.length = 0;
  const active = activeValues(forward, new Set(states), new Set(inputs));
  const cotangents = new Map<Value, Tensor>();
  const send = (value: Value, part: Tensor | undefined): void => {
    if (!part || !active.has(value)) return;
    const sum = cotangents.get(value);
    cotangents.set(value, sum ? sum.add(part) : part);
  };
  // Constants do not begin backward: they may stand anywhere.
  const { origin } = builder;
  send(loss, constant(builder, seed, { dtype: loss.dtype, shape: [] }));
  const begun = new Set<string>();
  for (const node of forward.nodes.toReversed()) {
    const parts = node.outputs.map((v) => cotangents.get(v));
    if (parts.every((p) => p === undefined)) continue;
    builder.origin = { ...node, phase: "backward" };
    if (node.op === "read") accumulate(builder, node, parts[0]!, begun);
    else vjpOf(builder, node, parts).forEach((part, i) => send(node.inputs[i], part));
  }
  builder.origin = origin;
  for (const name of inputs) {
    const value = forward.inputs.find((i) => i.name === name)!.value;
    if (!isReal(value.dtype)) continue;
    const gradient = cotangents.get(value) ?? constant(builder, 0, value);
    builder.output(gradientName(name), gradient.value);
  }
  return builder.finish();
}

/** Values that depend on what is differentiated: only through them do cotangents flow. */
function activeValues(graph: Graph, states: ReadonlySet<string>, inputs: ReadonlySet<string>): Set<Value> {
  const active = new Set(graph.inputs.filter((i) => inputs.has(i.name) && isReal(i.value.dtype)).map((i) => i.value));
  for (const node of graph.nodes) {
    const source = node.op === "read" && (node.attrs.states as string[]).some((s) => states.has(s));
    if (source || node.inputs.some((v) => active.has(v))) node.outputs.forEach((v) => active.add(v));
  }
  return active;
}

function vjpOf(builder: Builder, node: Node, cotangents: (Tensor | undefined)[]): (Tensor | undefined)[] {
  const { vjp } = opOf(node.op);
  if (!vjp) throw new TypeError(`Cannot differentiate ${nodeText(node)}: op "${node.op}" has no vjp`);
  const wrap = (v: Value) => new Tensor(builder, v);
  return vjp({ inputs: node.inputs.map(wrap), outputs: node.outputs.map(wrap), cotangents, attrs: node.attrs });
}

function accumulate(builder: Builder, node: Node, gradient: Tensor, begun: Set<string>): void {
  const [name] = node.attrs.states as string[];
  const state = gradientOf(builder.states.get(name)!, gradient);
  builder.declare(state);
  builder.accumulate(state.name, gradient.value, !begun.has(name));
  begun.add(name);
}
