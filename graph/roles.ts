/** How the parameters of a model may be cut, in words that name no axis of a mesh.
 * @module */

/** What a model says to tensor parallelism; it names no axis. */
export interface ModelPlan {
  /** Parameters that may be cut; all others are whole on every rank. */
  readonly parameters: readonly ParameterRole[];
  /** Module whose result are the logits `[..., V]`. */
  readonly logits: string;
  /** Number of dims of the residual stream: batch, sequence, then features. */
  readonly residualRank: number;
}

/** How the weights `[out, in]`, or tables `[rows, width]`, of a name may be cut. */
export interface ParameterRole {
  /** Name, in which `*` stands for any part between dots. */
  readonly pattern: string;
  /** `column`: by what it gives. `row`: by what it takes. `table`: by rows that are looked up. */
  readonly role: "column" | "row" | "table";
  /** That dim is so many equal parts which belong together, such as heads. */
  readonly units: number;
}
