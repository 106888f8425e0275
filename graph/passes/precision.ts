/** Pass `precision`: what is multiplied and what is stored in bf16 or float8. Norms, softmax, losses, sums and the residual stream stay
 * in f32, and so does every sum inside of a product. A graph in f64 stays as it is.
 * @module */
import { Builder, opOf, withInputs } from "../builder.ts";
import { touchedStates } from "../edit.ts";
import { onlyPlaces, stateUse } from "../facts.ts";
import {
  consumers,
  type Float8,
  type Graph,
  type Node,
  producers,
  type State,
  type StateKind,
  type Value,
  withNodes,
} from "../ir.ts";
import { takesBf16 } from "../op.ts";
import type { Target } from "../target/target.ts";
import { type Float8Products, float8Products, readsWeight, scaledProduct } from "./float8.ts";

/** Element types of a step, in torchtitan's terms. */
export interface Precision {
  /** `training.mixed_precision_param`: what products take. With `bf16` their operands are rounded where they are used, and what a
   * product gives is stored as bf16 unless a sum, a norm or the loss reads it. */
  readonly param: "f32" | "bf16";
  /** `training.mixed_precision_reduce`: what a microbatch's gradients are rounded to before they are summed. */
  readonly reduce: "f32" | "bf16";
  /** `training.dtype`: how parameters, gradient sums and moments are stored. */
  readonly stored: "f32" | "bf16";
  /** `model.converters`: which products take float8; default: none. */
  readonly float8?: Float8Products;
  /** `device.tf32`: may a GPU round what products of f32 take to TF32? Default: no. */
  readonly tf32?: boolean;
}

/** All in f32. */
export const fullPrecision: Precision = { param: "f32", reduce: "f32", stored: "f32" };

/** Puts casts and the attributes `round` and `bf16` where the precision asks for them.
 * @param options `target`: whose kernels multiply. */
export function precision(graph: Graph, options: Precision & { readonly target: Target }): Graph {
  const { param, reduce, stored, float8, target } = options;
  let result = graph;
  if (float8) result = scaleProducts(result, float8, param);
  if (param === "bf16") result = roundProducts(result, target);
  if (reduce === "bf16") result = roundGradients(result);
  if (stored === "bf16") result = storeStates(result);
  return result;
}

/** What a rewriting may use. */
interface Context {
  readonly builder: Builder;
  /** Makes a node that comes from where the one does that is looked at. */
  emit(op: string, inputs: readonly Value[], attrs?: Node["attrs"]): Value[];
  /** The value as another type. */
  cast(value: Value, dtype: "f32" | "bf16" | Float8): Value;
}

/** Makes every node anew: `replace` returns what stands for its outputs, or `undefined` where it stays; `before` is the node as the graph
 * had it. */
function rewrite(
  graph: Graph,
  replace: (node: Node, context: Context, before: Node) => readonly Value[] | undefined,
): Graph {
  const builder = Builder.beside(graph), now = new Map<Value, Value>(), current = (v: Value) => now.get(v) ?? v;
  for (const old of graph.nodes) {
    const node = old.inputs.some((v) => now.has(v)) ? withInputs(old, old.inputs.map(current)) : old;
    const emit: Context["emit"] = (op, inputs, attrs) => builder.emit(op, inputs, attrs, node);
    const cast: Context["cast"] = (v, dtype) => v.dtype === dtype ? v : emit("cast", [v], { dtype })[0];
    const outputs = replace(node, { builder, emit, cast }, old);
    if (outputs) node.outputs.forEach((v, i) => now.set(v, outputs[i]));
    else builder.nodes.push(node);
  }
  return withNodes(graph, builder.nodes, current);
}

/** Does all that reads a value need the f32 sums of the product that makes it? */
function summedOnly(graph: Graph): (value: Value) => boolean {
  const uses = consumers(graph), results = new Set(graph.outputs.map((o) => o.value));
  const isSummed = (value: Value): boolean =>
    results.has(value) ||
    (uses.get(value) ?? []).every((n) => onlyPlaces(n.op) ? n.outputs.every(isSummed) : !opOf(n.op).takesRounded);
  return isSummed;
}

/** Products of float8. What they round is in bf16 already where products take that, but for weights that are exchanged as float8. */
function scaleProducts(graph: Graph, float8: Float8Products, param: Precision["param"]): Graph {
  const products = float8Products(graph, float8), isSummed = summedOnly(graph), made = producers(graph);
  return rewrite(graph, (node, context, before) => {
    const scalings = products.get(before), { cast } = context;
    if (!scalings) return;
    const isExchanged = (v: Value) => float8.gathered === true && readsWeight(made.get(v), float8.weights);
    const operands = node.inputs.map((v, i) =>
      param === "f32" || isExchanged(before.inputs[i]) ? v : cast(cast(v, "bf16"), "f32")
    );
    const result = scaledProduct(node, operands, { scalings, recipe: float8.recipe, ...context });
    return [param === "f32" || isSummed(before.outputs[0]) ? result : cast(cast(result, "bf16"), "f32")];
  });
}

/** What multiplies takes bf16, as its record says; the target says where its operands are rounded. */
function roundProducts(graph: Graph, { lowerings }: Target): Graph {
  const isSummed = summedOnly(graph);
  return rewrite(graph, ({ op, inputs, outputs, attrs }, { emit, cast }) => {
    const { rounding } = opOf(op);
    if (!rounding || outputs[0].dtype !== "f32" || attrs.round) return;
    const { castsOperands, castsResults } = lowerings[op] ?? {}, rounded = { ...attrs, round: "bf16" };
    const mayBe = (side: "input" | "output", i: number) => takesBf16(opOf(op), side, i, inputs.length);
    const isCast = (v: Value, i: number) => castsOperands && v.dtype === "f32" && mayBe("input", i);
    const operands = inputs.map((v, i) => isCast(v, i) ? cast(v, "bf16") : v);
    const bf16 = outputs.flatMap((_, i) => (castsResults ? mayBe("output", i) : i === rounding.stored) ? [i] : []);
    if (bf16.length === 0 || rounding.keepsSums && isSummed(outputs[bf16[0]])) return emit(op, operands, rounded);
    return emit(op, operands, { ...rounded, bf16 }).map((v, i) => bf16.includes(i) ? cast(v, "f32") : v);
  });
}

/** Does a node touch a state of these kinds that is f32? */
function touches(graph: Graph, kinds: readonly StateKind[]): (node: Node) => boolean {
  const names = new Set(graph.states.filter((s) => kinds.includes(s.kind) && s.dtype === "f32").map((s) => s.name));
  return (node) => touchedStates(node).some((name) => names.has(name));
}

/** Gradients are rounded once a microbatch, their sums stay as they are. */
function roundGradients(graph: Graph): Graph {
  const isGradient = touches(graph, ["gradient"]);
  return rewrite(graph, (node, { emit, cast }) => {
    if (stateUse(node) !== "adds" || !isGradient(node)) return;
    return emit(node.op, [cast(node.inputs[0], "bf16")], node.attrs);
  });
}

/** Parameters, gradient sums and moments are stored as bf16, and widened where they are read. */
function storeStates(graph: Graph): Graph {
  const kinds: readonly StateKind[] = ["parameter", "gradient", "moment"], isStored = touches(graph, kinds);
  const states = graph.states.map((s): State =>
    kinds.includes(s.kind) && s.dtype === "f32" ? { ...s, dtype: "bf16" } : s
  );
  return rewrite({ ...graph, states }, (node, { emit, cast }) => {
    if (!isStored(node)) return;
    const { op, inputs, attrs } = node;
    if (stateUse(node) === "reads") return [cast(emit(op, inputs, { ...attrs, dtype: "bf16" })[0], "f32")];
    return emit(op, [cast(inputs[0], "bf16")], attrs);
  });
}
