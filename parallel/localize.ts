/** From decisions to the graph of a rank: every node on local shapes, and conversions between (rule 5).
 * @module */
import { Builder, opOf } from "../graph/builder.ts";
import { touchedStates } from "../graph/edit.ts";
import { fillOf } from "../graph/facts.ts";
import {
  type Attr,
  type Attrs,
  type DType,
  type Graph,
  inBackward,
  type Node,
  type State,
  type Value,
} from "../graph/ir.ts";
import {
  axesOfDim,
  degreeOf,
  type Layout,
  layoutText,
  localShape,
  paddedAxes,
  type Placement,
  placementOn,
  type Reduction,
  replicated,
  samePlacement,
} from "../graph/layout.ts";
import { num } from "../graph/op.ts";
import { Tensor } from "../graph/tensor.ts";
import { conversion, type Step } from "./conversion.ts";
import type { Mesh } from "./mesh.ts";
import type { Layouts } from "./plan.ts";
import { rankNumber } from "./rank_graph.ts";
import { type Decisions, labelsOf } from "./strategy.ts";

/** The graph of every rank. */
export function localize(graph: Graph, mesh: Mesh, layouts: Layouts, decisions: Decisions): Graph {
  return new Localizer(graph, mesh, layouts, decisions).run();
}

class Localizer {
  readonly #builder: Builder;
  readonly #states: ReadonlyMap<string, State>;
  /** Layout of each value once it is made. */
  readonly #layoutOf = new Map<Value, Layout>();
  /** Local values by global value and layout: a conversion is made once. */
  readonly #local = new Map<Value, Map<string, Value>>();
  /** Values as bf16, where they travel as that. */
  readonly #rounded = new Map<Value, Value>();
  /** Constants and random values: each rank makes its part where one is asked for. */
  readonly #sources = new Map<Value, Node>();

  constructor(
    readonly graph: Graph,
    readonly mesh: Mesh,
    readonly layouts: Layouts,
    readonly decisions: Decisions,
  ) {
    const local = (s: State): State => ({ ...s, shape: this.#localShape(s, layouts.state(s), `state "${s.name}"`) });
    this.#builder = new Builder(graph.name, graph.states.map(local), "ranks");
    this.#builder.slot = graph.slot;
    this.#states = new Map(graph.states.map((s) => [s.name, s]));
  }

  run(): Graph {
    for (const input of this.graph.inputs) {
      const { name, value, roles } = input, layout = this.layouts.input(input);
      const shape = this.#localShape(value, layout, `input "${name}"`);
      const counts = shape.at(-1) === value.shape.at(-1) ? input.counts : undefined; // not of a slice of rows
      this.#place(value, this.#builder.input(name, { dtype: value.dtype, shape }, roles, counts), layout);
    }
    for (const node of this.graph.nodes) this.#node(node);
    // Behind all nodes, they may go on from what was converted for backward.
    this.#builder.origin = { scope: "", phase: this.graph.nodes.some(inBackward) ? "backward" : "forward" };
    for (const { name, value } of this.graph.outputs) this.#builder.output(name, this.#convert(value, replicated));
    return this.#builder.finish();
  }

  #localShape({ shape }: { readonly shape: readonly number[] }, layout: Layout, what?: string): number[] {
    return localShape(shape, layout, this.mesh.factors, what);
  }

  #place(value: Value, local: Value, layout: Layout): void {
    this.#layoutOf.set(value, layout);
    this.#local.set(value, new Map([[layoutText(layout), local]]));
  }

  #node(node: Node): void {
    this.#builder.origin = node;
    if (opOf(node.op).boxed || fillOf(node) !== undefined) {
      const [value] = node.outputs;
      this.#sources.set(value, node);
      this.#layoutOf.set(value, replicated);
      this.#local.set(value, new Map());
      return;
    }
    const { inputs, outputs } = this.#layoutsOf(node);
    const operands = node.inputs.map((_, i) => this.#convert(this.#asRounded(node, i, inputs[i]), inputs[i]));
    const made = this.#emit(node, operands, outputs);
    node.outputs.forEach((value, i) => {
      this.#place(value, made[i], outputs[i]);
      // Rules 3 and 4: resolved where it is made.
      const layout = this.#resolved(value, outputs[i]);
      this.#place(value, this.#convert(value, layout), layout);
    });
  }

  /** An operand, or it in the type that it is rounded to anyway, where it has to be gathered (rule 5). */
  #asRounded(node: Node, i: number, to: Layout): Value {
    const value = node.inputs[i], from = this.#layoutOf.get(value)!;
    const dtype = node.attrs.round as DType | undefined;
    if (!dtype || value.dtype !== "f32" || !opOf(node.op).split?.rounds?.includes(i)) return value;
    const steps = conversion(from, to, value.shape.length).map((s) => s.op);
    // Sums are made of what has not been rounded.
    const isGathered = steps.some((op) => op === "all_gather" || op === "all_to_all");
    if (!isGathered || steps.includes("reduce_scatter") || steps.includes("all_reduce")) return value;
    if (!this.#rounded.has(value)) {
      const rounded: Value = { ...value, dtype };
      this.#place(rounded, this.#builder.emit("cast", [this.#convert(value, from)], { dtype })[0], from);
      this.#rounded.set(value, rounded);
    }
    return this.#rounded.get(value)!;
  }

  /** Layouts of operands and results: placements by axis, in an order of cuts that all dims of a label share. */
  #layoutsOf(node: Node): { inputs: Layout[]; outputs: Layout[] } {
    const [state] = touchedStates(node);
    const stored = state === undefined ? undefined : this.layouts.state(this.#states.get(state)!);
    const cuts = [...this.#cuts(node).values()].flat();
    const layout = (side: "inputs" | "outputs", i: number, own: Layout | undefined): Layout => {
      const placement = (a: string): [string, Placement] => [a, this.decisions.strategy(node, a)[side][i]];
      const placements = this.decisions.axes.map(placement);
      const order = own ? [...own.keys()] : cuts;
      const at = (axis: string) => order.includes(axis) ? order.indexOf(axis) : order.length;
      return new Map(placements.filter(([, p]) => p.kind !== "replicate").sort(([a], [b]) => at(a) - at(b)));
    };
    const additive = opOf(node.op).split?.additive;
    return {
      inputs: node.inputs.map((v, i) => layout("inputs", i, stored ?? (additive ? this.#layoutOf.get(v) : undefined))),
      outputs: node.outputs.map((_, i) => layout("outputs", i, stored)),
    };
  }

  /** The axes that cut each label, in the order in which some operand is cut already, else in that of the mesh. */
  #cuts(node: Node): Map<string, readonly string[]> {
    const labels = labelsOf(node), cuts = new Map<string, string[]>();
    for (const axis of this.decisions.axes) {
      const { label } = this.decisions.strategy(node, axis);
      if (label !== undefined) cuts.set(label, [...cuts.get(label) ?? [], axis]);
    }
    const ordered = ([label, axes]: [string, string[]]): [string, readonly string[]] => {
      const orders = node.inputs.map((v, i) => axesOfDim(this.#layoutOf.get(v)!, labels!.inputs[i].indexOf(label)));
      return [label, orders.find((o) => o.length === axes.length && axes.every((a) => o.includes(a))) ?? axes];
    };
    return new Map([...cuts].map(ordered));
  }

  /** Where a value is after rules 3 and 4: as it was made, or in the mesh's order of axes where that changes. */
  #resolved(value: Value, made: Layout): Layout {
    const placements = this.decisions.axes.map((a): [string, Placement] => [a, this.decisions.placement(value, a)]);
    if (placements.every(([axis, p]) => samePlacement(p, placementOn(made, axis)))) return made;
    const kept = (axis: string) => samePlacement(placementOn(made, axis), this.decisions.placement(value, axis));
    const order = [...made.keys()];
    const unchanged = placements.filter(([axis]) => kept(axis)).sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
    const changed = placements.filter(([axis]) => !kept(axis));
    return new Map([...unchanged, ...changed].filter(([, p]) => p.kind !== "replicate"));
  }

  /** The local value in a layout, converted where it is not there yet. */
  #convert(value: Value, to: Layout): Value {
    const known = this.#local.get(value)!, from = this.#layoutOf.get(value)!;
    const once = (layout: Layout, make: () => Value): Value => {
      const text = layoutText(layout);
      if (!known.has(text)) known.set(text, make());
      return known.get(text)!;
    };
    return once(to, () => {
      const source = this.#sources.get(value), steps = conversion(from, to, value.shape.length);
      const made = (layout: Layout) =>
        this.#emit(source!, source!.inputs.map((v) => this.#convert(v, replicated)), [layout])[0];
      const isSlice = steps.every((s) => s.op === "slice_by_rank");
      if (source && isSlice && value.shape.every((_, d) => canMake(source, to, d))) return made(to);
      const first = once(from, () => made(from));
      return steps.reduce((local, step) => once(step.to, () => this.#step(value, local, step)), first);
    });
  }

  #step(value: Value, local: Value, { op, axes, dim, split, by, to }: Step): Value {
    const size = this.#pieces(axes), expected = this.#localShape(value, to);
    const emit = (name: string, operands: readonly Value[], attrs: Attrs) =>
      this.#builder.emit(name, operands, attrs)[0];
    const cut: Attrs = split !== undefined ? { split, join: dim! } : dim === undefined ? {} : { dim };
    const attrs = { axes, size, ...cut, ...(by === undefined ? {} : { by }) };
    let operand = local;
    if (op === "reduce_scatter" || op === "slice_by_rank") {
      // Uneven slices: zeros make the last ones as long as the others.
      const more = expected[dim!] * size - local.shape[dim!];
      const shape = local.shape.map((n, d) => d === dim ? more : n);
      const zeros = () => emit("constant", [], { value: 0, dtype: local.dtype, shape });
      if (more > 0) operand = emit("concat", [local, zeros()], { dim: dim! });
    }
    const made = emit(op, [operand], attrs);
    if (String(made.shape) === String(expected)) return made;
    return emit("slice", [made], { starts: expected.map(() => 0), shape: expected });
  }

  /** The node on local operands. */
  #emit(node: Node, operands: readonly Value[], outputs: readonly Layout[]): readonly Value[] {
    const { attrs: schema = {}, split } = opOf(node.op), { across, offset } = split ?? {}, cuts = this.#cuts(node);
    const attrs: Record<string, Attr> = { ...node.attrs }, [y] = node.outputs;
    const part = (label: string, n: number) => n / this.#pieces(cuts.get(label) ?? []);
    for (const [name, { local }] of Object.entries(schema)) {
      if (local === undefined || attrs[name] === undefined) continue;
      if (local === "output") attrs[name] = this.#localShape(y, outputs[0]);
      else if (local === "labels") {
        const sizes = Object.entries(attrs[name] as Record<string, number>);
        attrs[name] = Object.fromEntries(sizes.map(([label, n]) => [label, part(label, n)]));
      } else attrs[name] = part(local.label, num(attrs[name]));
    }
    if (opOf(node.op).boxed && outputs[0].size > 0) Object.assign(attrs, this.#box(y, outputs[0]));
    const slice = (label: string, axes: readonly string[]) => {
      const whole = labelsOf(node)!.sizes.get(label)!;
      return { start: rankNumber(0, [{ axes, step: whole / this.#pieces(axes) }]), whole };
    };
    const counted = offset === undefined ? undefined : cuts.get(offset);
    if (counted) Object.assign(attrs, slice(offset!, counted));
    const axes = across && cuts.get(across.label);
    if (!axes) return this.#builder.emit(node.op, operands, attrs);
    const allReduce = (by: Reduction, x: Tensor, ...others: Tensor[]) =>
      x.apply("all_reduce", others, { axes, size: this.#pieces(axes), by });
    const inputs = operands.map((v) => new Tensor(this.#builder, v));
    return across.emit({ inputs, attrs, ...slice(across.label, axes), allReduce }).map((t) => t.value);
  }

  #pieces(axes: readonly string[]): number {
    return degreeOf(axes, this.mesh.factors);
  }

  /** Which box of the whole value a rank makes. */
  #box(value: Value, layout: Layout): { whole: Attr; starts: Attr; ends: Attr } {
    const local = this.#localShape(value, layout);
    const dims = value.shape.map((size, dim) => {
      const padded = paddedAxes(layout, dim), even = axesOfDim(layout, dim).filter((a) => !padded.includes(a));
      const step = size / this.#pieces(even);
      const start = rankNumber(0, [{ axes: even, step }, { axes: padded, step: local[dim] }]);
      return { start, end: rankNumber(step, [{ axes: even, step }]) };
    });
    return { whole: value.shape, starts: dims.map((d) => d.start), ends: dims.map((d) => d.end) };
  }
}

/** A constant fills its padding too, where zeros are expected. */
function canMake(source: Node, to: Layout, dim: number): boolean {
  return opOf(source.op).boxed || fillOf(source) === 0 || paddedAxes(to, dim).length === 0;
}
