/** Facts about ops that passes ask for, so that no pass has a list of names: fields of an op's record, and the questions that more
 * than one pass asks. A record that is silent about a fact gets the safe answer: a new op is computed as it is written, only slower.
 * @module */
import { opOf } from "./builder.ts";
import type { Attrs, Node } from "./ir.ts";
import type { View } from "./view.ts";

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

/** What an op is, for passes that match no pattern. */
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
   * results without them are sums over rows. `dims`: along any dim but those that the attributes `dim`, `split` and `join`
   * name, as with all that is element-wise.
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

/** Does the op show its operand's memory in another way, with nothing to run where strides can say it? */
export function isViewOp(op: string): boolean {
  return opOf(op).view !== undefined;
}

/** Does the op only say where elements lie: a view, or operands that are joined? */
export function onlyPlaces(op: string): boolean {
  const { view, joins } = opOf(op);
  return view !== undefined || joins === true;
}

/** Does a node write a value in another way, but need nothing of other ranks? */
export function isLink({ op }: Node): boolean {
  return opOf(op).link === true || onlyPlaces(op);
}

/** Is the op one function of the elements at one place? */
export function isElementwise(op: string): boolean {
  return opOf(op).elementwise === true;
}

/** How an op works row by row; `undefined` where it does not. */
export function rowsOf(op: string): Facts["rowwise"] {
  const { rowwise, elementwise } = opOf(op);
  return rowwise ?? (elementwise ? "dims" : undefined);
}

/** What a node does to the states that its attribute `states` names. */
export function stateUse(node: Node | undefined): StateUse | undefined {
  return node && opOf(node.op).states;
}

/** The number that fills what a node makes, if it is one number. */
export function fillOf(node: Node | undefined): number | undefined {
  return node && opOf(node.op).fill?.(node.attrs);
}

/** Are these pieces of all ranks that become a whole for each? */
export function isGather({ op }: Node): boolean {
  return opOf(op).exchange === "gather";
}

/** Are these summands of all ranks that become a sum, or a piece of it for each? */
export function isReduction({ op }: Node): boolean {
  return opOf(op).exchange === "reduction";
}
