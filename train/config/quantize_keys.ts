/** The keys of what is multiplied in float8, with scales of tensors and rows, or of small blocks (MX).
 * @module */
import { z } from "zod";
import { flag, key, section, text } from "./key_types.ts";

/** `[quantize.linear.float8]`: linear layers that multiply in float8. */
export interface Float8LinearConfig {
  enable_fsdp_float8_all_gather: boolean;
  precompute_float8_dynamic_scale_for_fsdp: boolean;
  recipe_name: "tensorwise" | "rowwise" | "rowwise_with_gw_hp" | null;
  filter_fqns: string[];
  emulate: boolean;
}

/** `[quantize.linear.mx]`: linear layers that multiply in float8 with a scale for each 32 numbers. */
export interface MxLinearConfig {
  recipe_name: "mxfp8_cublas" | "mxfp8_emulated";
  filter_fqns: string[];
}

/** Names of what changes a model. */
export const converters = z.array(z.enum(["quantize.linear.float8", "quantize.linear.mx", "float8", "mx"])).meta({
  expected: "a list of quantize.linear.float8 or quantize.linear.mx",
});

/** Keys of `[quantize.linear.float8]`. */
export const float8Keys = section("Linear layers that multiply in float8, where model.converters says so.", {
  enable_fsdp_float8_all_gather: key(
    flag,
    false,
    "Ranks of dp_shard round their slices of weights and gather float8, half the bytes of bfloat16; tensorwise only.",
  ),
  precompute_float8_dynamic_scale_for_fsdp: key(
    flag,
    false,
    "The scales of all weights that are gathered so take one exchange of a microbatch, instead of one for each block.",
  ),
  recipe_name: key(
    z.enum(["tensorwise", "rowwise", "rowwise_with_gw_hp"]).nullable(),
    null,
    "How operands are scaled: tensorwise, by one number each, which not set means too; rowwise, by one for each sum; " +
      "rowwise_with_gw_hp: the same, with gradients of weights that are not float8.",
  ),
  filter_fqns: key(
    z.array(text).meta({ expected: "a list of texts" }),
    [],
    "Layers whose path contains one of these are left alone; auto_filter_small_kn: those too small to gain.",
  ),
  emulate: key(flag, false, "Round to float8 and multiply otherwise: all that a processor without float8 can do."),
});

/** Keys of `[quantize.linear.mx]`. */
export const mxKeys = section("Linear layers that multiply in MXFP8, where model.converters says so.", {
  recipe_name: key(
    z.enum(["mxfp8_cublas", "mxfp8_emulated"]),
    "mxfp8_cublas",
    "mxfp8_cublas multiplies as cards do, mxfp8_emulated rounds to the same numbers and multiplies otherwise: all that a processor can do.",
  ),
  filter_fqns: key(
    z.array(text).meta({ expected: "a list of texts" }),
    ["output"],
    "Layers whose path contains one of these are left alone.",
  ),
});
