/** Part of pass `precision`: products of some weights in float8, with scales that follow from the numbers themselves (dynamic scaling), by
 * torchao's recipes. Each product and both products of its gradient take operands that are scaled so that the largest is float8's
 * largest, and rounded; their product is divided by both scales. All of it is ordinary nodes.
 * @module */
import { opOf } from "../builder.ts";
import { type Dim, expandDims } from "../dims.ts";
import { touchedStates } from "../edit.ts";
import { onlyPlaces, stateUse } from "../facts.ts";
import {
  type Attrs,
  type Float8,
  type Graph,
  inBackward,
  type Lookup,
  type Node,
  producers,
  type Value,
} from "../ir.ts";
import { str } from "../op.ts";

/** How operands are scaled: `tensorwise`, each by one number, gradients with less mantissa and more range; `rowwise`, what is summed
 * up together by a number of its own, which is a power of two; `rowwise_with_gw_hp`, the same, but gradients of weights are no float8. */
export type Float8Recipe = "tensorwise" | "rowwise" | "rowwise_with_gw_hp";

/** What is multiplied in float8. */
export interface Float8Products {
  /** How operands are scaled. */
  readonly recipe: Float8Recipe;
  /** States of the weights whose products are. */
  readonly weights: ReadonlySet<string>;
  /** Are weights scaled and rounded as they are stored, rather than as products take them? Ranks that have slices of them then exchange
   * float8. Only where each has one scale. */
  readonly gathered?: boolean;
  /** Do ranks find the scales of all these weights by one exchange of a microbatch, rather than by one for each block? */
  readonly precomputed?: boolean;
}

/** Largest numbers. */
const LARGEST: Readonly<Record<Float8, number>> = { f8e4m3: 448, f8e5m2: 57344 };
/** A tensor of nothing but smaller numbers is scaled as if this were its largest. */
const LEAST_SIZE = 1e-12;

/** How one operand of a product becomes float8. */
export interface Scaling {
  readonly dtype: Float8;
  /** One scale for all of it, or one for what is summed up together? */
  readonly by: "tensor" | "row";
}

/** The three products of a layer: operands in the order that autodiff gives them. */
type Role = "output" | "gradientOfInput" | "gradientOfWeight";

const tensor = (dtype: Float8): Scaling => ({ dtype, by: "tensor" });
const row: Scaling = { dtype: "f8e4m3", by: "row" };

/** Operands of each product by recipe; what is not there is multiplied as all else is. */
const RECIPES: Readonly<Record<Float8Recipe, Readonly<Partial<Record<Role, readonly [Scaling, Scaling]>>>>> = {
  tensorwise: {
    output: [tensor("f8e4m3"), tensor("f8e4m3")],
    gradientOfInput: [tensor("f8e5m2"), tensor("f8e4m3")],
    gradientOfWeight: [tensor("f8e5m2"), tensor("f8e4m3")],
  },
  rowwise: { output: [row, row], gradientOfInput: [row, row], gradientOfWeight: [row, row] },
  rowwise_with_gw_hp: { output: [row, row], gradientOfInput: [row, tensor("f8e4m3")] },
};

/** How a product becomes one of float8. */
export interface ScaledProductOptions {
  readonly scalings: readonly Scaling[];
  readonly recipe: Float8Recipe;
  /** Makes a node in front of the product. */
  emit(op: string, inputs: readonly Value[], attrs?: Attrs): Value[];
  /** The value as another type. */
  cast(value: Value, dtype: Float8): Value;
}

/** The products of a graph that are converted, with how their operands are scaled. */
export function float8Products(graph: Graph, options: Float8Products): Map<Node, readonly [Scaling, Scaling]> {
  const recipe = RECIPES[options.recipe], made = producers(graph), found = new Map<Node, readonly [Scaling, Scaling]>();
  const isWeight = (v: Value): boolean => {
    const node = made.get(v);
    return stateUse(node) === "reads" && touchedStates(node!).every((s) => options.weights.has(s));
  };
  const gradients = weightGradients(graph, made, options.weights);
  for (const node of graph.nodes) {
    if (node.op !== "contract" || node.outputs[0].dtype !== "f32") continue;
    const role = gradients.has(node)
      ? "gradientOfWeight"
      : !isWeight(node.inputs[1])
      ? undefined
      : inBackward(node)
      ? "gradientOfInput"
      : "output";
    const scaling = role && recipe[role];
    if (scaling) found.set(node, scaling);
  }
  return found;
}

/** Products that are added into the gradient sums of weights, by sums and views. */
function weightGradients(
  graph: Graph,
  made: Lookup<Node>,
  weights: ReadonlySet<string>,
): ReadonlySet<Node> {
  const owners = new Map(graph.states.map((s) => [s.name, s.kind === "gradient" ? s.of : undefined]));
  const found = new Set<Node>(), seen = new Set<Value>();
  for (const sink of graph.nodes) {
    if (stateUse(sink) !== "adds" || !touchedStates(sink).every((s) => weights.has(owners.get(s) ?? ""))) continue;
    const open = [...sink.inputs];
    for (let value; (value = open.pop());) {
      const node = made.get(value);
      if (!node || seen.has(value)) continue;
      seen.add(value);
      if (node.op === "contract") found.add(node);
      else if (opOf(node.op).adds || opOf(node.op).converts || onlyPlaces(node.op)) open.push(...node.inputs);
    }
  }
  return found;
}

/** A product by its scaled operands, in f32.
 * @param operands what it multiplies, in f32. */
export function scaledProduct(
  node: Node,
  operands: readonly Value[],
  { scalings, recipe, emit, cast }: ScaledProductOptions,
): Value {
  const signature = expandDims(str(node.attrs.dims), operands.map((v) => v.shape.length));
  const plain = (term: readonly Dim[]) => term.map(([label]) => label.replace("...", "rest"));
  const labels = signature.inputs.map(plain), out = plain(signature.outputs[0]);
  const sizes = Object.fromEntries(labels.flatMap((term, i) => term.map((label, d) => [label, operands[i].shape[d]])));
  const constant = (value: number, shape: readonly number[]) =>
    emit("constant", [], { value, dtype: "f32", shape: [...shape] })[0];
  const spread = (value: Value, kept: readonly string[], to: readonly string[]) =>
    emit("broadcast", [value], {
      dims: `${kept.join(" ")} -> ${to.join(" ")}`,
      sizes: Object.fromEntries(to.map((label) => [label, sizes[label]])),
    })[0];
  const rounded = operands.map((x, i) => {
    const { dtype, by } = scalings[i], kept = by === "row" ? labels[i].filter((label) => out.includes(label)) : [];
    const [size] = emit("reduce", [x], { dims: `${labels[i].join(" ")} -> ${kept.join(" ")}`, kind: "max_abs" });
    // largest / max(size, least), which f32 says as exactly as f64 rounded to it, without a number that f32 lacks.
    const [ratio] = emit("div", [constant(LARGEST[dtype], size.shape), size]);
    const [scale] = emit("minimum", [ratio, constant(LARGEST[dtype] / LEAST_SIZE, size.shape)]);
    const factor = recipe === "tensorwise" ? scale : emit("floor_power_of_two", [scale])[0];
    return { value: cast(emit("mul", [x, spread(factor, kept, labels[i])])[0], dtype), factor, kept };
  });
  // Every number of float8 is a bf16: nothing more is rounded.
  const [sums] = emit("contract", rounded.map((r) => r.value), { ...node.attrs, round: "bf16" });
  return rounded.reduce((y, { factor, kept }) => emit("div", [y, spread(factor, kept, out)])[0], sums);
}
