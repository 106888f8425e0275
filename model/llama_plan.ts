/** What tensor parallelism may cut in a Llama, by role; which axis does it, and whether, is the mesh's business.
 * @module */
import type { ModelPlan } from "../graph/roles.ts";

/** What a plan needs to know of a Llama, as its configuration has it. */
export type PlannedSizes =
  & Readonly<Record<"numHeads" | "numKvHeads" | "ffnHiddenDim" | "vocabSize", number>>
  & { readonly tiedEmbeddings: boolean };

/** The plan of a Llama: what follows a norm is cut by what it gives, what leads back to the residual stream by what it takes, so
 * that each half of a block has one exchange on the way in and one on the way out. */
export function llamaPlan({ numHeads, numKvHeads, ffnHiddenDim, vocabSize, tiedEmbeddings }: PlannedSizes): ModelPlan {
  return {
    parameters: [
      { pattern: "tok_embeddings.weight", role: "table", parts: vocabSize },
      { pattern: "layers.*.attention.wq.weight", role: "column", parts: numHeads },
      { pattern: "layers.*.attention.wk.weight", role: "column", parts: numKvHeads },
      { pattern: "layers.*.attention.wv.weight", role: "column", parts: numKvHeads },
      { pattern: "layers.*.attention.wo.weight", role: "row", parts: numHeads },
      { pattern: "layers.*.feed_forward.w1.weight", role: "column", parts: ffnHiddenDim },
      { pattern: "layers.*.feed_forward.w2.weight", role: "row", parts: ffnHiddenDim },
      { pattern: "layers.*.feed_forward.w3.weight", role: "column", parts: ffnHiddenDim },
      // As a table it is cut by the same dim.
      ...(tiedEmbeddings ? [] : [{ pattern: "output.weight", role: "column", parts: vocabSize } as const]),
    ],
    caches: [{ pattern: "cache/layers.*.attention.*", parts: numKvHeads }],
    logits: "output",
    residual: ["batch", "sequence", "features"],
  };
}
