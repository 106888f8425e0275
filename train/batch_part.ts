/** A rank's part of a batch: where sequences are shared out, some of their tokens, in the order that balances the work.
 * @module */
import type { Batch } from "../data/batch.ts";
import { sequenceOrder } from "../parallel/balance.ts";
import type { MeshLayout } from "./ranks.ts";
import type { BatchViews } from "./step_program.ts";

const NAMES = ["tokens", "targets", "positions", "documents"] as const;

/** Copies batches to where the program reads them. */
export class BatchPart {
  /** Places of this rank's tokens in a sequence; `undefined`: all of them, as they come. */
  readonly #places: Int32Array | undefined;
  readonly #seqLen: number;

  /** @param seqLen tokens of a sequence, over all its ranks. @param rank of the mesh; without a mesh, the only one. */
  constructor(seqLen: number, ranks?: MeshLayout) {
    this.#seqLen = seqLen;
    const cp = ranks?.mesh.degrees.cp ?? 1;
    if (!ranks || cp === 1) return;
    const { mesh, rank, balancer = "headtail" } = ranks, own = seqLen / cp, at = mesh.placeOn("cp", rank);
    this.#places = sequenceOrder(seqLen, cp, balancer).subarray(at * own, (at + 1) * own);
  }

  /** Puts this rank's part of `batch`, whose rows are whole, where `views` are. */
  put(views: BatchViews, batch: Batch): void {
    for (const name of NAMES) {
      const to = views[name], from = batch[name], places = this.#places;
      if (!to) continue;
      if (!places) to.set(from);
      else {
        for (let i = 0, row = 0; i < to.length; row += this.#seqLen) {
          for (let k = 0; k < places.length; k++) to[i++] = from[row + places[k]];
        }
      }
    }
  }
}
