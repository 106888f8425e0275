/** Rows by their indices on the CPU, and the largest of a row.
 * @module */
import { num } from "../../op.ts";
import type { Lowering, Lowerings } from "../target.ts";
import { accumulateMode } from "./copies.ts";

/** A kernel that is told where the slice of rows begins. */
const onSlice = (more: Omit<Lowering, "kernel"> = {}): Lowering => ({
  kernel: ({ op, attrs }) => ({ kernel: op, attrs: { start: num(attrs.start ?? 0) } }),
  ...more,
});

/** How rows are read, written and summed. */
export const indices: Lowerings = {
  embedding: {
    kernel: ({ attrs, inputs: [, table] }) => ({
      kernel: "embedding",
      attrs: { start: num(attrs.start ?? 0), whole: num(attrs.whole ?? table.shape[0]) },
    }),
  },
  embedding_backward: {
    kernel: ({ attrs }) => ({
      kernel: "embedding_backward",
      attrs: { accumulate: accumulateMode(attrs), start: num(attrs.start ?? 0) },
    }),
    accumulates: true,
  },
  take: onSlice(),
  scatter_add: onSlice(),
  put_rows: onSlice({ inPlace: () => [[0, 0]] }),
  top_k: { kernel: () => ({ kernel: "top_k", attrs: {} }) },
};
