/** A fusion of GPUs: cuDNN runs attention that reads no positions.
 * @module */
import { Editor } from "../../edit.ts";
import type { Graph } from "../../ir.ts";

/** Attention whose queries and keys have the positions that an input counts needs not look at them. */
export function orderedAttention(graph: Graph): Graph {
  const counted = new Set(graph.inputs.filter((i) => i.counts).map((i) => i.value)), edit = new Editor(graph);
  for (const node of graph.nodes) {
    const at = { attention: 3, attention_backward: 6 }[node.op], [q, k] = at ? node.inputs.slice(at) : [];
    if (!at || q !== k || !counted.has(q) || node.attrs.documents) continue;
    const ordered = edit.add(node, node.op, node.inputs, { ...node.attrs, ordered: true });
    node.outputs.forEach((v, i) => edit.replace(v, ordered.outputs[i]));
  }
  return edit.finish();
}
