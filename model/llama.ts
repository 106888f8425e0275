/** Llama 2 and 3 (Touvron et al. 2023; Grattafiori et al. 2024), with the sizes, names and initial values of torchtitan.
 * Shape letters: B batch, T tokens, D model, V vocabulary.
 * @module */
import type { ModelPlan } from "../graph/roles.ts";
import { llamaPlan } from "./llama_plan.ts";
import type { Tensor } from "../graph/tensor.ts";
import { Attention, type AttentionContext, ROPE_SCALING, RotaryEmbedding } from "./attention.ts";
import type { GenerativeModel, NewTokens } from "./cache.ts";
import { FeedForward, feedForwardHiddenDim } from "./feed_forward.ts";
import { Embedding, Linear, RMSNorm } from "./layers.ts";
import { type Batch, CrossEntropy, type Family, type LossSum, type TrainableModel } from "./loss.ts";
import { Module, numParameters } from "./module.ts";
import type { TransformerOptions, TransformerSizes } from "./sizes.ts";

/** Every size of a Llama. */
export type LlamaConfig = TransformerSizes;

/** What can be chosen: any size, or the rule that makes the feed-forward width from `dim`. */
export type LlamaOptions = TransformerOptions;

type Flavor = LlamaOptions & Pick<LlamaConfig, "dim" | "numLayers" | "numHeads"> & { readonly multipleOf: number };

/** What the flavors of a family share. Llama 3 scales its rotary frequencies at every size and length, as torchtitan does;
 * weights of Llama 3.0, and torchtitan's before October 2025, want `ropeScaling: null`. */
const families = {
  llama3: { vocabSize: 128256, ropeTheta: 500000, ropeScaling: ROPE_SCALING },
  llama2: { vocabSize: 32000, ropeTheta: 10000, ropeScaling: null },
} as const;

const DEBUG = { dim: 256, numLayers: 6, numHeads: 16, multipleOf: 256, vocabSize: 2048 };
const LLAMA3_8B = { dim: 4096, numLayers: 32, numHeads: 32, numKvHeads: 8, multipleOf: 1024, ffnDimMultiplier: 1.3 };

/** Sizes by family and flavor; where `numKvHeads` is missing it is `numHeads`, and `headDim` is `dim` over `numHeads`. */
const flavors: Readonly<Record<keyof typeof families, Readonly<Record<string, Flavor>>>> = {
  llama3: {
    debugmodel: DEBUG,
    "8B": LLAMA3_8B,
    "70B": { dim: 8192, numLayers: 80, numHeads: 64, numKvHeads: 8, multipleOf: 4096, ffnDimMultiplier: 1.3 },
    "405B": { dim: 16384, numLayers: 126, numHeads: 128, numKvHeads: 8, multipleOf: 4096, ffnDimMultiplier: 1.2 },
    debugmodel_flex_attn: DEBUG,
    debugmodel_varlen_attn: DEBUG,
    "8B_flex": LLAMA3_8B,
    "8B_varlen": LLAMA3_8B,
  },
  llama2: {
    "271M": { dim: 1024, numLayers: 16, numHeads: 8, multipleOf: 256 },
    "1B": { dim: 2048, numLayers: 18, numHeads: 16, multipleOf: 256 },
    "7B": { dim: 4096, numLayers: 32, numHeads: 32, multipleOf: 256 },
    "13B": { dim: 5120, numLayers: 40, numHeads: 40, multipleOf: 256 },
    "26B": { dim: 5120, numLayers: 80, numHeads: 40, multipleOf: 256 },
    "70B": { dim: 8192, numLayers: 80, numHeads: 64, numKvHeads: 8, multipleOf: 4096, ffnDimMultiplier: 1.3 },
  },
};

/** Names that {@linkcode llama} accepts, each with its family: `llama3/8B`. */
export const llamaFlavors: readonly string[] = Object.entries(flavors).flatMap(([family, sizes]) =>
  Object.keys(sizes).map((flavor) => `${family}/${flavor}`)
);

/** The sizes of a flavor, with some of them replaced.
 * @param flavor `8B`, or with its family `llama2/7B`; `debug` is short for `debugmodel`.
 * @throws {RangeError} when there is no such flavor, or the sizes do not fit each other. */
export function llamaConfig(flavor: string, options: LlamaOptions = {}): LlamaConfig {
  const [family, size] = flavor.includes("/") ? flavor.split("/") : ["llama3", flavor];
  const name = size === "debug" ? "debugmodel" : size;
  if (!llamaFlavors.includes(`${family}/${name}`)) {
    throw new RangeError(`Cannot find Llama flavor "${flavor}": expected one of ${llamaFlavors.join(", ")}`);
  }
  const known = family as keyof typeof families;
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as LlamaOptions;
  const sizes = { ...families[known], normEps: 1e-5, ...flavors[known][name], ...given };
  const { dim, multipleOf, ffnDimMultiplier: multiplier } = sizes;
  return checked({
    dim,
    numLayers: sizes.numLayers,
    numHeads: sizes.numHeads,
    numKvHeads: sizes.numKvHeads ?? sizes.numHeads,
    headDim: sizes.headDim ?? dim / sizes.numHeads,
    vocabSize: sizes.vocabSize,
    ffnHiddenDim: sizes.ffnHiddenDim ?? feedForwardHiddenDim(dim, { multipleOf, multiplier }),
    normEps: sizes.normEps,
    ropeTheta: sizes.ropeTheta,
    ropeScaling: sizes.ropeScaling,
    tiedEmbeddings: sizes.tiedEmbeddings ?? false,
  });
}

function checked(config: LlamaConfig): LlamaConfig {
  const { dim, numHeads, numKvHeads, headDim } = config;
  if (headDim % 2 !== 0) {
    throw new RangeError(
      `Cannot have ${numHeads} heads of size ${headDim}: expected an even whole size, since rotary embeddings turn ` +
        `pairs; make dim, which is ${dim}, a multiple of ${2 * numHeads}, or set headDim`,
    );
  }
  if (numHeads % numKvHeads !== 0) {
    throw new RangeError(
      `Cannot share ${numKvHeads} key/value heads among ${numHeads} query heads: expected a divisor; change numKvHeads`,
    );
  }
  return config;
}

/** A Llama of a known size, ready to be trained.
 * @param flavor `debug`, `8B`, `70B`, `405B`, or with its family `llama2/7B`. @param options sizes to replace.
 * @throws {RangeError} when there is no such flavor, or the sizes do not fit each other.
 * @example
 * ```ts
 * const model = llama("debug", { dim: 128, vocabSize: 512 });
 * ``` */
export function llama(flavor: string, options: LlamaOptions = {}): Llama {
  return new Llama(llamaConfig(flavor, options));
}

/** One block: attention, then feed-forward, each on the norm of the residual stream and added to it. */
export class TransformerBlock extends Module {
  /** Attention of the block. */
  readonly attention: Attention;
  /** Feed-forward part of the block. */
  readonly feedForward: FeedForward;
  /** Norm of what attention reads. */
  readonly attentionNorm: RMSNorm;
  /** Norm of what the feed-forward part reads. */
  readonly ffnNorm: RMSNorm;

  /** Makes the parameters of one layer.
   * @param index layer number from 0: what a block adds to the residual stream starts smaller with depth. */
  constructor({ dim, numHeads, numKvHeads, headDim, ffnHiddenDim, normEps }: LlamaConfig, index: number) {
    super();
    const initStd = 0.02 / Math.sqrt(2 * (index + 1));
    this.attention = new Attention({ dim, numHeads, numKvHeads, headDim, initStd });
    this.feedForward = new FeedForward({ dim, hiddenDim: ffnHiddenDim, initStd });
    this.attentionNorm = new RMSNorm(dim, normEps);
    this.ffnNorm = new RMSNorm(dim, normEps);
  }

  /** `[B,T,D]` to `[B,T,D]` */
  forward(x_BTD: Tensor, context: AttentionContext): Tensor {
    const h_BTD = x_BTD.add(this.attention.forward(this.attentionNorm.forward(x_BTD), context));
    return h_BTD.add(this.feedForward.forward(this.ffnNorm.forward(h_BTD)));
  }
}

/** The whole model: embedding, blocks, norm, output layer. */
export class Llama extends Module implements TrainableModel, GenerativeModel {
  /** From token ids to the residual stream, weight `[V,D]`. */
  readonly tokEmbeddings: Embedding;
  /** Blocks in the order that they are applied. */
  readonly layers: readonly TransformerBlock[];
  /** Norm before the output layer. */
  readonly norm: RMSNorm;
  /** From the residual stream to logits, weight `[V,D]`; with `tiedEmbeddings` the embedding's. */
  readonly output: Linear;
  /** Makes the table of rotations that all blocks share. */
  readonly rotaryEmbedding: RotaryEmbedding;
  /** Makes the loss from the logits. */
  readonly crossEntropy: CrossEntropy = new CrossEntropy();

  /** Makes the parameters. Sizes that do not fit each other are refused by {@linkcode llamaConfig}, not here.
   * @param config every size. */
  constructor(readonly config: LlamaConfig) {
    super();
    const { dim, vocabSize, normEps, ropeTheta, ropeScaling, tiedEmbeddings } = config;
    this.layers = Array.from({ length: config.numLayers }, (_, i) => new TransformerBlock(config, i));
    this.norm = new RMSNorm(dim, normEps);
    const std = 1 / Math.sqrt(dim);
    const init = { kind: "truncated_normal", std, low: -3 * std, high: 3 * std } as const;
    // One parameter starts as the output layer's would: logits of a table that starts as an embedding's are far too large.
    this.tokEmbeddings = new Embedding(vocabSize, dim, tiedEmbeddings ? init : undefined);
    this.output = new Linear(dim, vocabSize, tiedEmbeddings ? this.tokEmbeddings.weight : init);
    this.rotaryEmbedding = new RotaryEmbedding(config.headDim, ropeTheta, ropeScaling);
  }

  /** tokens and positions i32 `[B,T]` to logits `[B,T,V]` */
  forward(batch: Omit<Batch, "targets">): Tensor {
    return this.output.forward(this.norm.forward(this.#blocks(batch)));
  }

  /** Only what is behind each sequence's last token goes through the output layer. */
  next(tokens: NewTokens): Tensor {
    const last_B1D = this.#blocks(tokens).take(tokens.last);
    return this.output.forward(this.norm.forward(last_B1D)).reshape("b 1 v -> b v");
  }

  /** From tokens to the residual stream behind all blocks, `[B,T,D]`. */
  #blocks({ tokens, ...at }: { readonly tokens: Tensor } & Omit<AttentionContext, "table">): Tensor {
    let x_BTD = this.tokEmbeddings.forward(tokens);
    const context = { ...at, table: this.rotaryEmbedding.forward(at.positions, x_BTD.dtype) };
    for (const layer of this.layers) x_BTD = layer.forward(x_BTD, context);
    return x_BTD;
  }

  /** Cross-entropy of the logits with the targets. */
  loss(batch: Batch): LossSum {
    return this.crossEntropy.forward(this.forward(batch), batch.targets);
  }

  /** Rows of the embedding. */
  get vocabSize(): number {
    return this.config.vocabSize;
  }

  /** What tensor parallelism may cut: see `llama_plan.ts`. */
  get plan(): ModelPlan {
    return llamaPlan(this.config);
  }

  /** The sizes, for {@linkcode Llama}'s constructor. */
  get family(): Family<LlamaConfig> {
    return { name: "llama", sizes: this.config };
  }

  /** torchtitan's count: six for each parameter that multiplies, and attention without a discount for causality. */
  flopsPerToken(seqLen: number): number {
    const { dim, numLayers, numHeads, headDim, vocabSize } = this.config;
    const table = this.config.tiedEmbeddings ? 0 : vocabSize * dim; // it multiplies where it is the output layer's too
    return 6 * (numParameters(this) - table) + 12 * numLayers * numHeads * headDim * seqLen;
  }
}
