/** The keys of what is multiplied in float8.
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

/** Names of what changes a model. */
export const float8Converters = z.array(z.enum(["quantize.linear.float8", "float8"])).meta({
  expected: "a list of quantize.linear.float8",
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
