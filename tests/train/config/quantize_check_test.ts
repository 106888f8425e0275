import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConfigError, loadConfig } from "../../../train/config/config.ts";

const load = (...args: string[]) => loadConfig(args, () => "");
const problem = async (...args: string[]) => (await assertRejects(() => load(...args), ConfigError)).message;

Deno.test("float8 is refused where it cannot be emulated, with float64, and where rows are gathered as float8", async () => {
  const float8 = (...rest: string[]) => rest.map((key) => `--quantize.linear.float8.${key}`);
  const on = ["--model.converters", "quantize.linear.float8"], emulate = float8("emulate");
  const { config, warnings } = await load(...on, ...emulate, ...float8("filter_fqns=output,wk"));
  assertEquals(config.quantize.linear.float8.filter_fqns, ["output", "wk"]);
  assertEquals(warnings.filter((w) => w.includes("float8")), []);
  assertMatch(await problem(...on), /multiplies no float8\n.*emulation.*\n {2}fix: write emulate = true/);
  assertMatch((await load(...on, "--dry-run")).warnings.join(), /refused without quantize.linear.float8.emulate/);
  assertMatch((await load("--model.converters=float8", ...emulate)).warnings.join(), /an old name of quantize/);
  assertMatch(await problem(...on, ...emulate, "--training.dtype=float64"), /everything is computed in float64/);
  const [gather] = float8("enable_fsdp_float8_all_gather");
  const [precompute] = float8("precompute_float8_dynamic_scale_for_fsdp");
  assertMatch(await problem(...on, ...emulate, gather, ...float8("recipe_name=tensorwise")), /no recipe is named/);
  assertMatch(await problem(...on, ...emulate, precompute), /without enable_fsdp_float8_all_gather/);
  assertEquals((await load(...on, ...emulate, gather, precompute)).config.model.converters.length, 1);
  assertMatch((await load(...emulate)).warnings.join(), /emulate has no effect: it needs model.converters/);
});
