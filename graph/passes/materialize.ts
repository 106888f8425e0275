/** Pass `materialize`: where a kernel cannot follow an operand's strides, a copy is made first. Nearly every view is free; this
 * pass makes the others visible in the graph.
 * @module */
import { parseDims } from "../dims.ts";
import { Editor } from "../edit.ts";
import { gemmLabels } from "../gemm.ts";
import type { Graph, Node, Value } from "../ir.ts";
import { str } from "../op.ts";
import { needsCopies, placeValues } from "../place.ts";
import { isPacked } from "../view.ts";

/** Inserts `copy` in front of kernels that need it. */
export function materialize(graph: Graph): Graph {
  const places = placeValues(graph), edit = new Editor(graph);
  for (const node of graph.nodes) {
    if (!needsCopies(node, places)) continue;
    if (node.op === "contract") repackProduct(edit, node);
    else {
      const inputs = node.inputs.map((v) => isPacked(places.of.get(v)!.view) ? v : edit.add(node, "copy", [v]).outputs[0]);
      const again = edit.add(node, node.op, inputs, node.attrs);
      node.outputs.forEach((v, i) => edit.replace(v, again.outputs[i]));
      edit.drop(node);
    }
  }
  return edit.finish();
}

/** The product of operands copied into the order [batch, rows, columns] that a matrix product wants. */
function repackProduct(edit: Editor, node: Node): void {
  const dims = str(node.attrs.dims), { inputs: [a, b], outputs: [c] } = parseDims(dims);
  const { batch, m, n, k } = gemmLabels(dims);
  const pack = (value: Value, term: typeof a, order: readonly string[]): Value => {
    const pattern = `${term.map((d) => d[0]).join(" ")} -> ${order.join(" ")}`;
    return edit.add(node, "copy", [edit.add(node, "transpose", [value], { dims: pattern }).outputs[0]]).outputs[0];
  };
  const orders = [[...batch, ...m, ...k], [...batch, ...k, ...n], [...batch, ...m, ...n]];
  const [pa, pb] = [pack(node.inputs[0], a, orders[0]), pack(node.inputs[1], b, orders[1])];
  const [ta, tb, tc] = orders.map((o) => o.join(" "));
  const product = edit.add(node, "contract", [pa, pb], { dims: `${ta}, ${tb} -> ${tc}` }).outputs[0];
  const back = `${tc} -> ${c.map((d) => d[0]).join(" ")}`;
  const result = edit.add(node, "transpose", [product], { dims: back }).outputs[0];
  if (node.attrs.into) {
    edit.add(node, "accumulate", [result], { states: node.attrs.into, begin: node.attrs.begin });
    edit.drop(node);
  } else edit.replace(node.outputs[0], result);
}
