/** What ranks do together, for the memory that they see of each other: as it lies, packed.
 * @module */
import { type Attr, type Node, numel, sizeBytes, type Type } from "../../ir.ts";
import { num, nums } from "../../op.ts";
import { isPacked, type View } from "../../view.ts";
import type { KernelCall, Lowering, Lowerings } from "../target.ts";

/** The ranks of the group, and along which dims pieces are cut and joined.
 * @throws {TypeError} when the group is still open. */
function together({ op, inputs, attrs }: Node): KernelCall {
  const { group, by, first, last } = attrs, n = inputs.length;
  if (group === undefined) {
    throw new TypeError(`Cannot run "${op}" natively: it has no group of ranks; expected a graph of one rank alone`);
  }
  const each = (dim: Attr | undefined) => dim === undefined ? [] : inputs.map(() => num(dim));
  const [dims, splits, joins] = [attrs.dim, attrs.split, attrs.join].map(each);
  const when = { first: first ? 1 : 0, last: last ? 1 : 0 };
  return { kernel: op, attrs: { n, group: nums(group), dims, splits, joins, by: by === "max" ? 1 : 0, ...when } };
}

/** Others read the memory as it lies. */
function packedViews(_node: Node, views: readonly View[]): readonly View[] | string {
  const strided = views.findIndex((view) => !isPacked(view));
  return strided < 0 ? views : `operand ${strided} is not packed`;
}

/** Rows that may lie apart, each packed: what a shift moves, from rank to rank into another place. */
function rowViews(_node: Node, views: readonly View[]): readonly View[] | string {
  const rows = views.map(({ offset, shape, strides }): View | undefined => {
    const row = { offset, shape: shape.slice(1), strides: strides.slice(1) }, size = numel(row.shape);
    return isPacked(row) ? { offset, shape: [shape[0] ?? 1, size], strides: [strides[0] ?? 1, 1] } : undefined;
  });
  const strided = rows.findIndex((view) => view === undefined);
  return strided < 0 ? rows as View[] : `operand ${strided} is not made of packed rows`;
}

const packed: Lowering = { kernel: together, views: packedViews };

/** How ranks exchange. */
export const collectives: Lowerings = {
  all_gather: packed,
  reduce_scatter: packed,
  all_reduce: { ...packed, inPlace: ({ inputs }) => inputs.map((_, i) => [i, i]) },
  ring_shift: { kernel: together, views: rowViews },
  all_to_all: packed,
  exchange: {
    kernel: ({ inputs, attrs }) => {
      const bytes = (attrs.types as unknown as Type[]).map(sizeBytes);
      const [group, from, to] = [attrs.group, attrs.from, attrs.to].map(nums);
      return {
        kernel: "exchange",
        attrs: { inputs: inputs.length, member: num(attrs.member), group, from, to, bytes },
      };
    },
    views: packedViews,
  },
};
