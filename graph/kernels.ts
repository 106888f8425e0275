// Generated from csrc/kernels.def by tools/codegen.ts. Do not edit.
/** The native kernels and the element-wise operations of `map`, with their numbers in a program.
 * @module */

import type { DType } from "./element_types.ts";

/** A tensor that a kernel takes or makes. */
export interface KernelOperand {
  /** As in kernels.def. */
  readonly name: string;
  /** Stands for any number of tensors. */
  readonly variadic: boolean;
  /** May be absent, or (variadic) have no members. */
  readonly optional: boolean;
  /** May be stored as bf16 where the call's reals are f32. */
  readonly bf16: boolean;
  /** May it be stored as float8, too? */
  readonly float8: boolean;
}

/** A kernel. The operands of a call are its inputs, its outputs, then the scratch. */
export interface Kernel {
  /** Its number in programs. */
  readonly index: number;
  /** Whether ranks do it together, on the comm stream. */
  readonly collective: boolean;
  /** Tensors that it reads. */
  readonly inputs: readonly KernelOperand[];
  /** Tensors that it writes. */
  readonly outputs: readonly KernelOperand[];
  /** Whether it needs memory of its own for the time of the call. */
  readonly scratch: boolean;
  /** Constants of a call, in the order in which a program has them. */
  readonly attributes: readonly { readonly name: string; readonly type: "i64" | "f64" | "i64[]" | "f64[]" }[];
  /** What its real operands may be; one dtype in a call. */
  readonly dtypes: readonly DType[];
}

/** Name of a kernel. */
export type KernelName =
  | "gemm"
  | "map"
  | "reduce"
  | "copy"
  | "accumulate"
  | "embedding"
  | "embedding_backward"
  | "rmsnorm"
  | "add_rmsnorm"
  | "rmsnorm_backward"
  | "rope_table"
  | "rope"
  | "attention"
  | "attention_backward"
  | "cross_entropy"
  | "cross_entropy_part"
  | "cross_entropy_backward"
  | "sum_squares"
  | "adamw"
  | "random"
  | "softmax"
  | "take"
  | "scatter_add"
  | "put_rows"
  | "top_k"
  | "cumsum"
  | "integer_map"
  | "integer_cast"
  | "all_gather"
  | "reduce_scatter"
  | "all_reduce"
  | "ring_shift"
  | "all_to_all"
  | "exchange";

/** All kernels. */
export const kernels: { readonly [K in KernelName]: Kernel } = {
  gemm: {
    index: 0,
    collective: false,
    inputs: [
      { name: "a", variadic: false, optional: false, bf16: true, float8: true },
      { name: "b", variadic: false, optional: false, bf16: true, float8: true },
    ],
    outputs: [
      { name: "c", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "accumulate", type: "i64" },
      { name: "bf16", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  map: {
    index: 1,
    collective: false,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: true, float8: true },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: true, float8: true },
    ],
    scratch: false,
    attributes: [
      { name: "inputs", type: "i64" },
      { name: "registers", type: "i64" },
      { name: "code", type: "i64[]" },
      { name: "constants", type: "f64[]" },
    ],
    dtypes: ["f32", "f64"],
  },
  reduce: {
    index: 2,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: true,
    attributes: [
      { name: "kind", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  copy: {
    index: 3,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [],
    dtypes: ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"],
  },
  accumulate: {
    index: 4,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "accumulate", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  embedding: {
    index: 5,
    collective: false,
    inputs: [
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
      { name: "table", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "start", type: "i64" },
      { name: "whole", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  embedding_backward: {
    index: 6,
    collective: false,
    inputs: [
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
      { name: "dy", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "dtable", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "accumulate", type: "i64" },
      { name: "start", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  rmsnorm: {
    index: 7,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
      { name: "w", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
      { name: "rstd", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "eps", type: "f64" },
    ],
    dtypes: ["f32", "f64"],
  },
  add_rmsnorm: {
    index: 8,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
      { name: "r", variadic: false, optional: false, bf16: true, float8: false },
      { name: "w", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "s", variadic: false, optional: false, bf16: true, float8: false },
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
      { name: "rstd", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "eps", type: "f64" },
    ],
    dtypes: ["f32", "f64"],
  },
  rmsnorm_backward: {
    index: 9,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
      { name: "rstd", variadic: false, optional: false, bf16: false, float8: false },
      { name: "w", variadic: false, optional: false, bf16: true, float8: false },
      { name: "dy", variadic: false, optional: false, bf16: true, float8: false },
      { name: "residual", variadic: false, optional: true, bf16: true, float8: false },
    ],
    outputs: [
      { name: "dx", variadic: false, optional: false, bf16: true, float8: false },
      { name: "dw", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: true,
    attributes: [
      { name: "accumulate", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  rope_table: {
    index: 10,
    collective: false,
    inputs: [
      { name: "positions", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "table", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "theta", type: "f64" },
      { name: "factor", type: "f64" },
      { name: "low", type: "f64" },
      { name: "high", type: "f64" },
      { name: "original", type: "f64" },
    ],
    dtypes: ["f32", "f64"],
  },
  rope: {
    index: 11,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
      { name: "table", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "inverse", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  attention: {
    index: 12,
    collective: false,
    inputs: [
      { name: "q", variadic: false, optional: false, bf16: true, float8: false },
      { name: "k", variadic: false, optional: false, bf16: true, float8: false },
      { name: "v", variadic: false, optional: false, bf16: true, float8: false },
      { name: "q_table", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_table", variadic: false, optional: true, bf16: false, float8: false },
      { name: "q_positions", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_positions", variadic: false, optional: true, bf16: false, float8: false },
      { name: "q_documents", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_documents", variadic: false, optional: true, bf16: false, float8: false },
      { name: "other_o", variadic: false, optional: true, bf16: false, float8: false },
      { name: "other_lse", variadic: false, optional: true, bf16: false, float8: false },
    ],
    outputs: [
      { name: "o", variadic: false, optional: false, bf16: true, float8: false },
      { name: "lse", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: true,
    attributes: [
      { name: "scale", type: "f64" },
      { name: "bf16", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  attention_backward: {
    index: 13,
    collective: false,
    inputs: [
      { name: "q", variadic: false, optional: false, bf16: true, float8: false },
      { name: "k", variadic: false, optional: false, bf16: true, float8: false },
      { name: "v", variadic: false, optional: false, bf16: true, float8: false },
      { name: "o", variadic: false, optional: false, bf16: true, float8: false },
      { name: "lse", variadic: false, optional: false, bf16: false, float8: false },
      { name: "do", variadic: false, optional: false, bf16: true, float8: false },
      { name: "q_table", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_table", variadic: false, optional: true, bf16: false, float8: false },
      { name: "q_positions", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_positions", variadic: false, optional: true, bf16: false, float8: false },
      { name: "q_documents", variadic: false, optional: true, bf16: false, float8: false },
      { name: "k_documents", variadic: false, optional: true, bf16: false, float8: false },
    ],
    outputs: [
      { name: "dq", variadic: false, optional: false, bf16: true, float8: false },
      { name: "dk", variadic: false, optional: false, bf16: true, float8: false },
      { name: "dv", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: true,
    attributes: [
      { name: "scale", type: "f64" },
      { name: "bf16", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  cross_entropy: {
    index: 14,
    collective: false,
    inputs: [
      { name: "logits", variadic: false, optional: false, bf16: false, float8: false },
      { name: "targets", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "loss", variadic: false, optional: false, bf16: false, float8: false },
      { name: "count", variadic: false, optional: false, bf16: false, float8: false },
      { name: "lse", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: true,
    attributes: [
      { name: "ignore_index", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  cross_entropy_part: {
    index: 15,
    collective: false,
    inputs: [
      { name: "logits", variadic: false, optional: false, bf16: false, float8: false },
      { name: "targets", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "lse", variadic: false, optional: false, bf16: false, float8: false },
      { name: "logit", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "ignore_index", type: "i64" },
      { name: "start", type: "i64" },
      { name: "whole", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  cross_entropy_backward: {
    index: 16,
    collective: false,
    inputs: [
      { name: "logits", variadic: false, optional: false, bf16: false, float8: false },
      { name: "targets", variadic: false, optional: false, bf16: false, float8: false },
      { name: "lse", variadic: false, optional: false, bf16: false, float8: false },
      { name: "dloss", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "dlogits", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "ignore_index", type: "i64" },
      { name: "start", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  sum_squares: {
    index: 17,
    collective: false,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: true,
    attributes: [],
    dtypes: ["f32", "f64"],
  },
  adamw: {
    index: 18,
    collective: false,
    inputs: [
      { name: "p", variadic: true, optional: false, bf16: true, float8: false },
      { name: "m", variadic: true, optional: false, bf16: true, float8: false },
      { name: "v", variadic: true, optional: false, bf16: true, float8: false },
      { name: "g", variadic: true, optional: false, bf16: true, float8: false },
      { name: "lr", variadic: false, optional: false, bf16: false, float8: false },
      { name: "step", variadic: false, optional: false, bf16: false, float8: false },
      { name: "scale", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "p", variadic: true, optional: false, bf16: true, float8: false },
      { name: "m", variadic: true, optional: false, bf16: true, float8: false },
      { name: "v", variadic: true, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "beta1", type: "f64" },
      { name: "beta2", type: "f64" },
      { name: "eps", type: "f64" },
      { name: "weight_decay", type: "f64" },
    ],
    dtypes: ["f32", "f64"],
  },
  random: {
    index: 19,
    collective: false,
    inputs: [
      { name: "seed", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: true, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "kind", type: "i64" },
      { name: "key", type: "i64" },
      { name: "a", type: "f64" },
      { name: "b", type: "f64" },
      { name: "low", type: "f64" },
      { name: "high", type: "f64" },
      { name: "whole", type: "i64[]" },
      { name: "starts", type: "i64[]" },
      { name: "ends", type: "i64[]" },
    ],
    dtypes: ["f32", "f64"],
  },
  softmax: {
    index: 20,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [],
    dtypes: ["f32", "f64"],
  },
  take: {
    index: 21,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "start", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16"],
  },
  scatter_add: {
    index: 22,
    collective: false,
    inputs: [
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
      { name: "rows", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "start", type: "i64" },
    ],
    dtypes: ["f32", "f64"],
  },
  put_rows: {
    index: 23,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
      { name: "rows", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "start", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16"],
  },
  top_k: {
    index: 24,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "values", variadic: false, optional: false, bf16: false, float8: false },
      { name: "ids", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [],
    dtypes: ["f32", "f64"],
  },
  cumsum: {
    index: 25,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "dim", type: "i64" },
      { name: "exclusive", type: "i64" },
      { name: "reverse", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32"],
  },
  integer_map: {
    index: 26,
    collective: false,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "operation", type: "i64" },
      { name: "value", type: "i64" },
    ],
    dtypes: ["i32"],
  },
  integer_cast: {
    index: 27,
    collective: false,
    inputs: [
      { name: "x", variadic: false, optional: false, bf16: true, float8: false },
    ],
    outputs: [
      { name: "y", variadic: false, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [],
    dtypes: ["f32", "f64"],
  },
  all_gather: {
    index: 28,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "group", type: "i64[]" },
      { name: "dims", type: "i64[]" },
      { name: "first", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"],
  },
  reduce_scatter: {
    index: 29,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "group", type: "i64[]" },
      { name: "dims", type: "i64[]" },
      { name: "by", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16"],
  },
  all_reduce: {
    index: 30,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "group", type: "i64[]" },
      { name: "by", type: "i64" },
      { name: "last", type: "i64" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16"],
  },
  ring_shift: {
    index: 31,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "group", type: "i64[]" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"],
  },
  all_to_all: {
    index: 32,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: false, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "n", type: "i64" },
      { name: "group", type: "i64[]" },
      { name: "splits", type: "i64[]" },
      { name: "joins", type: "i64[]" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"],
  },
  exchange: {
    index: 33,
    collective: true,
    inputs: [
      { name: "x", variadic: true, optional: false, bf16: false, float8: false },
    ],
    outputs: [
      { name: "y", variadic: true, optional: true, bf16: false, float8: false },
    ],
    scratch: false,
    attributes: [
      { name: "inputs", type: "i64" },
      { name: "member", type: "i64" },
      { name: "group", type: "i64[]" },
      { name: "from", type: "i64[]" },
      { name: "to", type: "i64[]" },
      { name: "bytes", type: "i64[]" },
    ],
    dtypes: ["f32", "f64", "i32", "bf16", "f8e4m3", "f8e5m2"],
  },
};

/** Name of an element-wise operation. */
export type MapName =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "maximum"
  | "minimum"
  | "neg"
  | "abs"
  | "exp"
  | "log"
  | "sqrt"
  | "rsqrt"
  | "tanh"
  | "sigmoid"
  | "silu"
  | "relu"
  | "square"
  | "reciprocal"
  | "less"
  | "less_equal"
  | "equal"
  | "select"
  | "floor_power_of_two"
  | "round_bf16"
  | "round_f8e4m3"
  | "round_f8e5m2";

/** The element-wise operations: number in the code of `map`, and how many registers each reads. */
export const mapOps: { readonly [K in MapName]: { readonly code: number; readonly arity: number } } = {
  add: { code: 0, arity: 2 },
  sub: { code: 1, arity: 2 },
  mul: { code: 2, arity: 2 },
  div: { code: 3, arity: 2 },
  maximum: { code: 4, arity: 2 },
  minimum: { code: 5, arity: 2 },
  neg: { code: 6, arity: 1 },
  abs: { code: 7, arity: 1 },
  exp: { code: 8, arity: 1 },
  log: { code: 9, arity: 1 },
  sqrt: { code: 10, arity: 1 },
  rsqrt: { code: 11, arity: 1 },
  tanh: { code: 12, arity: 1 },
  sigmoid: { code: 13, arity: 1 },
  silu: { code: 14, arity: 1 },
  relu: { code: 15, arity: 1 },
  square: { code: 16, arity: 1 },
  reciprocal: { code: 17, arity: 1 },
  less: { code: 18, arity: 2 },
  less_equal: { code: 19, arity: 2 },
  equal: { code: 20, arity: 2 },
  select: { code: 21, arity: 3 },
  floor_power_of_two: { code: 22, arity: 1 },
  round_bf16: { code: 23, arity: 1 },
  round_f8e4m3: { code: 24, arity: 1 },
  round_f8e5m2: { code: 25, arity: 1 },
};
