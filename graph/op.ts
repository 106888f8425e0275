/** What an op must answer: the one record that every pass asks, of what the op means. How it runs is the business of targets
 * (`graph/target/`). An op is one file in `graph/ops/`.
 * @module */
import type { Arr } from "./array.ts";
import type { Schema } from "./attributes.ts";
import { inferShapes } from "./dims.ts";
import { type Attr, type Attrs, isReal, isStored, type Node, numel, type StoredReal, type Type, wide } from "./ir.ts";
import type { Reduction } from "./layout.ts";
import type { Tensor } from "./tensor.ts";
import type { View } from "./view.ts";

/** How dear it is to make a value again in backward. */
export type Recompute = "cheap" | "matmul" | "attention" | "collective";

/** What a vjp sees: symbolic inputs, outputs, and the cotangent of each output (absent where no gradient arrives). */
export interface Vjp {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly cotangents: readonly (Tensor | undefined)[];
  readonly attrs: Attrs;
}

/** Sets of operands by index, or one set of all. */
export type Linear = readonly (readonly number[])[] | "all";

/** How an op may be divided among ranks, label by label of its signature. Where it is cut along a label, each rank has a slice of the
 * dims with that label; an operand without the label is whole on every rank, and a result without it is partial, a summand. A dim of
 * several labels can be cut along its outermost; `1` is never cut. */
export interface Split {
  /** The signature, where `dims` is not it. */
  readonly dims?: (node: Node) => string;
  /** Labels that must be seen whole. */
  readonly whole?: readonly string[];
  /** How results without the label add up; default `sum`. */
  readonly by?: (attrs: Attrs) => Reduction;
  /** Label that indices count along: each rank must be told by the attribute `start` where its slice begins, and by `whole` how many
   * there are in all. */
  readonly offset?: string;
  /** Dims of its operands along which it goes by their order: the same elements in another order give other results. */
  readonly ordered?: (node: Node) => readonly number[];
  /** The label along which the parts need each other, and how they get what they need: results are whole on every rank. */
  readonly across?: { readonly label: string; readonly emit: (context: Across) => readonly Tensor[] };
  /** Sets of operands in which the op is linear together while the others are fixed, so that it may work on summands. */
  readonly linear?: Linear | ((attrs: Attrs) => Linear);
  /** Operands that are rounded as they come where the attribute `round` names a type, so that they may as well travel in that. */
  readonly rounds?: readonly number[];
  /** Pairs [output, input]: the output is the gradient of the input. */
  readonly gradients?: readonly (readonly [number, number])[];
  /** May a slice have padding? What lies there stays there, or counts as zero. */
  readonly padded?: boolean;
  /** One sum over all elements of all operands, so that each may be cut along any dim of its own. */
  readonly additive?: boolean;
}

/** What an op across ranks is made from: this rank's operands, and how its results are shared. */
export interface Across {
  readonly inputs: readonly Tensor[];
  readonly attrs: Attrs;
  /** Value of the attribute `start`: where this rank's slice begins. */
  readonly start: Attr;
  /** How many there are in all slices. */
  readonly whole: number;
  /** One exchange, of any number of tensors. */
  readonly allReduce: (by: Reduction, ...parts: Tensor[]) => Tensor[];
}

/** What an op does to the states that its attribute `states` names. */
export type StateUse = "reads" | "replaces" | "adds";

/** How an op multiplies in the type that its attribute `round` names; its sums stay in f32. */
export interface Rounding {
  /** Operands are rounded as they come, so that casts in front of it mean the same. Default: something is done to them before. */
  readonly plain?: boolean;
  /** The output that is then stored as bf16; default: none. */
  readonly stored?: number;
  /** Is that output kept in f32 where all that reads it needs the f32 sums? */
  readonly keepsSums?: boolean;
}

/** What an op is, for passes that match no pattern. A record that is silent about a fact gets the safe answer: a new op is computed
 * as it is written, only slower. */
export interface Facts {
  /** How its result lies on the memory of its operand, if strides can say it; there is then nothing to run. Default: no view. */
  readonly view?: (node: Node, operand: View) => View | undefined;
  /** The other way around: how its operand has to be made, so that the result lies as asked for; then nothing is to run either. */
  readonly madeAs?: (node: Node, result: View) => View | undefined;
  /** Its operands lie one after another along `dim`, so each may be made where it shall lie. */
  readonly joins?: boolean;
  /** It writes a value in another way or elsewhere, and needs nothing of other ranks. So it belongs to the exchange of a parameter or
   * of a gradient that it leads to. Views and what joins are links too. */
  readonly link?: boolean;
  /** The same numbers in another element type. */
  readonly converts?: boolean;
  /** One function of the elements at one place, over operands of one shape, so that it may be a step of a `map`. */
  readonly elementwise?: boolean;
  /** The plain sum of its operands: gradients are added up by it. */
  readonly adds?: boolean;
  /** Its two operands may change places, to the last bit. */
  readonly commutes?: boolean;
  /** A slice of rows of its operands gives that slice of its results. `labels`: rows run along any labels of its signature, and
   * results without them are sums over rows. `dims`: along any dim but those that the attributes `dim`, `split` and `join` name, as with all that is element-wise.
   * Default: it needs all rows. */
  readonly rowwise?: "labels" | "dims";
  /** It is a loss over rows of logits, which are this operand: `tile` makes them in chunks where it can. */
  readonly logits?: number;
  /** It multiplies in bf16 where that is asked for. Default: it has no attribute `round`, and computes in f32 always. */
  readonly rounding?: Rounding;
  /** In mixed precision a product that it reads may be stored as bf16. Default: it gets the f32 sums, as sums, norms and losses
   * must, unless something else that reads the product takes bf16. */
  readonly takesRounded?: boolean;
  /** What it does to states; default: nothing. */
  readonly states?: StateUse;
  /** The number that every element of its result is. */
  readonly fill?: (attrs: Attrs) => number;
  /** It needs no operands, and makes any box of its result alone: `whole`, `starts` and `ends` say which. */
  readonly boxed?: boolean;
  /** What ranks exchange by it: pieces that become a whole for all, or summands that become a sum. Default: anything else. */
  readonly exchange?: "gather" | "reduction";
}

/** An op: its name and what the passes ask of it. */
export interface Op extends Facts {
  readonly name: string;
  /** Its attributes; without it there are none. */
  readonly attrs?: Schema;
  /** Dims signature, or how to make it from the attributes; from it follow shapes and FLOPs. */
  readonly dims?: string | ((attrs: Attrs, ranks: readonly number[]) => string);
  /** Indices of the operands that must be `i32`; all others must then be real, with `[]` all of them. Without it operands may be either. */
  readonly integers?: readonly number[];
  /** Beside those, indices of operands that may be either: all of one type, which is then that of the results. */
  readonly either?: readonly number[];
  /** Which operands may be stored as `bf16` while the op computes in `f32`, by side and index (`inputs`: how many there are); an
   * output is where the attribute `bf16` lists its index. `"kept"`: real outputs are stored as the inputs are. Default: none. */
  readonly bf16?: "kept" | ((side: "input" | "output", index: number, inputs: number) => boolean);
  /** The same for float8, which is kept where bf16 is; an output is where the attribute of the type's name lists its index. */
  readonly float8?: (side: "input" | "output", index: number, inputs: number) => boolean;
  /** Output types, where `dims` cannot say them; it sees what is computed in. Real outputs take the first real input's dtype by
   * default. */
  readonly infer?: (inputs: readonly Type[], attrs: Attrs) => Type[];
  /** Reference meaning in f64, on arrays. `types` are the output types. */
  readonly reference?: (inputs: readonly Arr[], attrs: Attrs, types: readonly Type[]) => Arr[];
  /** Meaning of a collective instead: the operands of all ranks of the group, in order, and which of the ranks this one is. */
  readonly together?: (operands: readonly (readonly Arr[])[], attrs: Attrs, at: number) => readonly Arr[];
  /** Bytes that each rank sends in a collective, by rings. */
  readonly sends?: (node: Node) => number;
  /** How it may be divided among ranks; without it every rank does it whole. */
  readonly split?: Split;
  /** Cotangents of the inputs (`undefined`: none, e.g. for integers). */
  readonly vjp?: (context: Vjp) => (Tensor | undefined)[];
  readonly recompute?: Recompute;
  /** Floating point operations of one execution; default: one for each element of the largest operand. */
  readonly flops?: (node: Node) => number;
  /** Index of the output that is added into states where the attribute `into` names some. */
  readonly into?: number;
  /** Changes state, so it is neither removed nor joined. */
  readonly effect?: boolean;
}

/** Declares an op. */
export function defineOp<T extends Op>(op: T): T {
  return op;
}

/** May the op take this operand as it is, stored as `bf16`? */
export function takesBf16(op: Op, side: "input" | "output", index: number, inputs: number): boolean {
  return takesStored("bf16", op, side, index, inputs);
}

function takesStored(dtype: StoredReal, op: Op, side: "input" | "output", index: number, inputs: number): boolean {
  if (op.bf16 === "kept") return side === "input";
  return (dtype === "bf16" ? op.bf16 : op.float8)?.(side, index, inputs) ?? false;
}

/** As what f32 may be stored. */
const NARROW: readonly StoredReal[] = ["bf16", "f8e4m3", "f8e5m2"];

/** `bf16` or `float8` of an op by the indices of such operands. */
export function mayBeBf16(inputs: readonly number[], outputs: readonly number[]): Exclude<Op["bf16"], string> {
  return (side, index) => (side === "input" ? inputs : outputs).includes(index);
}

/** Output types of an op.
 * @throws {TypeError} when the inputs do not fit its signature. */
export function inferTypes(op: Op, given: readonly Type[], attrs: Attrs): Type[] {
  try {
    given.forEach(({ dtype }, i) => {
      if (isStored(dtype) && !takesStored(dtype, op, "input", i, given.length)) {
        throw new TypeError(`operand ${i} is ${dtype}; cast it to f32`);
      }
    });
    const inputs = op.bf16 === "kept" ? given : given.map((t) => ({ ...t, dtype: wide(t.dtype) }));
    return computedTypes(op, inputs, attrs).map((type, i) => {
      const dtype = NARROW.find((narrow) => (attrs[narrow] as readonly number[] | undefined)?.includes(i));
      if (dtype === undefined) return type;
      if (!takesStored(dtype, op, "output", i, given.length) || type.dtype !== "f32") {
        throw new TypeError(`output ${i} (${type.dtype}) cannot be stored as ${dtype}; cast it`);
      }
      return { ...type, dtype };
    });
  } catch (error) {
    throw new TypeError(`Cannot apply "${op.name}": ${(error as Error).message}`, { cause: error });
  }
}

function computedTypes(op: Op, inputs: readonly Type[], attrs: Attrs): Type[] {
  const { integers, either = [] } = op;
  inputs.forEach(({ dtype }, i) => {
    const expected = integers?.includes(i) ? "i32" : "f32 or f64";
    if (integers && !either.includes(i) && isReal(dtype) !== (expected !== "i32")) {
      throw new TypeError(`operand ${i} is ${dtype}, expected ${expected}`);
    }
    if (i !== either[0] && either.includes(i) && dtype !== inputs[either[0]].dtype) {
      throw new TypeError(`operand ${i} is ${dtype}, expected ${inputs[either[0]].dtype} as operand ${either[0]}`);
    }
  });
  if (op.infer) return op.infer(inputs, attrs);
  const ranks = inputs.map((t) => t.shape.length);
  const dims = typeof op.dims === "function" ? op.dims(attrs, ranks) : op.dims!;
  const shapes = inferShapes(dims, inputs.map((t) => t.shape), attrs.sizes as Record<string, number> | undefined);
  const real = inputs.filter((t) => isReal(t.dtype));
  const dtype = real[0]?.dtype ?? inputs[0].dtype;
  const other = real.find((t) => t.dtype !== dtype);
  if (other) throw new TypeError(`operands are ${dtype} and ${other.dtype}; cast one of them`);
  return shapes.map((shape) => ({ dtype, shape }));
}

/** FLOPs of a node. */
export function flopsOf(op: Op, node: Node): number {
  if (op.flops) return op.flops(node);
  return Math.max(0, ...[...node.inputs, ...node.outputs].map((v) => numel(v.shape)));
}

/** An attribute as number. */
export function num(attr: Attr | undefined): number {
  return attr as number;
}
/** An attribute as list of numbers. */
export function nums(attr: Attr | undefined): readonly number[] {
  return attr as readonly number[];
}
/** An attribute as text. */
export function str(attr: Attr | undefined): string {
  return attr as string;
}
