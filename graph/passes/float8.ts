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
 * up together by a number of its own, which is a power of two; `rowwise_with_gw_hp`, the same, but gradients of weights are no float8;
 * `mxfp8` (OCP's microscaling), each {@linkcode BLOCK} neighbours of what is summed up by a power of two. */
export type Float8Recipe = "tensorwise" | "rowwise" | "rowwise_with_gw_hp" | "mxfp8";

/** So many numbers have a scale of their own in `mxfp8`. */
export const BLOCK = 32;

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
/** Largest powers of two. */
const LARGEST_POWER: Readonly<Record<Float8, number>> = { f8e4m3: 2 ** 8, f8e5m2: 2 ** 15 };
/** A block of nothing but smaller numbers than the inverse is scaled by this: e8m0 and f32 both have that inverse, and no less. */
const LARGEST_FACTOR = 2 ** 126;
/** A tensor of nothing but smaller numbers is scaled as if this were its largest. */
const LEAST_SIZE = 1e-12;

/** How one operand of a product becomes float8. */
export interface Scaling {
  readonly dtype: Float8;
  /** One scale for all of it, one for what is summed up together, or one for each {@linkcode BLOCK} of that? */
  readonly by: "tensor" | "row" | "block";
}

/** The three products of a layer: operands in the order that autodiff gives them. */
type Role = "output" | "gradientOfInput" | "gradientOfWeight";

const tensor = (dtype: Float8): Scaling => ({ dtype, by: "tensor" });
const row: Scaling = { dtype: "f8e4m3", by: "row" }, block: Scaling = { dtype: "f8e4m3", by: "block" };

/** Operands of each product by recipe; what is not there is multiplied as all else is. */
const RECIPES: Readonly<Record<Float8Recipe, Readonly<Partial<Record<Role, readonly [Scaling, Scaling]>>>>> = {
  tensorwise: {
    output: [tensor("f8e4m3"), tensor("f8e4m3")],
    gradientOfInput: [tensor("f8e5m2"), tensor("f8e4m3")],
    gradientOfWeight: [tensor("f8e5m2"), tensor("f8e4m3")],
  },
  rowwise: { output: [row, row], gradientOfInput: [row, row], gradientOfWeight: [row, row] },
  rowwise_with_gw_hp: { output: [row, row], gradientOfInput: [row, tensor("f8e4m3")] },
  mxfp8: { output: [block, block], gradientOfInput: [block, block], gradientOfWeight: [block, block] },
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
  const gradients = weightGradients(graph, made, options.weights);
  for (const node of graph.nodes) {
    if (node.op !== "contract" || node.outputs[0].dtype !== "f32") continue;
    const role = gradients.has(node)
      ? "gradientOfWeight"
      : !readsWeight(made.get(node.inputs[1]), options.weights)
      ? undefined
      : inBackward(node)
      ? "gradientOfInput"
      : "output";
    const scaling = role && recipe[role];
    if (scaling) found.set(node, scaling);
  }
  return found;
}

/** Does a node read weights of these? Stages of a pipeline read what others made as well. */
export function readsWeight(node: Node | undefined, weights: ReadonlySet<string>): boolean {
  return stateUse(node) === "reads" && touchedStates(node!).every((s) => weights.has(s));
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
 * @param operands what it multiplies, in f32.
 * @throws {RangeError} when what is summed up cannot be cut into blocks that have a scale each. */
export function scaledProduct(node: Node, operands: readonly Value[], options: ScaledProductOptions): Value {
  const { scalings, recipe, emit, cast } = options;
  const signature = expandDims(str(node.attrs.dims), operands.map((v) => v.shape.length));
  const plain = (term: readonly Dim[]) => term.map(([label]) => label.replace("...", "rest"));
  const labels = signature.inputs.map(plain), out = plain(signature.outputs[0]);
  const sizes = Object.fromEntries(labels.flatMap((term, i) => term.map((label, d) => [label, operands[i].shape[d]])));
  const spread = (value: Value, kept: readonly string[], to: readonly string[]) =>
    broadcast(emit, value, kept, to, sizes);
  const scaled = operands.map((x, i) => {
    const { dtype, by } = scalings[i];
    if (by === "block") return { value: inBlocks(x, labels[i], out, dtype, options) };
    const kept = by === "row" ? labels[i].filter((label) => out.includes(label)) : [];
    const [size] = emit("reduce", [x], { dims: `${labels[i].join(" ")} -> ${kept.join(" ")}`, kind: "max_abs" });
    // largest / max(size, least), which f32 says as exactly as f64 rounded to it, without a number that f32 lacks.
    const [ratio] = emit("div", [constant(emit, LARGEST[dtype], size.shape), size]);
    const [scale] = emit("minimum", [ratio, constant(emit, LARGEST[dtype] / LEAST_SIZE, size.shape)]);
    const factor = recipe === "tensorwise" ? scale : emit("floor_power_of_two", [scale])[0];
    return { value: cast(emit("mul", [x, spread(factor, kept, labels[i])])[0], dtype), factor, kept };
  });
  // Every number of float8 is a bf16: nothing more is rounded.
  const [sums] = emit("contract", scaled.map((r) => r.value), { ...node.attrs, round: "bf16" });
  return scaled.reduce(
    (y, { factor, kept }) => factor ? emit("div", [y, spread(factor, kept, out)])[0] : y,
    sums,
  );
}

/** A value as the product of float8 and a power of two for each block of the last dim that is summed up: numbers that bf16 has. */
function inBlocks(
  x: Value,
  labels: readonly string[],
  out: readonly string[],
  dtype: Float8,
  { emit, cast }: ScaledProductOptions,
): Value {
  const at = labels.findLastIndex((label) => !out.includes(label)), size = x.shape[at];
  if (size % BLOCK !== 0) {
    throw new RangeError(
      `Cannot scale in blocks of ${BLOCK}: a product sums up ${size} numbers [${x.shape}]\n` +
        `  expected: a multiple of ${BLOCK}\n  fix: choose such a length of rows and such sizes of layers`,
    );
  }
  const lanes = labels.toSpliced(at + 1, 0, "lane"), whole = labels.with(at, `(${labels[at]} lane)`);
  const sizes = Object.fromEntries([...labels.map((label, d) => [label, x.shape[d]]), ["lane", BLOCK]]);
  sizes[labels[at]] = size / BLOCK;
  const [blocks] = emit("reshape", [x], { dims: `${whole.join(" ")} -> ${lanes.join(" ")}`, sizes: { lane: BLOCK } });
  const [largest] = emit("reduce", [blocks], { dims: `${lanes.join(" ")} -> ${labels.join(" ")}`, kind: "max_abs" });
  const [power] = emit("floor_power_of_two", [largest]);
  const [ratio] = emit("div", [constant(emit, LARGEST_POWER[dtype], power.shape), power]);
  const [factor] = emit("minimum", [ratio, constant(emit, LARGEST_FACTOR, power.shape)]);
  // By reshapes of factors alone, so that what works on the value itself is element-wise: `partition` follows a weight through that.
  const [factors] = emit("reshape", [broadcast(emit, factor, labels, lanes, sizes)], {
    dims: `${lanes.join(" ")} -> ${whole.join(" ")}`,
  });
  const rounded = cast(emit("mul", [x, factors])[0], dtype);
  const [restored] = emit("div", [emit("cast", [rounded], { dtype: "f32" })[0], factors]);
  return emit("cast", [restored], { dtype: "bf16" })[0];
}

type Emit = ScaledProductOptions["emit"];

const constant = (emit: Emit, value: number, shape: readonly number[]): Value =>
  emit("constant", [], { value, dtype: "f32", shape: [...shape] })[0];

/** A value with labels `kept`, repeated along the others of `to`. */
const broadcast = (
  emit: Emit,
  value: Value,
  kept: readonly string[],
  to: readonly string[],
  sizes: Readonly<Record<string, number>>,
): Value =>
  emit("broadcast", [value], {
    dims: `${kept.join(" ")} -> ${to.join(" ")}`,
    sizes: Object.fromEntries(to.map((label) => [label, sizes[label]])),
  })[0];
