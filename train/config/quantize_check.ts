/** What contradicts the keys of `[quantize.linear]`, and what is surprising about them.
 * @module */
import { BLOCK } from "../../graph/passes/float8.ts";
import { type Problem, show } from "./problem.ts";
import type { Config } from "./types.ts";

const FLOAT8 = "quantize.linear.float8", MX = "quantize.linear.mx";

/** Are layers converted to MXFP8? */
export const convertsToMx = (converters: Config["model"]["converters"]): boolean =>
  converters.some((name) => name.endsWith("mx"));

/** One kind of scales is for all layers, and float64 is one type for everything. */
export function float8Problems(config: Config, place: (name: string) => string): Problem[] {
  const { model: { converters }, training } = config, problems: Problem[] = [];
  if (converters.length === 0) return [];
  const add: Add = (what, expected, fix) => problems.push({ code: "float8", what, expected, fix });
  const converted = `model.converters = ${show(converters)}${place("model.converters")}`;
  if (training.dtype === "float64") {
    add(
      `${converted} with training.dtype = "float64"${place("training.dtype")}`,
      "with float64 everything is computed in float64",
      'write dtype = "float32", or leave converters out',
    );
  }
  if (!convertsToMx(converters)) scaleProblems(config, place, add);
  else if (!converters.every((name) => name.endsWith("mx"))) {
    add(converted, "one of quantize.linear.float8 and quantize.linear.mx", "leave one of them out");
  } else if (training.seq_len % BLOCK !== 0) {
    add(
      `training.seq_len = ${training.seq_len}${place("training.seq_len")} with ${converted}`,
      `a multiple of ${BLOCK}, as so many tokens have one scale where gradients of weights are summed up`,
      `write seq_len = ${Math.ceil(training.seq_len / BLOCK) * BLOCK}`,
    );
  }
  return problems;
}

type Add = (what: string, expected: string, fix: string) => void;

/** Scales of rows say nothing of the slices that ranks have. */
function scaleProblems(
  { quantize: { linear: { float8 } } }: Config,
  place: (name: string) => string,
  add: Add,
): void {
  const gather = "enable_fsdp_float8_all_gather", precompute = "precompute_float8_dynamic_scale_for_fsdp";
  const at = (key: string) => place(`${FLOAT8}.${key}`);
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
}

/** No processor multiplies float8 itself, and slower is not what was asked for. */
export function emulationProblems(
  { model: { converters }, quantize: { linear } }: Config,
  place: (name: string) => string,
): Problem[] {
  const isMx = convertsToMx(converters);
  const isEmulated = isMx ? linear.mx.recipe_name === "mxfp8_emulated" : linear.float8.emulate;
  if (converters.length === 0 || isEmulated) return [];
  const emulate = isMx ? `recipe_name = "mxfp8_emulated" under [${MX}]` : `emulate = true under [${FLOAT8}]`;
  return [{
    code: "float8",
    what: `model.converters = ${show(converters)}${place("model.converters")}: the device is a processor, ` +
      "and multiplies no float8",
    expected: `a card of compute capability ${
      isMx ? "10.0" : "8.9"
    } or higher, or emulation: the same numbers, and no faster`,
    fix: `write ${emulate}, or leave converters out; --dry-run plans it either way`,
  }];
}

/** What runs, but perhaps not as meant. */
export function float8Surprises(config: Config, dryRun: boolean): string[] {
  const { converters } = config.model, isRefused = dryRun && emulationProblems(config, () => "").length > 0;
  const emulation = convertsToMx(converters) ? `recipe_name = "mxfp8_emulated" under [${MX}]` : `${FLOAT8}.emulate`;
  return [
    ...converters.filter((name) => !name.includes(".")).map((name) =>
      `model.converters = "${name}" is an old name of quantize.linear.${name}`
    ),
    ...(isRefused ? [`a run on this machine is refused without ${emulation}: no processor multiplies float8`] : []),
  ];
}
