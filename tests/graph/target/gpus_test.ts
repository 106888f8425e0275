import { assert, assertEquals } from "@std/assert";
import { cuda } from "../../../graph/target/cuda.ts";
import { gpus } from "../../../graph/target/gpus.ts";

Deno.test("what the target prices is what an H100 reaches: below its peaks, but not by half", () => {
  const { flops, bandwidth } = gpus.h100, { flopsPerSecond, bytesPerSecond } = cuda.costs;
  for (const rate of [flopsPerSecond.matmul / flops.bf16, bytesPerSecond / bandwidth]) assert(rate > 0.5 && rate < 1);
});

Deno.test("GPUs are told by small letters, and have tensor cores for bf16, so that these are faster than f32 and f64", () => {
  for (const [name, { flops, level }] of Object.entries(gpus)) {
    assertEquals(name, name.toLowerCase());
    assert(flops.bf16 > flops.f32 && flops.f32 > flops.f64, name);
    assert(/^sm_\d\d$/.test(level), name);
  }
});
