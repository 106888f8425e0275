/** Sizes that all families of decoders share, under the names that configurations and checkpoints have for them.
 * @module */
import type { RopeScaling } from "./attention.ts";

/** Every size of a decoder: blocks of attention and feed-forward between an embedding and an output layer. */
export interface TransformerSizes {
  /** Width of the residual stream. */
  readonly dim: number;
  /** Number of transformer blocks. */
  readonly numLayers: number;
  /** Query heads. */
  readonly numHeads: number;
  /** Key and value heads. */
  readonly numKvHeads: number;
  /** Size of a head: queries are `numHeads` times this wide, keys and values `numKvHeads` times. */
  readonly headDim: number;
  /** Rows of the embedding and of the output layer. */
  readonly vocabSize: number;
  /** Width inside of the feed-forward blocks. */
  readonly ffnHiddenDim: number;
  /** Added to the mean square in RMSNorm. */
  readonly normEps: number;
  /** Base of the rotary frequencies. */
  readonly ropeTheta: number;
  /** Llama 3.1's stretching of the rotary wavelengths; null is off. */
  readonly ropeScaling: RopeScaling | null;
  /** Is the output layer's weight that of the embedding? One parameter then has both uses. */
  readonly tiedEmbeddings: boolean;
}

/** What can be chosen: any size, or the rule that makes the feed-forward width from `dim`. */
export interface TransformerOptions extends Partial<TransformerSizes> {
  /** The feed-forward width is rounded up to a multiple of this. */
  readonly multipleOf?: number;
  /** Scales the feed-forward width, 8/3 `dim`, before rounding. */
  readonly ffnDimMultiplier?: number;
}
