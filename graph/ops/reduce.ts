import { arr, forEachIndex, stridesOf } from "../array.ts";
import { parseDims } from "../dims.ts";
import { numel } from "../ir.ts";
import { defineOp, type Op, str } from "../op.ts";

/** Strides of the output of `"a b -> a"`, one for each input dim: 0 where the dim is summed away. */
export function reducedStrides(dims: string, outputStrides: readonly number[]): number[] {
  const { inputs: [from], outputs: [to] } = parseDims(dims);
  return from.map((d) => {
    const k = to.findIndex((t) => t[0] === d[0]);
    return k < 0 ? 0 : outputStrides[k];
  });
}

/** Sum or maximum over the dims that the output lacks: `"b t d -> b t"`. */
export const reduce: Op = defineOp({
  name: "reduce",
  attrs: {
    dims: { type: "text", doc: "the signature" },
    kind: { type: "text", values: ["sum", "max"], doc: "what is made of them" },
  },
  integers: [],
  dims: (attrs) => str(attrs.dims),
  reference: ([x], attrs, [type]) => {
    const max = attrs.kind === "max";
    const out = arr(type.shape, arr(type.shape).data.fill(max ? -Infinity : 0));
    const strides = [stridesOf(x.shape), reducedStrides(str(attrs.dims), stridesOf(type.shape))];
    forEachIndex(x.shape, strides, ([i, o]) => {
      out.data[o] = max ? Math.max(out.data[o], x.data[i]) : out.data[o] + x.data[i];
    });
    return [out];
  },
  vjp: ({ inputs: [x], outputs: [y], cotangents: [dy], attrs }) => {
    const [from, to] = str(attrs.dims).split("->").map((s) => s.trim());
    const labels = from.split(/\s+/).filter((l) => l !== "");
    const sizes = Object.fromEntries(labels.map((l, d) => [l, x.shape[d]]));
    const spread = (t: typeof y) => t.apply("broadcast", [], { dims: `${to} -> ${from}`, sizes })[0];
    if (attrs.kind === "sum") return [spread(dy!)];
    // Elements that tie for the maximum share its gradient.
    const hit = x.equal(spread(y));
    const count = hit.apply("reduce", [], { dims: str(attrs.dims), kind: "sum" })[0];
    return [hit.mul(spread(dy!.div(count)))];
  },
  split: { by: (attrs) => attrs.kind === "max" ? "max" : "sum", linear: (attrs) => attrs.kind === "max" ? [] : "all" },
  recompute: "cheap",
  flops: (node) => numel(node.inputs[0].shape),
});
