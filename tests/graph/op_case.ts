/** What a row of `op_cases.ts` says, and short ways to write its operands.
 * @module */
import type { Attrs, DType } from "../../graph/ir.ts";
import type { Tensor } from "../../graph/tensor.ts";

/** An operand: its type and the range of its random elements. */
export interface Operand {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly low: number;
  readonly high: number;
  /** Whole numbers only (integers always are). */
  readonly whole?: boolean;
}

/** Operands that an op must refuse, with part of the message. */
export interface Refusal {
  readonly inputs: readonly Operand[];
  readonly attrs?: Attrs;
  readonly says: string;
}

/** One row. */
export interface OpCase {
  readonly op: string;
  /** What is special about this row, if an op has several. */
  readonly title?: string;
  readonly inputs: readonly Operand[];
  readonly attrs?: Attrs;
  /** Types of the outputs. */
  readonly gives: readonly string[];
  /** FLOPs, where the default does not hold. */
  readonly flops?: number;
  /** The same made of simpler ops (or already tested ones): values must agree. */
  readonly like?: (...inputs: Tensor[]) => readonly Tensor[];
  /** Is there a gradient to be checked? Default true. False: the op has no vjp, since it is one or is made by `fuse`. */
  readonly gradient?: boolean;
  /** Outputs that have a gradient; default all real ones. */
  readonly outputs?: readonly number[];
  /** Inputs that have a gradient; default all real ones. */
  readonly wrt?: readonly number[];
  readonly refuses?: readonly Refusal[];
}

/** A real operand. */
export function r(shape: readonly number[], low = -1.5, high = 1.5): Operand {
  return { dtype: "f64", shape, low, high };
}
/** A real operand of whole numbers. */
export function w(shape: readonly number[], low: number, high: number): Operand {
  return { dtype: "f64", shape, low, high, whole: true };
}
/** Integers. */
export function n(shape: readonly number[], low: number, high: number): Operand {
  return { dtype: "i32", shape, low, high };
}

/** 1 where class ids `[b,t]` are the class, `[b,t,v]`. */
export function onehot(ids: Tensor, like: Tensor): Tensor {
  const [B, T, V] = like.shape;
  let classes = like.constant(0, [1]);
  for (let k = 1; k < V; k++) classes = classes.concat([like.constant(k, [1])]);
  return ids.cast(like.dtype).reshape("b t -> b t 1").broadcastTo([B, T, V]).equal(classes.broadcastTo([B, T, V]));
}
