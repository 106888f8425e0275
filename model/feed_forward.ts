/** The SwiGLU feed-forward block (Shazeer 2020). Shape letters: B batch, T tokens, D model, F hidden.
 * @module */
import type { Tensor } from "../graph/tensor.ts";
import { Linear, truncatedNormal } from "./layers.ts";
import { Module } from "./module.ts";

/** F for a Llama of width D: 8/3 D, times `multiplier`, rounded up to a multiple of `multipleOf`.
 * @example
 * ```ts
 * feedForwardHiddenDim(4096, { multipleOf: 1024, multiplier: 1.3 }); // 14336, as in 8B
 * ``` */
export function feedForwardHiddenDim(dim: number, options: { multipleOf: number; multiplier?: number }): number {
  const { multipleOf, multiplier = 1 } = options;
  // Rounded down twice, as Llama's own code does.
  const hidden = Math.floor(multiplier * Math.floor(8 * dim / 3));
  return Math.ceil(hidden / multipleOf) * multipleOf;
}

/** Sizes and initial deviation of a {@linkcode FeedForward}. */
export interface FeedForwardOptions {
  /** D. */
  readonly dim: number;
  /** F. */
  readonly hiddenDim: number;
  /** Deviation of the initial w2 and w3; w1 has 0.02. */
  readonly initStd?: number;
}

/** y = w2 (silu(w1 x) * w3 x) */
export class FeedForward extends Module {
  /** The gate, D to F; silu is applied to what it gives. */
  readonly w1: Linear;
  /** Back to the residual stream, F to D. */
  readonly w2: Linear;
  /** What the gate multiplies, D to F. */
  readonly w3: Linear;

  /** Makes the three weights. */
  constructor({ dim, hiddenDim, initStd = 0.02 }: FeedForwardOptions) {
    super();
    this.w1 = new Linear(dim, hiddenDim);
    this.w2 = new Linear(hiddenDim, dim, truncatedNormal(initStd));
    this.w3 = new Linear(dim, hiddenDim, truncatedNormal(initStd));
  }

  /** `[B,T,D]` to `[B,T,D]` */
  forward(x_BTD: Tensor): Tensor {
    const hidden_BTF = this.w1.forward(x_BTD).silu().mul(this.w3.forward(x_BTD));
    return this.w2.forward(hidden_BTF);
  }
}
