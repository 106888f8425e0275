/** What ranks do together, and what a rank does because of where it stands. Pass `partition` makes these nodes; `axes` names the
 * axes of the mesh whose ranks take part, the outermost first, and `size` is their number. `graphOfRank` then gives collectives
 * their `group`, the ranks in that order, and turns the rest into ordinary ops. Their meaning needs all ranks: `interpretRanks`.
 * @module */
import { GROUP, RANKS, type Schema } from "../attributes.ts";
import { type Arr, zip } from "../array.ts";
import { type Attr, type Attrs, type Node, numel, sameType, sizeBytes, type Type, typeText } from "../ir.ts";
import { defineOp, num, nums, type Op } from "../op.ts";
import { concat, slice } from "./shape.ts";

const DIM: Schema = { dim: { type: "integer", doc: "the dim that is cut, or joined" } };
const BY: Schema = {
  by: { type: "text", values: ["sum", "max"], optional: true, doc: "how it is reduced; default: sum" },
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

function joinedType({ dtype, shape }: Type, attrs: Attrs): Type {
  const dim = num(attrs.dim);
  if (!(dim in shape)) throw new TypeError(`[${shape}] has no dim ${dim}`);
  return { dtype, shape: withDim(shape, dim, shape[dim] * num(attrs.size)) };
}

function reduced(parts: readonly Arr[], attrs: Attrs): Arr {
  return parts.reduce((a, b) => zip([a, b], attrs.by === "max" ? (x, y) => Math.max(x, y) : (x, y) => x + y));
}

/** The attributes of the cut, and of the join, of an all_to_all. */
const cutOf = ({ split, size }: Attrs): Attrs => ({ dim: split, size });
const joinOf = ({ join, size }: Attrs): Attrs => ({ dim: join, size });

function joined(parts: readonly Arr[], attrs: Attrs): Arr {
  return concat.reference!(parts, attrs, [joinedType({ dtype: "f64", shape: parts[0].shape }, attrs)])[0];
}

function pieceAt(x: Arr, attrs: Attrs, at: number): Arr {
  const { shape } = piece({ dtype: "f64", shape: x.shape }, attrs), dim = num(attrs.dim);
  const starts = shape.map((n, d) => d === dim ? at * n : 0);
  return slice.reference!([x], { starts, shape }, [{ dtype: "f64", shape }])[0];
}

/** Output types of tensors of one element type, one for each. */
function eachType(inputs: readonly Type[], made: (input: Type) => Type): Type[] {
  const other = inputs.find((t) => t.dtype !== inputs[0].dtype);
  if (other) throw new TypeError(`operands are ${inputs[0].dtype} and ${other.dtype}; expected one type for all`);
  return inputs.map(made);
}

/** Bytes that a rank sends, from those that it gives and the number of ranks. */
const sends = (bytes: (given: number, n: number) => number): Op["sends"] => (node) =>
  bytes(node.inputs.reduce((sum, v) => sum + sizeBytes(v), 0), num(node.attrs.size));

const elements = (node: Node): number => node.inputs.reduce((n, v) => n + numel(v.shape), 0);

/** Tensor by tensor: what makes one of the parts that the ranks have of it. */
const each =
  (make: (parts: readonly Arr[], attrs: Attrs, at: number) => Arr): Op["together"] => (operands, attrs, at) =>
    operands[0].map((_, i) => make(operands.map((own) => own[i]), attrs, at));

/** The pieces of all ranks, one after another along `dim`. With the attribute `first` it is done in a step's first microbatch alone: in
 * others everything stays as it is, so what it gives has memory of its own. */
export const allGather: Op = defineOp({
  name: "all_gather",
  exchange: "gather",
  rowwise: "dims",
  attrs: {
    ...GROUP,
    ...DIM,
    first: {
      type: "flag",
      optional: true,
      writer: "gather_once",
      doc: "is it done in a step's first microbatch alone?",
    },
  },
  infer: (inputs, attrs) => eachType(inputs, (x) => joinedType(x, attrs)),
  together: each(joined),
  sends: sends((given, n) => given * (n - 1)),
  bf16: "kept",
  recompute: "collective",
  flops: () => 0,
});

/** Each rank's piece along `dim` of the sum (or, `by` max, the maximum) of what all have. */
export const reduceScatter: Op = defineOp({
  name: "reduce_scatter",
  exchange: "reduction",
  rowwise: "dims",
  attrs: { ...GROUP, ...DIM, ...BY },
  infer: (inputs, attrs) => eachType(inputs, (x) => piece(x, attrs)),
  together: each((parts, attrs, at) => pieceAt(reduced(parts, attrs), attrs, at)),
  sends: sends((given, n) => given * (n - 1) / n),
  bf16: "kept",
  recompute: "collective",
  flops: elements,
});

/** The sum (or, `by` max, the maximum) of what all ranks have, of any number of tensors. With the attribute `last` it is done in a
 * step's last microbatch alone: in others everything stays as it is, so it has to be made in place. */
export const allReduce: Op = defineOp({
  name: "all_reduce",
  exchange: "reduction",
  rowwise: "dims",
  attrs: {
    ...GROUP,
    ...BY,
    last: { type: "flag", optional: true, writer: "reduce_sums", doc: "is it done in a step's last microbatch alone?" },
  },
  infer: (inputs) => eachType(inputs, ({ dtype, shape }) => ({ dtype, shape })),
  together: each(reduced),
  sends: sends((given, n) => 2 * given * (n - 1) / n),
  bf16: "kept",
  recompute: "collective",
  flops: elements,
});

/** Every rank hands its tensors to the next of the group, and is given those of the one before; the last one's go to the first. */
export const ringShift: Op = defineOp({
  name: "ring_shift",
  attrs: GROUP,
  infer: (inputs) => eachType(inputs, ({ dtype, shape }) => ({ dtype, shape })),
  together: (operands, _attrs, at) => operands[(at + operands.length - 1) % operands.length],
  sends: sends((given) => given),
  bf16: "kept",
  recompute: "collective",
  flops: () => 0,
});

/** A value that is cut along dim `join` becomes one that is cut along dim `split`: each rank gives every other a piece of what it has. */
export const allToAll: Op = defineOp({
  name: "all_to_all",
  rowwise: "dims",
  attrs: {
    ...GROUP,
    split: { type: "integer", doc: "the dim that is cut" },
    join: { type: "integer", doc: "the dim that is cut no longer" },
  },
  infer: (inputs, attrs) => {
    if (attrs.split === attrs.join) throw new TypeError(`dim ${attrs.split} is cut and joined; expected two dims`);
    return eachType(inputs, (x) => joinedType(piece(x, cutOf(attrs)), joinOf(attrs)));
  },
  together: each((parts, attrs, at) => joined(parts.map((x) => pieceAt(x, cutOf(attrs), at)), joinOf(attrs))),
  vjp: ({ cotangents, attrs }) => {
    const back = { ...attrs, split: attrs.join, join: attrs.split };
    return cotangents.map((dy) => dy?.apply("all_to_all", [], back)[0]);
  },
  sends: sends((given, n) => given * (n - 1) / n),
  bf16: "kept",
  recompute: "collective",
  flops: () => 0,
});

/** Tensors go from some members of the group to others. All members have the same list of them, and come to it at the same point of
 * their order; each gives those that it sends and is given those that it receives, in the order of the list. */
export const exchange: Op = defineOp({
  name: "exchange",
  attrs: {
    size: GROUP.size,
    axes: { ...GROUP.axes, optional: true },
    group: { type: "integers", doc: "the ranks that meet, in order" },
    member: { type: "integer", doc: "which of them this rank is" },
    from: { type: "integers", doc: "by tensor: the member that sends it" },
    to: { type: "integers", doc: "by tensor: the member that receives it" },
    types: { type: "types", doc: "by tensor: its type" },
  },
  infer: (inputs, attrs) => {
    const [sent, received] = [attrs.from, attrs.to].map((ends) => {
      return (attrs.types as unknown as Type[]).filter((_, i) => nums(ends)[i] === attrs.member);
    });
    const fault = exchangeFault(attrs);
    if (fault) throw new TypeError(fault);
    const fits = sent.length === inputs.length && sent.every((type, i) => sameType(type, inputs[i]));
    if (fits) return received.map(({ dtype, shape }) => ({ dtype, shape }));
    const [expected, given] = [sent, inputs].map((types) => types.map(typeText).join(", ") || "nothing");
    throw new TypeError(`member ${attrs.member} is given ${given}; expected what it sends: ${expected}`);
  },
  together: (operands, attrs, at) => {
    const [from, to] = [nums(attrs.from), nums(attrs.to)], sent = operands.map(() => 0);
    const values = from.map((member) => operands[member][sent[member]++]);
    return values.filter((_, i) => to[i] === at);
  },
  sends: sends((given) => given),
  bf16: "kept",
  recompute: "collective",
  flops: () => 0,
});

function exchangeFault({ from, to, types, size, member }: Attrs): string | undefined {
  const [senders, receivers] = [nums(from), nums(to)], { length } = types as readonly Attr[];
  if (senders.length !== length || receivers.length !== length) {
    return `${length} tensors go from ${senders.length} members to ${receivers.length}; expected one of each for every tensor`;
  }
  const stranger = [num(member), ...senders, ...receivers].find((m) => !(m >= 0 && m < num(size)));
  if (stranger !== undefined) return `member ${stranger} is none of ${size}`;
  const own = senders.findIndex((m, i) => m === receivers[i]);
  return own < 0 ? undefined : `tensor ${own} goes from member ${senders[own]} to itself`;
}

/** The rank's own piece along `dim` of what all have; with `back`, that of the rank so many places before it in the group's ring. */
export const sliceByRank: Op = defineOp({
  name: "slice_by_rank",
  link: true,
  rowwise: "dims",
  attrs: { ...RANKS, ...DIM, back: { type: "integer", optional: true, doc: "whose piece: how many ranks before" } },
  infer: ([x], attrs) => [piece(x, attrs)],
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
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
    return [joinedType(x, attrs)];
  },
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
});

/** The value on the first rank of the group, zeros on the others: the free way from a whole to summands. */
export const keepOnFirst: Op = defineOp({
  name: "keep_on_first",
  link: true,
  attrs: RANKS,
  infer: ([x]) => [{ dtype: x.dtype, shape: x.shape }],
  bf16: "kept",
  recompute: "cheap",
  flops: () => 0,
});
