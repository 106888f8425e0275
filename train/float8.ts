/** Which layers of a model multiply in float8, and why others do not. How they do is `graph/passes/float8.ts`.
 * @module */
import { BLOCK, type Float8Products, type Float8Recipe } from "../graph/passes/float8.ts";
import { Linear } from "../model/layers.ts";
import { type Module, namedModules, namedParameters } from "../model/module.ts";

/** What is converted. */
export interface Float8Options {
  /** How operands are scaled; default `tensorwise`. */
  readonly recipe?: Float8Recipe;
  /** Layers whose path contains one of these stay as they are; `auto_filter_small_kn` stands for those that are too small to gain. */
  readonly filter?: readonly string[];
  /** Do ranks gather weights as float8? Only with `tensorwise`; default no. */
  readonly gathered?: boolean;
  /** Do they find the scales of these by one exchange? Default: by one for each block. */
  readonly precomputed?: boolean;
}

/** A linear layer of a model. */
export interface Float8Layer {
  /** Its path. */
  readonly name: string;
  /** Name of its weight. */
  readonly weight: string;
  /** Sizes of the weight: what it gives, what it takes. */
  readonly shape: readonly number[];
  /** Why it is not converted; absent where it is. */
  readonly why?: string;
}

/** Stands for all layers that are too small to gain. */
const SMALL = "auto_filter_small_kn";
/** Sizes of operands of float8 are multiples of this: what cards multiply, and whole blocks of `mxfp8`. */
const multipleOf = (recipe: Float8Recipe): number => recipe === "mxfp8" ? BLOCK : 16;

/** All linear layers of a model. */
export function float8Layers(model: Module, { recipe = "tensorwise", filter = [] }: Float8Options = {}): Float8Layer[] {
  const names = new Map([...namedParameters(model)].map(([name, parameter]) => [parameter, name]));
  const parts = filter.filter((part) => part !== SMALL);
  return [...namedModules(model)].flatMap(([name, module]): Float8Layer[] => {
    if (!(module instanceof Linear)) return [];
    const { shape } = module.weight, weight = names.get(module.weight)!, [n, k] = shape;
    const part = parts.find((p) => name.includes(p));
    const why = part !== undefined
      ? `its name contains ${part}`
      : weight !== `${name}.weight`
      ? `its weight is ${weight}`
      : shape.some((size) => size % multipleOf(recipe) !== 0)
      ? `its sizes are no multiples of ${multipleOf(recipe)}`
      : filter.includes(SMALL) && isSmall(n, k, recipe)
      ? "it is too small to gain"
      : undefined;
    return [{ name, weight, shape, ...(why === undefined ? {} : { why }) }];
  });
}

/** Layers that are slower in float8, as torchao measured on an H100. */
function isSmall(n: number, k: number, recipe: Float8Recipe): boolean {
  return recipe === "tensorwise" ? k <= 4096 && n <= 1024 : n <= 2048 || k <= 1024 || n <= 4096 && k <= 2048;
}

/** What is multiplied in float8, as passes take it.
 * @throws {RangeError} when no layer is converted. */
export function float8ProductsOf(model: Module, options: Float8Options = {}): Float8Products {
  const { recipe = "tensorwise", gathered = false, precomputed = false } = options,
    layers = float8Layers(model, options);
  const weights = new Set(layers.filter((l) => l.why === undefined).map((l) => l.weight));
  if (weights.size > 0) return { recipe, weights, gathered, precomputed };
  const all = layers.map(({ name, shape, why }) => `${name} [${shape}]: ${why}`).join(", ");
  throw new RangeError(
    `Cannot multiply in float8: no linear layer of ${model.constructor.name} would (${
      all || "it has none"
    })\n  expected: ` +
      `layers whose sizes are multiples of ${
        multipleOf(recipe)
      }\n  fix: leave model.converters out, or filter fewer layers`,
  );
}

/** What a run is told on a device that multiplies no float8; the figures are those of docs/float8.md. */
export const EMULATED = "emulated, as processors multiply no float8: a step takes 1.3 to 1.9 times as long as in bf16";

/** Which layers are converted and which are not, and why: alike ones together, a line for each reason. */
export function float8Lines(model: Module, options: Float8Options): string[] {
  const layers = float8Layers(model, options), groups = Map.groupBy(layers, (l) => l.why);
  const kinds = (some: readonly Float8Layer[]) =>
    [...new Set(some.map(({ name }) => name.replace(/(^|\.)\d+(?=\.|$)/g, "$1*")))].join(", ");
  const converted = groups.get(undefined) ?? [];
  return [
    `${converted.length} of ${layers.length} linear layers: ${kinds(converted)}`,
    ...[...groups].flatMap(([why, some]) => why === undefined ? [] : [`not ${kinds(some)}, since ${why}`]),
  ];
}
