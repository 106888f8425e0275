import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConfigError, float8Options, loadConfig } from "../../../train/config/config.ts";

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

Deno.test("MXFP8 is refused beside float8, where blocks do not fit into rows, and where it cannot be emulated", async () => {
  const on = ["--model.converters", "quantize.linear.mx"], emulated = "--quantize.linear.mx.recipe_name=mxfp8_emulated";
  const { config, warnings } = await load(...on, emulated);
  assertEquals(float8Options(config), { recipe: "mxfp8", filter: ["output"] });
  assertEquals(warnings.filter((w) => w.includes("mx")), []);
  assertMatch(await problem(...on), /multiplies no float8\n.*10\.0.*\n {2}fix: write recipe_name = "mxfp8_emulated"/);
  assertMatch((await load(...on, "--dry-run")).warnings.join(), /refused without recipe_name = "mxfp8_emulated"/);
  assertMatch((await load("--model.converters=mx", emulated)).warnings.join(), /an old name of quantize.linear.mx/);
  assertMatch(await problem(...on, emulated, "--training.dtype=float64"), /everything is computed in float64/);
  assertMatch(
    await problem(...on, emulated, "--training.seq_len=40"),
    /a multiple of 32.*\n {2}fix: write seq_len = 64/,
  );
  assertMatch(
    await problem("--model.converters=quantize.linear.float8,quantize.linear.mx", emulated),
    /expected: one of quantize.linear.float8 and quantize.linear.mx/,
  );
  assertMatch((await load(emulated)).warnings.join(), /recipe_name has no effect: it needs model.converters/);
  assertMatch(
    (await load(...on, emulated, "--quantize.linear.float8.emulate")).warnings.join(),
    /emulate has no effect/,
  );
});
