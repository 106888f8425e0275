/** Where values lie, on the CPU: views that strides cannot say, pieces of a whole and what goes into states are copied; the kernels for
 * that follow any strides.
 * @module */
import type { Attrs } from "../../ir.ts";
import { reversed, sizesOf } from "../../ops/shape.ts";
import { throughDims } from "../../view.ts";
import { anyViews, type KernelCall, type Lowering, type Lowerings } from "../target.ts";

/** A copy to another place. */
export const copy = (): KernelCall => ({ kernel: "copy", attrs: {} });

const copied: Lowering = { kernel: copy, views: anyViews };

/** Kernel attribute of an op whose output is added into memory of states: 0 where it is not, 2 where the first microbatch overwrites. */
export function accumulateMode({ into, begin }: Attrs): 0 | 1 | 2 {
  return into === undefined ? 0 : begin ? 2 : 1;
}

/** How values get to where they shall lie. */
export const copies: Lowerings = {
  copy: copied,
  transpose: copied,
  broadcast: copied,
  slice: copied,
  concat: copied,
  reshape: {
    kernel: copy,
    // The result is dense, so it can be seen as the operand is.
    views: ({ attrs, inputs }, [x, y]) => [
      x,
      throughDims(y, reversed(attrs.dims), sizesOf(attrs, inputs[0].shape))!,
    ],
  },
  read: { views: anyViews },
  assign: copied,
  accumulate: {
    kernel: ({ attrs }) => ({ kernel: "accumulate", attrs: { accumulate: attrs.begin ? 2 : 1 } }),
    views: anyViews,
  },
};
