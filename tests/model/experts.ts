/** The mixture of experts of `examples/`, with a vocabulary small enough for the interpreter.
 * @module */
import { Bigrams } from "../../examples/mixture_of_experts.ts";
import { Embedding, Linear } from "../../model/layers.ts";

/** Four experts, of which each token is given to two. */
export class SmallExperts extends Bigrams {
  override readonly table: Embedding = new Embedding(64, 64);
  override readonly head: Linear = new Linear(64, 64);
  readonly vocabSize = 64;
}
