/** From the graph of all ranks to the graph of one: what depends on where the rank stands becomes plain numbers.
 * @module */
import { Builder } from "../graph/builder.ts";
import type { Attr, Graph, Node, Value } from "../graph/ir.ts";
import { type Degrees, pieceOf } from "../graph/layout.ts";
import { num } from "../graph/op.ts";
import type { Mesh } from "./mesh.ts";

/** A number that depends on the rank, as an attribute: `plus` and, for each term, the rank's piece along `axes` times `step`. */
export interface RankNumber {
  readonly plus: number;
  readonly terms: readonly { readonly axes: readonly string[]; readonly step: number }[];
  readonly [key: string]: Attr;
}

/** Such a number; a plain one where no axis has a say. */
export function rankNumber(plus: number, terms: RankNumber["terms"]): Attr {
  const some = terms.filter(({ axes }) => axes.length > 0);
  return some.length > 0 ? { plus, terms: some } : plus;
}

/** The graph that one rank runs: collectives have their `group`, ranks in order; slices by rank and values that only the first rank
 * keeps are ordinary ops. */
export function graphOfRank(graph: Graph, mesh: Mesh, rank: number): Graph {
  const coordinates = mesh.coordinates(rank), now = new Map<Value, Value>();
  const builder = Builder.extend({ ...graph, level: "rank", nodes: [], outputs: [] });
  const current = (v: Value): Value => now.get(v) ?? v;
  const groups = new Map<string, readonly number[]>();
  const groupOf = (axes: readonly string[], among?: readonly number[]): readonly number[] => {
    if (!groups.has(String(axes))) groups.set(String(axes), mesh.group(rank, axes));
    const group = groups.get(String(axes))!;
    return among ? among.map((place) => group[place]) : group;
  };
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(current), axes = (node.attrs.axes ?? []) as string[];
    const emit = (op: string, operands: readonly Value[], attrs: Node["attrs"]) =>
      builder.emit(op, operands, attrs, node).forEach((v, i) => now.set(node.outputs[i], v));
    const { among, ...own } = node.attrs as Node["attrs"] & { readonly among?: readonly number[] };
    const attrs = resolved(own, mesh.factors, coordinates) as Node["attrs"], [y] = node.outputs;
    if (node.op === "slice_by_rank") {
      const own = pieceOf(axes, mesh.factors, coordinates), { shape } = y, size = num(attrs.size);
      const at = (own + size - num(attrs.back ?? 0)) % size;
      emit("slice", inputs, { starts: shape.map((n, d) => d === num(attrs.dim) ? at * n : 0), shape });
    } else if (node.op === "concat_by_rank") {
      const own = pieceOf(axes, mesh.factors, coordinates), size = inputs.length;
      emit("concat", inputs.map((_, piece) => inputs[(own + size - piece) % size]), { dim: attrs.dim });
    } else if (node.op === "keep_on_first") {
      if (pieceOf(axes, mesh.factors, coordinates) === 0) now.set(y, inputs[0]);
      else emit("constant", [], { value: 0, dtype: y.dtype, shape: y.shape });
    } else emit(node.op, inputs, axes.length > 0 ? { ...attrs, group: groupOf(axes, among) } : attrs);
  }
  for (const { name, value } of graph.outputs) builder.output(name, current(value));
  return builder.finish();
}

function resolved(attr: Attr, degrees: Degrees, coordinates: Degrees): Attr {
  if (Array.isArray(attr)) return attr.map((a: Attr) => resolved(a, degrees, coordinates));
  if (typeof attr !== "object") return attr;
  if ("terms" in attr) {
    const { plus, terms } = attr as RankNumber;
    return terms.reduce((sum, { axes, step }) => sum + pieceOf(axes, degrees, coordinates) * step, plus);
  }
  return Object.fromEntries(Object.entries(attr).map(([key, a]) => [key, resolved(a, degrees, coordinates)]));
}
