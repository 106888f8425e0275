/** Questions about ops that more than one pass asks, so that no pass has a list of names. The answers are the fields of `Facts` in an
 * op's record.
 * @module */
import { opOf } from "./builder.ts";
import type { Node } from "./ir.ts";
import type { Facts, StateUse } from "./op.ts";

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

/** Bytes that each rank sends in a collective; 0 for other nodes. */
export function sentBytes(node: Node): number {
  return opOf(node.op).sends?.(node) ?? 0;
}
