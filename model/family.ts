/** What is said about a family of models where they are named: in configurations, in checkpoints, and in the files of other programs.
 * @module */
import type { GenerativeModel } from "./cache.ts";
import type { Family, TrainableModel } from "./loss.ts";
import type { TransformerOptions, TransformerSizes } from "./sizes.ts";

/** A model of a family. */
export type FamilyModel = TrainableModel & GenerativeModel & { readonly family: Family<TransformerSizes> };

/** How another program writes models of a family. */
export interface ForeignForm {
  /** What it calls the family. */
  readonly name: string;
  /** The names of the parameters there, by ours. */
  readonly names: (sizes: TransformerSizes) => ReadonlyMap<string, string>;
  /** What it may say that changes what a model computes, each with the values that models here have. Where nothing is said, the first
   * holds. */
  readonly assumed: Readonly<Record<string, readonly unknown[]>>;
}

/** A family of models that differ in sizes alone. */
export interface ModelFamily {
  /** As `state.json` of a checkpoint names it. */
  readonly name: string;
  /** Known sizes, each as `model.name` and `model.flavor` of a configuration: `llama3/8B`. */
  readonly flavors: readonly string[];
  /** The sizes of a flavor, with some of them replaced.
   * @throws {RangeError} when there is no such flavor, or the sizes do not fit each other. */
  readonly sizes: (flavor: string, options?: TransformerOptions) => TransformerSizes;
  /** A model of these sizes. */
  readonly build: (sizes: TransformerSizes) => FamilyModel;
  /** Hugging Face's `transformers`, with the names of its class and of scaled rotary frequencies. */
  readonly huggingFace: ForeignForm & { readonly architecture: string; readonly ropeScaling: string };
  /** llama.cpp's GGUF. */
  readonly gguf: ForeignForm;
  /** Are the rows of a parameter turned by RoPE? Here neighbours are a pair, in `transformers` the halves of a head are. */
  readonly hasTurnedRows: (parameter: string) => boolean;
}
