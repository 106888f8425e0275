/** Of which family, and of what sizes, the model of a checkpoint is: `state.json` says it under the name of the family.
 * @module */
import { families } from "../../model/families.ts";
import type { Family } from "../../model/loss.ts";
import type { TransformerSizes } from "../../model/sizes.ts";
import type { Checkpoint } from "./manifest.ts";
import { readSmall } from "./read.ts";
import { STATE_FILE } from "./save.ts";

/** Family and sizes of a checkpoint's model; undefined where it is of none that is known here.
 * @param checkpoint that a run has saved. @throws {CheckpointError} when the file that says it is damaged. */
export function familyOfState(checkpoint: Checkpoint): Family<TransformerSizes> | undefined {
  const state = JSON.parse(readSmall(checkpoint, STATE_FILE)), family = families.find(({ name }) => name in state);
  if (!family) return undefined;
  const { name } = family, { [name]: sizes } = state;
  // Checkpoints from before heads had a size of their own do not say it.
  return { name, sizes: { headDim: sizes.dim / sizes.numHeads, ...sizes } };
}
