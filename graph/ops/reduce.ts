import { arr, forEachIndex, stridesOf } from "../array.ts";
import { parseDims } from "../dims.ts";
import { numel } from "../ir.ts";
import { defineOp, mayBeBf16, type Op, str } from "../op.ts";

/** Strides of the output of `"a b -> a"`, one for each input dim: 0 where the dim is summed away. */
export function reducedStrides(dims: string, outputStrides: readonly number[]): number[] {
  const { inputs: [from], outputs: [to] } = parseDims(dims);
  return from.map((d) => {
    const k = to.findIndex((t) => t[0] === d[0]);
    return k < 0 ? 0 : outputStrides[k];
  });
}

/** Sum, maximum or largest absolute value over the dims that the output lacks: `"b t d -> b t"`. */
export const reduce: Op = defineOp({
  name: "reduce",
  attrs: {
    dims: { type: "text", doc: "the signature" },
    kind: { type: "text", values: ["sum", "max", "max_abs"], doc: "what is made of them" },
  },
  integers: [],
  dims: (attrs) => str(attrs.dims),
  bf16: mayBeBf16([0], []),
  reference: ([x], attrs, [type]) => {
    const isSum = attrs.kind === "sum", size = attrs.kind === "max_abs" ? Math.abs : (v: number) => v;
    const out = arr(type.shape, arr(type.shape).data.fill(attrs.kind === "max" ? -Infinity : 0));
    const strides = [stridesOf(x.shape), reducedStrides(str(attrs.dims), stridesOf(type.shape))];
    forEachIndex(x.shape, strides, ([i, o]) => {
      out.data[o] = isSum ? out.data[o] + x.data[i] : Math.max(out.data[o], size(x.data[i]));
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
    const isSize = attrs.kind === "max_abs", hit = (isSize ? x.abs() : x).equal(spread(y));
    const count = hit.apply("reduce", [], { dims: str(attrs.dims), kind: "sum" })[0];
    const dx = hit.mul(spread(dy!.div(count)));
    return [isSize ? x.less(0).select(dx.neg(), dx) : dx];
  },
  split: {
    by: (attrs) => attrs.kind === "sum" ? "sum" : "max",
    linear: (attrs) => attrs.kind === "sum" ? "all" : [],
  },
  recompute: "cheap",
  flops: (node) => numel(node.inputs[0].shape),
});
