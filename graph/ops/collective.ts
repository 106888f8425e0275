/** What ranks do together, and what a rank does because of where it stands. Pass `partition` makes these nodes; `axes` names the
 * axes of the mesh whose ranks take part, the outermost first, and `size` is their number. `graphOfRank` then gives collectives
 * their `group`, the ranks in that order, and turns the rest into ordinary ops. Their meaning needs all ranks: `interpretRanks`.
 * @module */
import { GROUP, RANKS, type Schema } from "../attributes.ts";
import { type Arr, zip } from "../array.ts";
import { type Attrs, type Node, numel, sizeBytes, type Type, typeText } from "../ir.ts";
import { defineOp, type KernelCall, num, nums, type Op, withoutKernel } from "../op.ts";
import { isPacked, type View } from "../view.ts";
import { concat, slice } from "./shape.ts";

const DIM: Schema = { dim: { type: "integer", doc: "the dim that is cut, or joined" } };
const BY: Schema = {
  by: { type: "text", optional: true, doc: "how it is reduced: sum (the default) or max" },
};

const withDim = (shape: readonly number[], dim: number, size: number): number[] =>
  shape.map((n, d) => d === dim ? size : n);

function piece({ dtype, shape }: Type, attrs: Attrs): Type {
  const dim = num(attrs.dim), size = num(attrs.size);
  if (!(dim in shape) || shape[dim] % size !== 0) {
    throw new TypeError(`dim ${dim} of [${shape}] is not a multiple of ${size}`);
  }
  return { dtype, shape: withDim(shape, dim, shape[dim] / size) };
}

function whole({ dtype, shape }: Type, attrs: Attrs): Type {
  const dim = num(attrs.dim);
  if (!(dim in shape)) throw new TypeError(`[${shape}] has no dim ${dim}`);
  return { dtype, shape: withDim(shape, dim, shape[dim] * num(attrs.size)) };
}

function reduced(parts: readonly Arr[], attrs: Attrs): Arr {
  return parts.reduce((a, b) => zip([a, b], attrs.by === "max" ? (x, y) => Math.max(x, y) : (x, y) => x + y));
}

function pieceAt(x: Arr, attrs: Attrs, at: number): Arr {
  const { shape } = piece({ dtype: "f64", shape: x.shape }, attrs), dim = num(attrs.dim);
  const starts = shape.map((n, d) => d === dim ? at * n : 0);
  return slice.reference!([x], { starts, shape }, [{ dtype: "f64", shape }])[0];
}

/** The kernel of a collective: the ranks of the group, and along which dim pieces are cut. */
function together(node: Node): KernelCall {
  const { group, dim, by, last } = node.attrs, n = node.inputs.length;
  if (group === undefined) return withoutKernel(node);
  const dims = dim === undefined ? [] : node.inputs.map(() => num(dim));
  return { kernel: node.op, attrs: { n, group: nums(group), dims, by: by === "max" ? 1 : 0, last: last ? 1 : 0 } };
}

/** Output types of tensors of one element type, one for each. */
function eachType(inputs: readonly Type[], made: (input: Type) => Type): Type[] {
  const other = inputs.find((t) => t.dtype !== inputs[0].dtype);
  if (other) throw new TypeError(`operands are ${inputs[0].dtype} and ${other.dtype}; expected one type for all`);
  return inputs.map(made);
}

const elements = (node: Node): number => node.inputs.reduce((n, v) => n + numel(v.shape), 0);

/** Others read the memory as it lies. */
function packedViews(_node: Node, views: readonly View[]): readonly View[] | string {
  const strided = views.findIndex((view) => !isPacked(view));
  return strided < 0 ? views : `operand ${strided} is not packed`;
}

/** Tensor by tensor: what makes one of the parts that the ranks have of it. */
const each =
  (make: (parts: readonly Arr[], attrs: Attrs, at: number) => Arr): Op["together"] => (operands, attrs, at) =>
    operands[0].map((_, i) => make(operands.map((own) => own[i]), attrs, at));

/** Rows that may lie apart, each packed: what a shift moves, from rank to rank into another place. */
function rowViews(_node: Node, views: readonly View[]): readonly View[] | string {
  const rows = views.map(({ offset, shape, strides }): View | undefined => {
    const row = { offset, shape: shape.slice(1), strides: strides.slice(1) }, size = numel(row.shape);
    return isPacked(row) ? { offset, shape: [shape[0] ?? 1, size], strides: [strides[0] ?? 1, 1] } : undefined;
  });
  const strided = rows.findIndex((view) => view === undefined);
  return strided < 0 ? rows as View[] : `operand ${strided} is not made of packed rows`;
}

/** The pieces of all ranks, one after another along `dim`. */
export const allGather: Op = defineOp({
  name: "all_gather",
  attrs: { ...GROUP, ...DIM },
  infer: (inputs, attrs) => eachType(inputs, (x) => whole(x, attrs)),
  together: each((parts, attrs) =>
    concat.reference!(parts, attrs, [whole({ dtype: "f64", shape: parts[0].shape }, attrs)])[0]
  ),
  bf16: "kept",
  recompute: "collective",
  kernel: together,
  views: packedViews,
  flops: () => 0,
});

/** Each rank's piece along `dim` of the sum (or, `by` max, the maximum) of what all have. */
export const reduceScatter: Op = defineOp({
  name: "reduce_scatter",
  attrs: { ...GROUP, ...DIM, ...BY },
  infer: (inputs, attrs) => eachType(inputs, (x) => piece(x, attrs)),
  together: each((parts, attrs, at) => pieceAt(reduced(parts, attrs), attrs, at)),
  bf16: "kept",
  recompute: "collective",
  kernel: together,
  views: packedViews,
  flops: elements,
});

/** The sum (or, `by` max, the maximum) of what all ranks have, of any number of tensors. With the attribute `last` it is done in a
 * step's last microbatch alone: in others everything stays as it is, so it has to be made in place. */
export const allReduce: Op = defineOp({
  name: "all_reduce",
  attrs: {
    ...GROUP,
    ...BY,
    last: { type: "flag", optional: true, writer: "reduce_sums", doc: "is it done in a step's last microbatch alone?" },
  },
  infer: (inputs) => eachType(inputs, ({ dtype, shape }) => ({ dtype, shape })),
  together: each(reduced),
  bf16: "kept",
  recompute: "collective",
  kernel: together,
  views: packedViews,
  flops: elements,
  inPlace: (node) => node.inputs.map((_, i) => [i, i]),
});

/** Every rank hands its tensors to the next of the group, and is given those of the one before; the last one's go to the first. */
export const ringShift: Op = defineOp({
  name: "ring_shift",
  attrs: GROUP,
  infer: (inputs) => eachType(inputs, ({ dtype, shape }) => ({ dtype, shape })),
  together: (operands, _attrs, at) => operands[(at + operands.length - 1) % operands.length],
  bf16: "kept",
  recompute: "collective",
  kernel: together,
  views: rowViews,
  flops: () => 0,
});

/** The rank's own piece along `dim` of what all have; with `back`, that of the rank so many places before it in the group's ring. */
export const sliceByRank: Op = defineOp({
  name: "slice_by_rank",
  attrs: { ...RANKS, ...DIM, back: { type: "integer", optional: true, doc: "whose piece: how many ranks before" } },
  infer: ([x], attrs) => [piece(x, attrs)],
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
  kernel: withoutKernel,
});

/** Pieces of all ranks as they come around the ring, the own one first, then that of the rank before: one after another along `dim`, in
 * the order of the group. */
export const concatByRank: Op = defineOp({
  name: "concat_by_rank",
  attrs: { ...RANKS, ...DIM },
  infer: ([x, ...others], attrs) => {
    const other = others.find((type) => typeText(type) !== typeText(x));
    if (other) throw new TypeError(`pieces are ${typeText(x)} and ${typeText(other)}`);
    if (1 + others.length !== num(attrs.size)) {
      throw new TypeError(`${1 + others.length} pieces for ${attrs.size} ranks`);
    }
    return [whole(x, attrs)];
  },
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
  kernel: withoutKernel,
});

/** The value on the first rank of the group, zeros on the others: the free way from a whole to summands. */
export const keepOnFirst: Op = defineOp({
  name: "keep_on_first",
  attrs: RANKS,
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
  kernel: withoutKernel,
});

/** Number of bytes that each rank sends in a collective done by rings; 0 for other nodes. */
export function sentBytes(node: Node): number {
  const size = num(node.attrs.size), bytes = node.inputs.reduce((sum, v) => sum + sizeBytes(v), 0);
  switch (node.op) {
    case "all_gather":
      return bytes * (size - 1);
    case "reduce_scatter":
      return bytes * (size - 1) / size;
    case "all_reduce":
      return 2 * bytes * (size - 1) / size;
    case "ring_shift":
      return bytes;
    default:
      return 0;
  }
}
