/** Where nodes of graphs made by hand come from.
 * @module */
import type { Node, Origin } from "../../graph/ir.ts";

/** An origin as `print` writes it: with a stroke, it is in backward. The path up to its first number is the block. */
export function at(text: string): Origin {
  const isGradient = text.endsWith("'"), scope = isGradient ? text.slice(0, -1) : text;
  const block = /^(?:[^.]+\.)*?\d+(?=\.|$)/.exec(scope)?.[0];
  return { scope, phase: isGradient ? "backward" : "forward", block };
}

/** Is the node there again in backward? */
export const isRemade = (node: Node): boolean => node.phase === "remade";
