/** Graphs of single ops, made from rows of `op_cases.ts`, and random operands for them.
 * @module */
import { type Arr, arr } from "../../graph/array.ts";
import type { Builder } from "../../graph/builder.ts";
import { type Graph, numel } from "../../graph/ir.ts";
import { Tensor } from "../../graph/tensor.ts";
import { traceGraph } from "../../graph/trace.ts";
import { verify } from "../../graph/verify.ts";
import type { OpCase, Operand } from "./op_case.ts";
import type { Random } from "./random_graphs.ts";

/** A row's name in test titles. */
export const titleOf = (c: OpCase): string => c.title ? `${c.op} (${c.title})` : c.op;

/** A graph whose inputs `x0`, ... are the operands, and the values that `body` makes of them as `y0`, ... */
export function graphOf(
  operands: readonly Operand[],
  body: (builder: Builder, inputs: Tensor[]) => readonly Tensor[],
): Graph {
  return verify(traceGraph("case", [], (builder) => {
    const inputs = operands.map((type, i) => new Tensor(builder, builder.input(`x${i}`, type)));
    return Object.fromEntries(body(builder, inputs).map((t, i) => [`y${i}`, t]));
  }));
}

/** The op of a row, applied to inputs of a graph. */
export function applied(c: OpCase): (builder: Builder, inputs: Tensor[]) => Tensor[] {
  return (builder, inputs) =>
    builder.emit(c.op, inputs.map((t) => t.value), c.attrs ?? {}).map((v) => new Tensor(builder, v));
}

/** Random arrays in the ranges of a row. */
export function arraysFor(operands: readonly Operand[], random: Random): Record<string, Arr> {
  return Object.fromEntries(operands.map(({ dtype, shape, low, high, whole }, i) => {
    const next = () => whole || dtype === "i32" ? random.int(low, high) : random.real(low, high);
    return [`x${i}`, arr(shape, Array.from({ length: numel(shape) }, next))];
  }));
}
