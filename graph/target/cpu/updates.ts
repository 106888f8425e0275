/** First values and the update on the CPU.
 * @module */
import { type Attrs, numel } from "../../ir.ts";
import { num, str } from "../../op.ts";
import { numUpdated } from "../../ops/optimizer.ts";
import { boxOf, nameKey } from "../../ops/random.ts";
import { anyViews, type Lowerings } from "../target.ts";

/** Distributions by their numbers in the kernel. */
const KINDS: Readonly<Record<string, number>> = { uniform: 0, normal: 1, truncated_normal: 2 };

const numbers = (attrs: Attrs, keys: readonly string[]): Record<string, number> =>
  Object.fromEntries(keys.map((k) => [k, num(attrs[k])]));

/** How parameters are begun and moved. */
export const updates: Lowerings = {
  random: {
    kernel: ({ attrs }) => ({
      kernel: "random",
      attrs: {
        kind: KINDS[str(attrs.kind)],
        key: BigInt.asIntN(64, nameKey(str(attrs.name))),
        ...numbers({ low: 0, high: 0, ...attrs }, ["a", "b", "low", "high"]),
        ...boxOf(attrs),
      },
    }),
    views: anyViews,
  },
  // Squares are summed 4096 elements at a time, whatever the number of threads.
  sum_squares: { scratch: ({ inputs }) => 8 * inputs.reduce((n, v) => n + Math.ceil(numel(v.shape) / 4096), 0) },
  adamw: {
    kernel: (node) => ({
      kernel: "adamw",
      attrs: { n: numUpdated(node), ...numbers(node.attrs, ["beta1", "beta2", "eps", "weight_decay"]) },
    }),
    inPlace: (node) => Array.from({ length: 3 * numUpdated(node) }, (_, i): [number, number] => [i, i]),
  },
};
