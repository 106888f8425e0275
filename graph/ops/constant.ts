import { arr } from "../array.ts";
import { isReal } from "../ir.ts";
import { anyViews, defineOp, num, nums, type Op, str } from "../op.ts";

/** The same number in every element. */
export const constant: Op = defineOp({
  name: "constant",
  attrs: {
    value: { type: "number", doc: "what every element is" },
    dtype: { type: "text", doc: "their type" },
    shape: { type: "integers", doc: "how many there are", local: "output" },
  },
  infer: (_inputs, attrs) => {
    const dtype = str(attrs.dtype) as "f32" | "f64";
    if (!isReal(dtype)) throw new TypeError(`expected a real constant, got ${dtype}`);
    return [{ dtype, shape: nums(attrs.shape) }];
  },
  reference: (_inputs, attrs, [type]) => [arr(type.shape, arr(type.shape).data.fill(num(attrs.value)))],
  vjp: () => [],
  recompute: "cheap",
  flops: () => 0,
  views: anyViews,
  kernel: (node) => ({
    kernel: "map",
    attrs: { inputs: 0, registers: 1, code: [0], constants: [num(node.attrs.value)] },
  }),
});
