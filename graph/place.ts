/** Where every value of a graph lies: on memory of its own, on a state, on an input, or as a view of another value. Pieces of a
 * concat are made inside it; gradients that are added into state lie there.
 * @module */
import { opOf } from "./builder.ts";
import { parseDims } from "./dims.ts";
import { touchedStates } from "./edit.ts";
import { isViewOp, onlyPlaces, stateUse } from "./facts.ts";
import { consumers, type DType, type Graph, type Node, numel, producers, type Value } from "./ir.ts";
import { num } from "./op.ts";
import type { Target } from "./target/target.ts";
import { collapseTo, isPacked, packed, sliceView, type View } from "./view.ts";

/** A piece of memory that values lie on. */
export interface Base {
  readonly kind: "value" | "state" | "input";
  readonly dtype: DType;
  /** Number of elements. */
  readonly size: number;
  /** States (one after another), or the input's name. */
  readonly names: readonly string[];
}

/** Where a value lies. */
export interface Place {
  readonly base: Base;
  readonly view: View;
}

/** Places of all values, and what must be copied there by a kernel. */
export interface Places {
  /** For whose kernels. */
  readonly target: Target;
  readonly of: ReadonlyMap<Value, Place>;
  /** Is the node a mere view of its input, with nothing to run? */
  isView(node: Node): boolean;
  /** Pieces of a concat that are not made inside it. */
  copiedPieces(concat: Node): readonly { readonly value: Value; readonly place: Place }[];
}

/** Operands of a node (inputs, then outputs) as a target's kernel takes them, or why it cannot. */
export function kernelViews(node: Node, views: readonly View[], { lowerings }: Target): readonly View[] | string {
  const op = opOf(node.op), lowering = lowerings[node.op];
  if (lowering?.views) return lowering.views(node, views);
  const dims = typeof op.dims === "function" ? op.dims(node.attrs, node.inputs.map((v) => v.shape.length)) : op.dims;
  const signature = dims === undefined ? undefined : parseDims(dims);
  const terms = signature ? [...signature.inputs, ...signature.outputs] : [];
  const taken: View[] = [];
  for (const [i, view] of views.entries()) {
    const collapsed = terms[i]?.some((d) => d[0] === "...") ? collapseTo(view, terms[i].length) : view;
    if (!collapsed) return `leading dims of operand ${i} have no common stride`;
    const last = collapsed.shape.length - 1;
    if (last >= 0 && collapsed.shape[last] > 1 && collapsed.strides[last] !== 1) {
      return `operand ${i} is not dense in its last dim`;
    }
    taken.push(collapsed);
  }
  return taken;
}

/** Places the values of a graph so that the kernels of a target can take them. */
export function placeValues(graph: Graph, target: Target): Places {
  const made = producers(graph), uses = consumers(graph), places = new Map<Value, Place>();
  const own = (value: Value): Place => ({
    base: { kind: "value", dtype: value.dtype, size: numel(value.shape), names: [] },
    view: packed(value.shape),
  });
  const inputs = new Set(graph.inputs.map((i) => i.value));
  /** Places a value inside another's memory, if whoever makes and reads it can live with the strides. */
  const absorb = (value: Value, place: Place): boolean => {
    const node = made.get(value);
    if (places.has(value) || inputs.has(value) || !node || stateUse(node) === "reads") return false;
    const { madeAs } = opOf(node.op);
    if (madeAs) {
      const view = madeAs(node, place.view);
      if (!view || !absorb(node.inputs[0], { base: place.base, view })) {
        return false;
      }
      places.set(value, place);
      return true;
    }
    if (isViewOp(node.op)) return false;
    const viewOf = (v: Value): View => v === value ? place.view : places.get(v)?.view ?? packed(v.shape);
    const fits = [node, ...uses.get(value) ?? []].every((n) =>
      onlyPlaces(n.op) ||
      typeof kernelViews(n, [...n.inputs, ...n.outputs].map(viewOf), target) !== "string"
    );
    if (fits) places.set(value, place);
    return fits;
  };
  const pieces = new Map<Node, { value: Value; place: Place }[]>();
  for (const node of graph.nodes.toReversed()) {
    if (!opOf(node.op).joins) continue;
    const joined = places.get(node.outputs[0]) ?? own(node.outputs[0]);
    places.set(node.outputs[0], joined);
    const dim = num(node.attrs.dim), copied: { value: Value; place: Place }[] = [];
    let at = 0;
    for (const value of node.inputs) {
      const view = sliceView(joined.view, value.shape.map((_, d) => d === dim ? at : 0), value.shape);
      const place = { base: joined.base, view };
      if (!absorb(value, place)) copied.push({ value, place });
      at += value.shape[dim];
    }
    pieces.set(node, copied);
  }
  const views = new Set<Node>();
  for (const { name, value } of graph.inputs) {
    places.set(value, {
      base: { kind: "input", dtype: value.dtype, size: numel(value.shape), names: [name] },
      view: packed(value.shape),
    });
  }
  for (const node of graph.nodes) {
    if (stateUse(node) === "reads" || node.attrs.into) {
      const value = node.outputs[node.attrs.into ? opOf(node.op).into! : 0];
      const names = touchedStates(node);
      places.set(value, {
        base: { kind: "state", dtype: value.dtype, size: numel(value.shape), names },
        view: packed(value.shape),
      });
    }
    for (const value of node.outputs) {
      if (places.has(value)) {
        // A view that was absorbed is where its operand was made.
        if (opOf(node.op).madeAs) views.add(node);
        continue;
      }
      const view = opOf(node.op).view?.(node, places.get(node.inputs[0])!.view);
      if (view) views.add(node);
      places.set(value, view ? { base: places.get(node.inputs[0])!.base, view } : own(value));
    }
  }
  return { target, of: places, isView: (node) => views.has(node), copiedPieces: (node) => pieces.get(node) ?? [] };
}

/** Does the base lie in the host's memory, where the node's kernel needs the arena, which other ranks see? */
export function isForeign(node: Node, base: Base): boolean {
  return base.kind === "input" && opOf(node.op).together !== undefined;
}

/** Does the node's kernel have to be given copies of its inputs, because it cannot follow their strides, or read them there? */
export function needsCopies(node: Node, places: Places): boolean {
  if (stateUse(node) === "reads" || opOf(node.op).joins || places.isView(node)) return false;
  if (node.inputs.some((v) => isForeign(node, places.of.get(v)!.base))) return true;
  const views = [...node.inputs, ...node.outputs].map((v) => places.of.get(v)!.view);
  return typeof kernelViews(node, views, places.target) === "string";
}

/** Does a value lie packed on memory that is all its own? */
export function ownsBase(place: Place): boolean {
  return place.base.kind === "value" && place.view.offset === 0 && isPacked(place.view) &&
    numel(place.view.shape) === place.base.size;
}
