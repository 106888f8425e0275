/** Norms, reductions and losses on the CPU: one row after another, whose elements must be dense.
 * @module */
import { dtypeBytes, numel, wide } from "../../ir.ts";
import { num, str } from "../../op.ts";
import { reducedStrides } from "../../ops/reduce.ts";
import { anyViews, type Lowerings } from "../target.ts";
import { accumulateMode } from "./copies.ts";

/** How work on rows runs. */
export const rows: Lowerings = {
  rmsnorm: {},
  add_rmsnorm: { inPlace: () => [[0, 0], [0, 1]] },
  rmsnorm_backward: {
    kernel: ({ attrs }) => ({
      kernel: "rmsnorm_backward",
      attrs: { accumulate: accumulateMode(attrs) },
      operands: (inputs, outputs) => [...inputs.slice(0, 4), inputs[4], ...outputs],
    }),
    // dw is summed in up to 64 fixed runs of rows, whatever the number of threads.
    scratch: ({ inputs: [x, rstd, w] }) => Math.min(64, numel(rstd.shape)) * w.shape[0] * dtypeBytes[wide(x.dtype)],
    inPlace: ({ inputs }) => inputs.length > 4 ? [[0, 4], [0, 3]] : [[0, 3]],
    accumulates: true,
  },
  softmax: { inPlace: () => [[0, 0]] },
  reduce: {
    kernel: ({ attrs }) => ({ kernel: "reduce", attrs: { kind: ["sum", "max", "max_abs"].indexOf(str(attrs.kind)) } }),
    // Few long sums are cut into parts, each of 256 elements at least.
    scratch: ({ inputs: [x] }) => 8 * Math.min(32768, Math.ceil(numel(x.shape) / 256)),
    views: ({ attrs }, [x, y]) => [x, { ...y, shape: x.shape, strides: reducedStrides(str(attrs.dims), y.strides) }],
  },
  cumsum: {
    kernel: ({ attrs }) => ({
      kernel: "cumsum",
      attrs: {
        dim: num(attrs.dim),
        exclusive: Number(attrs.exclusive ?? false),
        reverse: Number(attrs.reverse ?? false),
      },
    }),
    views: anyViews,
    inPlace: () => [[0, 0]],
  },
  cross_entropy: {
    scratch: ({ inputs: [logits, targets] }) => 2 * numel(targets.shape) * dtypeBytes[logits.dtype],
  },
  cross_entropy_part: {},
  cross_entropy_backward: {
    kernel: ({ op, attrs }) => ({
      kernel: op,
      attrs: { ignore_index: num(attrs.ignore_index), start: num(attrs.start ?? 0) },
    }),
    inPlace: () => [[0, 0]],
  },
};
