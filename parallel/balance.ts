/** Which tokens of a sequence each rank of context parallelism works on. A token late in a causal sequence attends to more keys than
 * an early one, so equal slices in the text's order are unequal work. Positions are values, hence all that it takes is that rows are
 * put into another order before they are sliced. Models that go by the order of tokens are refused: `train/ranks.ts`.
 * @module */
import { LayoutError } from "../graph/layout.ts";

/** How tokens are dealt out to the ranks of `cp`: `headtail` cuts the sequence into 2 cp chunks and gives rank r the chunks r and
 * 2 cp - 1 - r, so that all have the same number of keys to attend to; `null` leaves them in order. */
export type LoadBalancer = "headtail" | null;

/** The order that rows of tokens, targets, positions and documents are put into before rank r of `cp` takes the r-th slice of them:
 * for each place in that order, the place in the text. Eight tokens on two ranks: 0, 1, 6, 7 and 2, 3, 4, 5.
 * @throws {LayoutError} when the chunks cannot be equally long. */
export function sequenceOrder(seqLen: number, cp: number, balancer: LoadBalancer): Int32Array {
  const order = Int32Array.from({ length: seqLen }, (_, i) => i);
  if (balancer === null || cp === 1) return order;
  const chunks = 2 * cp, size = seqLen / chunks;
  if (!Number.isInteger(size)) {
    throw new LayoutError(
      `Cannot balance a sequence of ${seqLen} tokens on ${cp} ranks: expected a multiple of ${chunks}; change the length, or set ` +
        `parallelism.context_parallel_load_balancer to None`,
    );
  }
  return order.map((i) => {
    const slot = Math.floor(i / size), rank = Math.floor(slot / 2);
    return (slot % 2 === 0 ? rank : chunks - 1 - rank) * size + i % size;
  });
}
