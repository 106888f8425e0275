/** What a trainer needs of a model: a loss as a sum over tokens, and how many tokens it is over. So accumulation, ignored
 * tokens and parallel ranks need no special case; the mean is taken once, in the update.
 * @module */
import type { ModelPlan } from "../graph/roles.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Module } from "./module.ts";

/** Targets of this id count for nothing. */
export const IGNORE_INDEX = -100;

/** One microbatch as the graph's inputs, all i32 `[B,T]`. */
export interface Batch {
  /** Token ids. */
  readonly tokens: Tensor;
  /** The token that should follow each token, or -100 where none is asked for. */
  readonly targets: Tensor;
  /** Place of each token in its row, from 0. */
  readonly positions: Tensor;
  /** Document of each token, where attention may not cross document boundaries. */
  readonly documents?: Tensor;
}

/** A loss before its mean is taken. */
export interface LossSum {
  /** Sum of the losses of all valid tokens, `[]`. */
  readonly lossSum: Tensor;
  /** Number of valid tokens, `[]`, of the loss's element type. */
  readonly count: Tensor;
}

/** What can be trained: any module with such a method. */
export interface TrainableModel extends Module {
  /** Traced once; evaluation and training are made from it. */
  loss(batch: Batch): LossSum;
  /** Floating point operations to train on one token (forward and backward), from which MFU is computed. */
  flopsPerToken?(seqLen: number): number;
  /** Token ids must be below this; trainers refuse a tokenizer with more. */
  readonly vocabSize?: number;
  /** What tensor parallelism may cut, best as a getter; without one, the data axes of a mesh alone share the model out. */
  readonly plan?: ModelPlan;
  /** Its kind and sizes, best as a getter, which checkpoints keep: from them the same model can be made again. */
  readonly family?: Family;
}

/** A kind of models that differ in sizes alone. */
export interface Family<Sizes extends object = object> {
  /** As `state.json` of a checkpoint names it: `llama`. */
  readonly name: string;
  /** All that JSON has to keep. */
  readonly sizes: Sizes;
}

/** Cross-entropy between logits and target ids, summed over the valid targets. */
export class CrossEntropy extends Module {
  /** Keeps the id that is ignored; there are no parameters.
   * @param ignoreIndex targets of this id count for nothing. */
  constructor(readonly ignoreIndex: number = IGNORE_INDEX) {
    super();
  }

  /** logits `[B,T,V]`, targets i32 `[B,T]` */
  forward(logits_BTV: Tensor, targets_BT: Tensor): LossSum {
    const attrs = { ignore_index: this.ignoreIndex };
    const [lossSum, count] = logits_BTV.apply("cross_entropy", [targets_BT], attrs);
    return { lossSum, count };
  }
}
