/** Pass `autodiff`: appends the gradient of one scalar to the graph, in reverse order, from each op's vjp.
 * @module */
import { Builder, opOf } from "../builder.ts";
import { hasEffect, touchedStates } from "../edit.ts";
import { stateUse } from "../facts.ts";
import { gradientName, gradientOf, type Graph, isReal, type Node, sameType, typeText, type Value } from "../ir.ts";
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
 * @throws {TypeError} when the output is not a real scalar, when an op on the way has no vjp or gives a cotangent of another type, or
 * when what is differentiated reaches the output through a state: gradients do not flow back through what is stored. */
export function autodiff(forward: Graph, options: AutodiffOptions): Graph {
  const { of, seed = 1, states = [], inputs = [], keep = true } = options;
  const loss = forward.outputs.find((o) => o.name === of)?.value;
  if (!loss || loss.shape.length > 0 || !isReal(loss.dtype)) {
    throw new TypeError(`Cannot differentiate graph "${forward.name}": expected a real scalar output "${of}"`);
  }
  const builder = Builder.extend(forward);
  if (!keep) builder.outputs.length = 0;
  const wanted = new Set(states), active = activeValues(forward, wanted, new Set(inputs));
  refuseStored(forward, loss, active);
  const cotangents = new Map<Value, Tensor>();
  const send = (value: Value, part: Tensor | undefined, from?: Node): void => {
    if (!part || !active.has(value)) return;
    if (!sameType(part.value, value)) {
      throw new TypeError(
        `Cannot differentiate ${from ? nodeText(from) : `"${of}"`}: the cotangent of %${value.id} is ` +
          `${typeText(part.value)}, expected ${typeText(value)}, the type of what it belongs to; correct the vjp`,
      );
    }
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
    if (stateUse(node) === "reads") accumulate(builder, node, parts[0]!, { wanted, begun });
    else vjpOf(builder, node, parts).forEach((part, i) => send(node.inputs[i], part, node));
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

/** Values that depend on what is differentiated, through reals: only through them do cotangents flow. */
function activeValues(graph: Graph, states: ReadonlySet<string>, inputs: ReadonlySet<string>): Set<Value> {
  const active = new Set(graph.inputs.filter((i) => inputs.has(i.name) && isReal(i.value.dtype)).map((i) => i.value));
  for (const node of graph.nodes) {
    const source = stateUse(node) === "reads" && touchedStates(node).some((s) => states.has(s));
    if (!source && !node.inputs.some((v) => active.has(v))) continue;
    for (const v of node.outputs) if (isReal(v.dtype)) active.add(v);
  }
  return active;
}

function vjpOf(builder: Builder, node: Node, cotangents: (Tensor | undefined)[]): (Tensor | undefined)[] {
  const { vjp } = opOf(node.op);
  if (!vjp) throw new TypeError(`Cannot differentiate ${nodeText(node)}: op "${node.op}" has no vjp`);
  const wrap = (v: Value) => new Tensor(builder, v);
  return vjp({ inputs: node.inputs.map(wrap), outputs: node.outputs.map(wrap), cotangents, attrs: node.attrs });
}

/** Refuses an output that depends on what an active value was stored in before: its gradient would lack that part. */
function refuseStored(graph: Graph, output: Value, active: ReadonlySet<Value>): void {
  const stored = new Map<string, Node>(), through = new Map<Value, string>();
  for (const node of graph.nodes) {
    const states = touchedStates(node);
    if (hasEffect(node) && node.inputs.some((v) => active.has(v))) states.forEach((s) => stored.set(s, node));
    const state = stateUse(node) === "reads" ? states.find((s) => stored.has(s)) : undefined;
    const from = state ?? node.inputs.map((v) => through.get(v)).find((s) => s !== undefined);
    if (from !== undefined) node.outputs.forEach((v) => isReal(v.dtype) && through.set(v, from));
  }
  const state = through.get(output);
  if (state === undefined) return;
  throw new TypeError(
    `Cannot differentiate graph "${graph.name}": its output depends on state "${state}", into which ` +
      `${nodeText(stored.get(state)!)} puts what is differentiated; use that value itself instead of reading the state`,
  );
}

/** Adds the gradient of what a node reads into the sums of those states that are asked for: of several, to each its rows. */
function accumulate(
  builder: Builder,
  node: Node,
  gradient: Tensor,
  { wanted, begun }: { readonly wanted: ReadonlySet<string>; readonly begun: Set<string> },
): void {
  const names = touchedStates(node);
  let row = 0;
  for (const name of names) {
    const parameter = builder.states.get(name)!, { shape } = parameter, starts = shape.map((_, d) => d === 0 ? row : 0);
    row += shape[0] ?? 1;
    if (!wanted.has(name)) continue;
    const part = names.length === 1 ? gradient : gradient.slice(starts, shape), state = gradientOf(parameter, part);
    builder.declare(state);
    builder.accumulate(state.name, part.value, !begun.has(name));
    begun.add(name);
  }
}
