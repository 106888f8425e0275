/** Ops that only say where elements lie: reshape, transpose, broadcast, slice are views and cost nothing when what reads
 * them can follow strides; concat is where its pieces are written.
 * @module */
import type { Schema } from "../attributes.ts";
import { arr, forEachIndex, stridesOf } from "../array.ts";
import { bindDims, parseDims, type Sizes } from "../dims.ts";
import { type Attrs, type Node, numel, sameType, typeText } from "../ir.ts";
import { defineOp, num, nums, type Op, str } from "../op.ts";
import { sliceView, throughDims, type View } from "../view.ts";

const DIMS: Schema = { dims: { type: "text", doc: "the pattern" } };
const SIZES: Schema = {
  sizes: { type: "sizes", optional: true, doc: "sizes of labels that the operand does not tell", local: "labels" },
};

/** Sizes of the labels of a pattern. */
export function sizesOf(attrs: Attrs, shape: readonly number[]): Record<string, number> {
  const sizes: Sizes = bindDims(str(attrs.dims), [shape], attrs.sizes as Record<string, number>);
  return Object.fromEntries(sizes);
}

/** The view of what lies in another order of dims, if strides can say it. */
const dimsView = ({ attrs }: Node, operand: View): View | undefined =>
  throughDims(operand, str(attrs.dims), attrs.sizes as Record<string, number>);

/** `"a b -> b a"` as `"b a -> a b"`. */
export function reversed(dims: unknown): string {
  const [from, to] = (dims as string).split("->");
  return `${to.trim()} -> ${from.trim()}`;
}

/** Splits and merges dims without moving anything: `"b t (h k) -> b t h k"`. */
export const reshape: Op = defineOp({
  name: "reshape",
  view: dimsView,
  madeAs: ({ attrs, inputs: [x] }, result) => throughDims(result, reversed(attrs.dims), sizesOf(attrs, x.shape)),
  attrs: { ...DIMS, ...SIZES },
  bf16: "kept",
  dims: (attrs) => {
    const { inputs: [from], outputs: [to] } = parseDims(str(attrs.dims));
    const flat = (t: typeof from) => t.flat().filter((l) => l !== "1").join(" ");
    if (flat(from) !== flat(to)) throw new TypeError(`"${str(attrs.dims)}" reorders dims; use transpose`);
    return str(attrs.dims);
  },
  reference: ([x], _attrs, [type]) => [arr(type.shape, x.data)],
  vjp: ({ inputs: [x], cotangents: [dy], attrs }) => [dy!.reshape(reversed(attrs.dims), sizesOf(attrs, x.shape))],
  split: { linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});

/** Permutes dims: `"b t h k -> b h t k"`. */
export const transpose: Op = defineOp({
  name: "transpose",
  view: dimsView,
  attrs: DIMS,
  bf16: "kept",
  dims: (attrs) => {
    const { inputs: [from], outputs: [to] } = parseDims(str(attrs.dims));
    const sorted = (t: typeof from) => t.map((d) => d.join(" ")).sort().join(",");
    if (sorted(from) !== sorted(to)) throw new TypeError(`"${str(attrs.dims)}" is not a permutation`);
    return str(attrs.dims);
  },
  reference: ([x], attrs, [type]) => {
    const { inputs: [from], outputs: [to] } = parseDims(str(attrs.dims));
    const strides = stridesOf(x.shape);
    const permuted = to.map((d) => strides[from.findIndex((f) => f[0] === d[0])]);
    const out = arr(type.shape);
    forEachIndex(type.shape, [permuted], ([i], flat) => out.data[flat] = x.data[i]);
    return [out];
  },
  vjp: ({ cotangents: [dy], attrs }) => [dy!.transpose(reversed(attrs.dims))],
  split: { linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});

/** Repeats along new dims: `"d -> b t d"` with the sizes of all labels. */
export const broadcast: Op = defineOp({
  name: "broadcast",
  view: dimsView,
  attrs: { ...DIMS, ...SIZES },
  bf16: "kept",
  dims: (attrs) => str(attrs.dims),
  reference: ([x], attrs, [type]) => {
    const { inputs: [from], outputs: [to] } = parseDims(str(attrs.dims));
    const strides = stridesOf(x.shape);
    const repeated = to.map((d) => {
      const k = from.findIndex((f) => f[0] === d[0]);
      return k < 0 ? 0 : strides[k];
    });
    const out = arr(type.shape);
    forEachIndex(type.shape, [repeated], ([i], flat) => out.data[flat] = x.data[i]);
    return [out];
  },
  vjp: ({ cotangents: [dy], attrs }) => dy!.apply("reduce", [], { dims: reversed(attrs.dims), kind: "sum" }),
  split: { linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});

/** Dims of which there is a part. */
function slicedDims({ inputs: [x], outputs: [y] }: Node): number[] {
  return x.shape.flatMap((size, dim) => size === y.shape[dim] ? [] : [dim]);
}

/** `"1 b -> 1 b"`: a dim that is cut must be whole. */
function sliceDims({ inputs: [x], outputs: [y] }: Node): string {
  const term = x.shape.map((n, d) => n === y.shape[d] ? `dim${d}` : "1").join(" ");
  return `${term} -> ${term}`;
}

/** The box that starts at `starts` with shape `shape`. */
export const slice: Op = defineOp({
  name: "slice",
  view: ({ attrs }, operand) => sliceView(operand, nums(attrs.starts), nums(attrs.shape)),
  attrs: {
    starts: { type: "integers", doc: "where the box begins" },
    shape: { type: "integers", doc: "its sizes", local: "output" },
  },
  bf16: "kept",
  infer: ([x], attrs) => {
    const starts = nums(attrs.starts), shape = nums(attrs.shape);
    const fits = starts.length === x.shape.length && shape.length === x.shape.length &&
      x.shape.every((n, d) => starts[d] >= 0 && shape[d] > 0 && starts[d] + shape[d] <= n);
    if (!fits) throw new TypeError(`box [${starts}] + [${shape}] does not lie inside ${typeText(x)}`);
    return [{ dtype: x.dtype, shape }];
  },
  reference: ([x], attrs, [type]) => {
    const strides = stridesOf(x.shape);
    const base = nums(attrs.starts).reduce((sum, s, d) => sum + s * strides[d], 0);
    const out = arr(type.shape);
    forEachIndex(type.shape, [strides], ([i], flat) => out.data[flat] = x.data[base + i]);
    return [out];
  },
  vjp: ({ inputs: [x], cotangents: [dy], attrs }) => {
    // Pad with zeros, one dim at a time: zeros before and after the box.
    let padded = dy!;
    nums(attrs.starts).forEach((start, d) => {
      const zeros = (n: number) => {
        const shape = padded.shape.map((s, k) => k === d ? n : s);
        return padded.constant(0, shape);
      };
      const after = x.shape[d] - start - padded.shape[d];
      if (after > 0) padded = padded.concat([zeros(after)], d);
      if (start > 0) padded = zeros(start).concat([padded], d);
    });
    return [padded];
  },
  split: { dims: sliceDims, ordered: slicedDims, linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});

/** `"a 1, a 1 -> a 1"`: what is joined must be whole. */
function concatDims({ inputs, outputs: [y], attrs }: Node): string {
  const term = y.shape.map((_, d) => d === attrs.dim ? "1" : `dim${d}`).join(" ");
  return `${inputs.map(() => term).join(", ")} -> ${term}`;
}

/** Its inputs, one after another along `dim`. */
export const concat: Op = defineOp({
  name: "concat",
  joins: true,
  attrs: { dim: { type: "integer", doc: "along which" } },
  bf16: "kept",
  infer: (inputs, attrs) => {
    const dim = num(attrs.dim), first = inputs[0];
    if (!(dim in first.shape)) throw new TypeError(`${typeText(first)} has no dim ${dim}`);
    for (const t of inputs) {
      const like = { dtype: t.dtype, shape: t.shape.map((n, d) => d === dim ? first.shape[d] : n) };
      if (!sameType(like, first)) {
        throw new TypeError(`${typeText(t)} does not fit ${typeText(first)} along dim ${dim}`);
      }
    }
    const joined = inputs.reduce((n, t) => n + t.shape[dim], 0);
    return [{ dtype: first.dtype, shape: first.shape.map((n, d) => d === dim ? joined : n) }];
  },
  reference: (inputs, attrs, [type]) => {
    const dim = num(attrs.dim), out = arr(type.shape);
    const inner = numel(type.shape.slice(dim + 1)), outer = numel(type.shape.slice(0, dim));
    let at = 0;
    for (const x of inputs) {
      const run = x.shape[dim] * inner;
      for (let o = 0; o < outer; o++) {
        out.data.set(x.data.subarray(o * run, (o + 1) * run), o * type.shape[dim] * inner + at);
      }
      at += run;
    }
    return [out];
  },
  vjp: ({ inputs, cotangents: [dy], attrs }) => {
    let at = 0;
    return inputs.map((x) => {
      const starts = x.shape.map((_, d) => d === attrs.dim ? at : 0);
      at += x.shape[num(attrs.dim)];
      return dy!.slice(starts, x.shape);
    });
  },
  split: { dims: concatDims, ordered: ({ attrs }) => [num(attrs.dim)], linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});

/** The same numbers in memory of their own, packed. Made by `materialize` where a kernel cannot follow strides. */
export const copyOp: Op = defineOp({
  name: "copy",
  link: true,
  bf16: "kept",
  dims: "... -> ...",
  reference: ([x]) => [x],
  vjp: ({ cotangents: [dy] }) => [dy],
  split: { linear: "all" },
  recompute: "cheap",
  flops: () => 0,
});
