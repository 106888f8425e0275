/** The only ops that touch state. Their meaning is the interpreter's and the memory plan's business: a `read` is the state's
 * memory, an `assign` is made in place where it can be.
 * @module */
import type { Schema } from "../attributes.ts";
import { type DType, isReal } from "../ir.ts";
import { nums, type Op, str } from "../op.ts";

const STATES: Schema = { states: { type: "texts", doc: "names, of those that lie one after another" } };

/** The state's value now; several states that lie one after another are one value, joined along dim 0. */
export const read: Op = {
  name: "read",
  states: "reads",
  attrs: {
    ...STATES,
    dtype: { type: "text", doc: "how they are stored" },
    shape: { type: "integers", doc: "their sizes", local: "output" },
  },
  bf16: "kept",
  infer: (_inputs, attrs) => [{ dtype: str(attrs.dtype) as DType, shape: nums(attrs.shape) }],
  vjp: () => [],
  recompute: "cheap",
  flops: () => 0,
};

/** Replaces the state. */
export const assign: Op = {
  name: "assign",
  states: "replaces",
  attrs: STATES,
  bf16: "kept",
  infer: () => [],
  vjp: () => [],
  flops: () => 0,
  effect: true,
};

/** Adds to the state; with `begin`, overwrites it in the first microbatch of a step. */
export const accumulate: Op = {
  name: "accumulate",
  states: "adds",
  attrs: { ...STATES, begin: { type: "flag", doc: "may the first microbatch of a step overwrite them?" } },
  bf16: "kept",
  infer: ([value]) => {
    if (!isReal(value.dtype)) throw new TypeError(`expected a real value, got ${value.dtype}; read, add and assign`);
    return [];
  },
  vjp: () => [],
  effect: true,
};
