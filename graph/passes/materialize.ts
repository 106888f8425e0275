/** Pass `materialize`: a copy where a view will not do: in front of a kernel that cannot follow an operand's strides, of a
 * collective on an input, which lies where other ranks cannot read, and of a state that is changed before its old value was last
 * used. Nearly every view is free; this pass makes the others visible in
 * the graph.
 * @module */
import { parseDims } from "../dims.ts";
import { Editor, hasEffect, touchedStates } from "../edit.ts";
import { stateUse } from "../facts.ts";
import { gemmLabels } from "../gemm.ts";
import type { Graph, Node, Value } from "../ir.ts";
import { str } from "../op.ts";
import { type Base, isForeign, needsCopies, placeValues } from "../place.ts";
import type { Target } from "../target/target.ts";
import { isPacked } from "../view.ts";

/** Is this a copy that had to be made? */
export function isCopy({ op }: Node): boolean {
  return op === "copy";
}

/** Inserts `copy` where kernels of a target need it. */
export function materialize(graph: Graph, target: Target): Graph {
  return { ...packOperands(keepOldStates(graph, target), target), level: "placed" };
}

/** Copies where a kernel cannot follow strides; a product that is made packed may be what another kernel cannot follow. */
function packOperands(graph: Graph, target: Target): Graph {
  const places = placeValues(graph, target),
    edit = new Editor(graph),
    unfit = graph.nodes.filter((n) => needsCopies(n, places));
  if (unfit.length === 0) return graph;
  for (const node of unfit) {
    if (node.op === "contract") repackProduct(edit, node);
    else {
      const inputs = node.inputs.map((v) =>
        isPacked(places.of.get(v)!.view) && !isForeign(node, places.of.get(v)!.base)
          ? v
          : edit.add(node, "copy", [v]).outputs[0]
      );
      const again = edit.add(node, node.op, inputs, node.attrs);
      node.outputs.forEach((v, i) => edit.replace(v, again.outputs[i]));
      edit.drop(node);
    }
  }
  return packOperands(edit.finish(), target);
}

/** A `read` is the state's own memory: where that is changed while the value, or a view of it, is still needed, it is copied. */
function keepOldStates(graph: Graph, target: Target): Graph {
  const places = placeValues(graph, target), edit = new Editor(graph);
  const changes = new Map<string, number[]>();
  for (const [at, node] of graph.nodes.entries()) {
    if (hasEffect(node)) { for (const s of touchedStates(node)) changes.set(s, [...changes.get(s) ?? [], at]); }
  }
  const lastUse = new Map<Base, number>();
  for (const [at, node] of graph.nodes.entries()) {
    if (!places.isView(node)) node.inputs.forEach((v) => lastUse.set(places.of.get(v)!.base, at));
  }
  for (const { value } of graph.outputs) lastUse.set(places.of.get(value)!.base, graph.nodes.length);
  for (const [at, node] of graph.nodes.entries()) {
    if (stateUse(node) !== "reads") continue;
    const [value] = node.outputs, last = lastUse.get(places.of.get(value)!.base) ?? at;
    const states = touchedStates(node);
    if (!states.some((s) => changes.get(s)?.some((change) => change > at && change <= last))) continue;
    const old = edit.add(node, node.op, [], node.attrs).outputs;
    edit.replace(value, edit.add(node, "copy", old).outputs[0]);
  }
  return edit.finish();
}

/** The product of operands copied into the order [batch, rows, columns] that a matrix product wants; float8 has what is summed over last. */
function repackProduct(edit: Editor, node: Node): void {
  const dims = str(node.attrs.dims), { inputs: [a, b], outputs: [c] } = parseDims(dims);
  const { batch, m, n, k } = gemmLabels(dims);
  const pack = (value: Value, term: typeof a, order: readonly string[]): Value => {
    const pattern = `${term.map((d) => d[0]).join(" ")} -> ${order.join(" ")}`;
    return edit.add(node, "copy", [edit.add(node, "transpose", [value], { dims: pattern }).outputs[0]]).outputs[0];
  };
  const right = node.inputs.every((v) => v.dtype.startsWith("f8")) ? [...n, ...k] : [...k, ...n];
  const orders = [[...batch, ...m, ...k], [...batch, ...right], [...batch, ...m, ...n]];
  const [pa, pb] = [pack(node.inputs[0], a, orders[0]), pack(node.inputs[1], b, orders[1])];
  const [ta, tb, tc] = orders.map((o) => o.join(" "));
  const { into, begin, ...own } = node.attrs;
  const product = edit.add(node, "contract", [pa, pb], { ...own, dims: `${ta}, ${tb} -> ${tc}` }).outputs[0];
  const back = `${tc} -> ${c.map((d) => d[0]).join(" ")}`;
  const result = edit.add(node, "transpose", [product], { dims: back }).outputs[0];
  if (into) {
    edit.add(node, "accumulate", [result], { states: into, begin });
    edit.drop(node);
  } else edit.replace(node.outputs[0], result);
}
