/** Causal grouped-query attention with rotary positions.
 * Shape letters: B batch, T tokens, S tokens that are seen, D model, H query heads, G key/value heads, K head size.
 * @module */
import type { DType } from "../graph/ir.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Cache } from "./cache.ts";
import { Linear, truncatedNormal } from "./layers.ts";
import { Module } from "./module.ts";

/** How Llama 3.1 stretches rotary wavelengths for longer contexts: those above `originalContext / lowFreqFactor` by
 * `factor`, those below `originalContext / highFreqFactor` not at all, those between in part. */
export interface RopeScaling {
  /** How many times longer the long wavelengths become. */
  readonly factor: number;
  /** Wavelengths above `originalContext` over this, in tokens, are stretched in full. */
  readonly lowFreqFactor: number;
  /** Wavelengths below `originalContext` over this, in tokens, stay as they are. */
  readonly highFreqFactor: number;
  /** Context length, in tokens, that the scaling starts from. */
  readonly originalContext: number;
}

/** Llama 3.1's own. */
export const ROPE_SCALING: RopeScaling = {
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalContext: 8192,
};

/** What attention asks of each token beside its vector; made once for all layers. */
export interface AttentionContext {
  /** i32 `[B,T]`: a token sees those at its own position and before. */
  readonly positions: Tensor;
  /** Rotations, rows of (cos, sin) pairs `[B,T,K]`. */
  readonly table: Tensor;
  /** i32 `[B,T]`: with it, a token sees its own document only. */
  readonly documents?: Tensor;
  /** Where keys and values of earlier tokens are; without it a token sees those of its own run. */
  readonly cache?: Cache;
}

/** What turns positions into rotations (Su et al. 2021): pair i of a head turns by position * theta^(-2i/K). */
export class RotaryEmbedding extends Module {
  /** Keeps what the table is made from; there are no parameters.
   * @param headDim K, even. @param theta base of the frequencies.
   * @param scaling Llama 3.1's stretching, or null for plain frequencies. */
  constructor(readonly headDim: number, readonly theta: number, readonly scaling: RopeScaling | null) {
    super();
  }

  /** positions i32 `[B,T]` to a table `[B,T,K]` of the given element type */
  forward(positions_BT: Tensor, dtype: DType): Tensor {
    const { factor, lowFreqFactor, highFreqFactor, originalContext } = this.scaling ??
      { ...ROPE_SCALING, factor: 1 };
    return positions_BT.apply("rope_table", [], {
      size: this.headDim,
      dtype,
      theta: this.theta,
      factor,
      low: lowFreqFactor,
      high: highFreqFactor,
      original: originalContext,
    })[0];
  }
}

/** Sizes and initial deviation of an {@linkcode Attention}. */
export interface AttentionOptions {
  /** D. */
  readonly dim: number;
  /** Query heads. */
  readonly numHeads: number;
  /** Key/value heads; query head h uses key/value head floor(h G / H). */
  readonly numKvHeads: number;
  /** Head size K, even; default D over H. */
  readonly headDim?: number;
  /** Deviation of the initial wo; wq, wk and wv have 0.02. */
  readonly initStd?: number;
}

/** y = wo attention(rope(wq x), rope(wk x), wv x) */
export class Attention extends Module {
  /** Queries, D to H K. */
  readonly wq: Linear;
  /** Keys, D to G K. */
  readonly wk: Linear;
  /** Values, D to G K. */
  readonly wv: Linear;
  /** The heads' results joined, H K to D. */
  readonly wo: Linear;
  /** K. */
  readonly headDim: number;

  /** Makes the four weights. `numKvHeads` must divide `numHeads`, and K must be whole and even; that is not checked here, but by
   * `llamaConfig`. */
  constructor({ dim, numHeads, numKvHeads, headDim = dim / numHeads, initStd = 0.02 }: AttentionOptions) {
    super();
    this.headDim = headDim;
    this.wq = new Linear(dim, numHeads * headDim);
    this.wk = new Linear(dim, numKvHeads * headDim);
    this.wv = new Linear(dim, numKvHeads * headDim);
    this.wo = new Linear(numHeads * headDim, dim, truncatedNormal(initStd));
  }

  /** `[B,T,D]` to `[B,T,D]` */
  forward(x_BTD: Tensor, { positions, table, documents, cache }: AttentionContext): Tensor {
    const rotate = (y: Tensor): Tensor => y.apply("rope", [table])[0];
    const q_BTHK = rotate(this.heads(x_BTD, this.wq));
    const kept = (name: string, y: Tensor): Tensor => cache?.extend(name, y) ?? y;
    const k_BSGK = kept("keys", rotate(this.heads(x_BTD, this.wk)));
    const v_BSGK = kept("values", this.heads(x_BTD, this.wv));
    const operands = [k_BSGK, v_BSGK, positions, cache?.positions ?? positions], scale = 1 / Math.sqrt(this.headDim);
    const [o_BTHK] = documents
      ? q_BTHK.apply("attention", [...operands, documents, documents], { scale, documents: true })
      : q_BTHK.apply("attention", operands, { scale });
    return this.wo.forward(o_BTHK.reshape("b t h k -> b t (h k)"));
  }

  /** `[B,T,D]` to the heads `[B,T,H,K]` of queries, keys or values, before they are rotated. A subclass may do more here, such as to
   * norm queries and keys.
   * @param weight one of `wq`, `wk` and `wv`. */
  protected heads(x_BTD: Tensor, weight: Linear): Tensor {
    return weight.forward(x_BTD).reshape("b t (h k) -> b t h k", { k: this.headDim });
  }
}
