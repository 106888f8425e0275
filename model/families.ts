/** The families of models that are found by name. A new one is a record in a file of its own, and a line here.
 * @module */
import type { FamilyModel, ModelFamily } from "./family.ts";
import { llamaFamily } from "./llama_family.ts";
import type { Family } from "./loss.ts";
import type { TransformerOptions, TransformerSizes } from "./sizes.ts";

/** All families; the first is that of weights which do not say theirs. */
export const families: readonly ModelFamily[] = [llamaFamily];

/** Their names, for people. */
export const familyNames: string = families.map((f) => f.name).join(", ");

/** Known sizes of all families, such as `llama3/8B`. */
export const flavors: readonly string[] = families.flatMap((f) => f.flavors);

/** What is trained where nothing is chosen. */
export const DEFAULT_FLAVOR = { name: "llama3", flavor: "debugmodel" } as const;

/** The family of that name.
 * @throws {RangeError} when there is none. */
export function familyNamed(name: string): ModelFamily {
  const family = families.find((f) => f.name === name);
  if (!family) throw new RangeError(`Cannot find model family "${name}": expected one of ${familyNames}`);
  return family;
}

/** The family and the sizes of a flavor, with some of these replaced.
 * @param flavor with its name in configurations: `llama3/8B`.
 * @throws {RangeError} when there is no such flavor, or the sizes do not fit each other. */
export function flavorNamed(flavor: string, options: TransformerOptions = {}): Family<TransformerSizes> {
  const family = families.find((f) => f.flavors.includes(flavor));
  if (!family) throw new RangeError(`Cannot find model "${flavor}": expected one of ${flavors.join(", ")}`);
  return { name: family.name, sizes: family.sizes(flavor, options) };
}

/** Does attention stay within documents in this flavor, as in those that torchtitan names for its kernels of document masks? */
export function masksDocuments(flavor: string): boolean {
  return /_(flex|varlen)(_attn)?$/.test(flavor);
}

/** A model of a family: what a checkpoint, or {@linkcode flavorNamed}, says of one.
 * @throws {RangeError} when the family is not known. */
export function buildModel({ name, sizes }: Family<TransformerSizes>): FamilyModel {
  return familyNamed(name).build(sizes);
}
