/** What contradicts the keys of `[quantize.linear.float8]`, and what is surprising about them.
 * @module */
import { type Problem, show } from "./problem.ts";
import type { Config } from "./types.ts";

const FLOAT8 = "quantize.linear.float8";

/** Scales of rows say nothing of the slices that ranks have, and float64 is one type for everything. */
export function float8Problems(config: Config, place: (name: string) => string): Problem[] {
  const { model: { converters }, training, quantize: { linear: { float8 } } } = config;
  if (converters.length === 0) return [];
  const gather = "enable_fsdp_float8_all_gather", precompute = "precompute_float8_dynamic_scale_for_fsdp";
  const problems: Problem[] = [], at = (key: string) => place(`${FLOAT8}.${key}`);
  const add = (what: string, expected: string, fix: string) => problems.push({ code: "float8", what, expected, fix });
  if (training.dtype === "float64") {
    add(
      `model.converters = ${show(converters)}${place("model.converters")} with training.dtype = "float64"${
        place("training.dtype")
      }`,
      "with float64 everything is computed in float64",
      'write dtype = "float32", or leave converters out',
    );
  }
  if (float8[gather] && float8.recipe_name !== null) {
    add(
      `${FLOAT8}.${gather}${at(gather)} with recipe_name = ${show(float8.recipe_name)}${at("recipe_name")}`,
      "weights that are gathered as float8 have one scale each, and no recipe is named",
      "leave one of them out",
    );
  }
  if (float8[precompute] && !float8[gather]) {
    add(
      `${FLOAT8}.${precompute}${at(precompute)} without ${gather}`,
      "scales of weights that are gathered as float8",
      `set ${gather} as well, or leave it out`,
    );
  }
  return problems;
}

/** No processor multiplies float8 itself, and slower is not what was asked for. */
export function emulationProblems({ model, quantize }: Config, place: (name: string) => string): Problem[] {
  if (model.converters.length === 0 || quantize.linear.float8.emulate) return [];
  return [{
    code: "float8",
    what: `model.converters = ${show(model.converters)}${place("model.converters")}: the device is a processor, ` +
      "and multiplies no float8",
    expected: "a card of compute capability 8.9 or higher, or emulation: the same numbers, and no faster",
    fix: `write emulate = true under [${FLOAT8}], or leave converters out; --dry-run plans it either way`,
  }];
}

/** What runs, but perhaps not as meant. */
export function float8Surprises(config: Config, dryRun: boolean): string[] {
  const isRefused = dryRun && emulationProblems(config, () => "").length > 0;
  return [
    ...(config.model.converters.includes("float8")
      ? ['model.converters = "float8" is an old name of quantize.linear.float8']
      : []),
    ...(isRefused
      ? [`a run on this machine is refused without ${FLOAT8}.emulate: no processor multiplies float8`]
      : []),
  ];
}
