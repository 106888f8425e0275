/** The ways to do one node on the ranks of one axis, read off its op's record: cut along a label, on summands, or whole.
 * @module */
import { opOf } from "../graph/builder.ts";
import { type Dim, expandDims } from "../graph/dims.ts";
import type { Node, Value } from "../graph/ir.ts";
import { partial, type Placement, replicate, shard } from "../graph/layout.ts";

/** Where a node's operands must be on one axis, and where its results then are. */
export interface Strategy {
  /** The label that is cut, if it is one. */
  readonly label?: string;
  /** May its slices have padding? */
  readonly padded?: boolean;
  readonly inputs: readonly Placement[];
  readonly outputs: readonly Placement[];
}

/** What has been decided: the strategy of each node on each axis, and where each value is once it is made. */
export interface Decisions {
  /** Factors of the mesh of more than one rank, outermost first: an axis of the rules is one of these. */
  readonly axes: readonly string[];
  strategy(node: Node, axis: string): Strategy;
  placement(value: Value, axis: string): Placement;
}

/** For each operand and result, the label along which each dim can be cut; absent where it must be whole. */
export interface Labels {
  readonly inputs: readonly (readonly (string | undefined)[])[];
  readonly outputs: readonly (readonly (string | undefined)[])[];
  readonly sizes: ReadonlyMap<string, number>;
  /** The outermost label of each dim, whether it can be cut or not. */
  readonly dims: {
    readonly inputs: readonly (readonly (string | undefined)[])[];
    readonly outputs: readonly (readonly (string | undefined)[])[];
  };
}

const known = new WeakMap<Node, Labels | undefined>();

/** What a node can be cut along; `undefined` when it can only be done whole. */
export function labelsOf(node: Node): Labels | undefined {
  if (!known.has(node)) known.set(node, readLabels(node));
  return known.get(node);
}

function readLabels(node: Node): Labels | undefined {
  const { dims, split } = opOf(node.op);
  const ranks = node.inputs.map((v) => v.shape.length);
  const text = split?.dims?.(node) ?? (typeof dims === "function" ? dims(node.attrs, ranks) : dims);
  if (!split || split.additive || text === undefined) return;
  const signature = expandDims(text, ranks), terms = [...signature.inputs, ...signature.outputs];
  const sizes = labelSizes(node, terms), all = terms.flat();
  /** The outermost label of a dim: slices of any other would not be boxes. */
  const leading = (dim: Dim) => dim.find((l) => l !== "1" && sizes.get(l) !== 1);
  const canCut = (label: string | undefined) =>
    label !== undefined && !split.whole?.includes(label) &&
    all.every((d) => !d.includes(label) || leading(d) === label);
  const cuts = (terms: readonly (readonly Dim[])[]) =>
    terms.map((term) => term.map(leading).map((label) => canCut(label) ? label : undefined));
  const outermost = (terms: readonly (readonly Dim[])[]) =>
    terms.map((term) => term.map((dim) => dim.find((label) => label !== "1")));
  const labels = { inputs: outermost(signature.inputs), outputs: outermost(signature.outputs) };
  return { inputs: cuts(signature.inputs), outputs: cuts(signature.outputs), sizes, dims: labels };
}

/** Sizes of all labels: first of those that have a dim to themselves, then of those that share one with known ones. */
function labelSizes(node: Node, terms: readonly (readonly Dim[])[]): Map<string, number> {
  const shapes = [...node.inputs, ...node.outputs].map((v) => v.shape);
  const sizes = new Map(Object.entries((node.attrs.sizes ?? {}) as Record<string, number>));
  const dims = terms.flatMap((term, i) =>
    term.map((dim, d) => ({ dim: dim.filter((l) => l !== "1"), n: shapes[i][d] }))
  );
  for (const { dim, n } of dims.toSorted((a, b) => a.dim.length - b.dim.length)) {
    const open = dim.filter((l) => !sizes.has(l));
    if (open.length === 1) sizes.set(open[0], dim.reduce((rest, l) => rest / (sizes.get(l) ?? 1), n));
  }
  return sizes;
}

/** Cut along a label: what has it is sharded, a result without it is partial. */
export function cutAlong(node: Node, labels: Labels, label: string, padded: boolean): Strategy {
  const { split } = opOf(node.op), by = split!.by?.(node.attrs) ?? "sum";
  const place = (term: readonly (string | undefined)[], otherwise: Placement) =>
    term.includes(label) ? shard(term.indexOf(label), { padded }) : otherwise;
  return {
    label,
    padded,
    inputs: labels.inputs.map((term) => place(term, replicate)),
    outputs: labels.outputs.map((term) => place(term, split!.across?.label === label ? replicate : partial(by))),
  };
}

/** On summands: the operands of a set in which the op is linear are partial, and so is the result; `undefined` when the op is not
 * linear in all operands that are partial. */
export function onSummands(node: Node, isPartial: readonly boolean[]): Strategy | undefined {
  const { split } = opOf(node.op), all = node.inputs.map((_, i) => i);
  const linear = typeof split?.linear === "function" ? split.linear(node.attrs) : split?.linear ?? [];
  const set = (linear === "all" ? [all] : linear).find((s) => all.every((i) => !isPartial[i] || s.includes(i)));
  if (!set) return;
  return {
    inputs: all.map((i) => set.includes(i) ? partial() : replicate),
    outputs: node.outputs.map(() => partial()),
  };
}

/** Everything whole, on every rank alike. */
export function whole(node: Node): Strategy {
  return { inputs: node.inputs.map(() => replicate), outputs: node.outputs.map(() => replicate) };
}
