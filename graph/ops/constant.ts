import { arr } from "../array.ts";
import type { DType } from "../ir.ts";
import { defineOp, num, nums, type Op, str } from "../op.ts";

/** The same number in every element. */
export const constant: Op = defineOp({
  name: "constant",
  fill: (attrs) => num(attrs.value),
  attrs: {
    value: { type: "number", doc: "what every element is" },
    dtype: { type: "text", doc: "their type" },
    shape: { type: "integers", doc: "how many there are", local: "output" },
  },
  infer: (_inputs, attrs) => {
    const dtype = str(attrs.dtype) as DType, value = num(attrs.value);
    if (dtype === "i32" && (value | 0) !== value) throw new TypeError(`expected an integer of i32, got ${value}`);
    return [{ dtype, shape: nums(attrs.shape) }];
  },
  reference: (_inputs, attrs, [type]) => [arr(type.shape, arr(type.shape).data.fill(num(attrs.value)))],
  vjp: () => [],
  recompute: "cheap",
  flops: () => 0,
});
