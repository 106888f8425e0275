/** Products on the CPU: all are (batched) matrix products, whose kernel follows one stride for each of its dims.
 * @module */
import { gemmOf } from "../../gemm.ts";
import { str } from "../../op.ts";
import type { Lowerings } from "../target.ts";
import { accumulateMode } from "./copies.ts";

/** Fewest rows of a slice that are worth a product of their own, rather than a copy of all. */
const FEWEST_ROWS = 64;

/** How products run. */
export const products: Lowerings = {
  contract: {
    kernel: ({ attrs }) => ({
      kernel: "gemm",
      attrs: { accumulate: accumulateMode(attrs), bf16: attrs.round === "bf16" ? 1 : 0 },
    }),
    accumulates: true,
    castsOperands: true,
    views: (node, [a, b, c]) => {
      const gemm = gemmOf(str(node.attrs.dims), { a, b, c }, { fewestRows: FEWEST_ROWS });
      return typeof gemm === "string" ? gemm : [gemm.a, gemm.b, gemm.c];
    },
  },
};
