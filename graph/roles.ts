/** How the parameters of a model may be cut, in words that name no axis of a mesh.
 * @module */
import type { DimRole } from "./ir.ts";

/** What a model says to tensor and expert parallelism; it names no axis. */
export interface ModelPlan {
  /** Parameters that may be cut; all others are whole on every rank. */
  readonly parameters: readonly ParameterRole[];
  /** Module whose result are the logits `[..., V]`. */
  readonly logits: string;
  /** What the dims of the residual stream count, such as `["batch", "sequence", "features"]`. */
  readonly residual: readonly DimRole[];
  /** What is kept of earlier tokens, `[batch, tokens, features]`, and may be cut by features; all else that is kept is whole on every
   * rank. */
  readonly caches?: readonly CacheRole[];
}

/** How caches of a name may be cut. */
export interface CacheRole {
  /** Name, in which `*` stands for any part between dots. */
  readonly pattern: string;
  /** Its features are so many equal parts which belong together, such as heads. */
  readonly parts: number;
}

/** How the weights `[out, in]`, tables `[rows, width]` or experts `[experts, ...]` of a name may be cut. */
export interface ParameterRole {
  /** Name, in which `*` stands for any part between dots. */
  readonly pattern: string;
  /** `column`: by what it gives. `row`: by what it takes. `table`: by rows that are looked up. `expert`: by experts, to which tokens
   * are then sent. */
  readonly role: "column" | "row" | "table" | "expert";
  /** That dim is so many equal parts which belong together, such as heads. */
  readonly parts: number;
}
