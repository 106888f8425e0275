import { fullPrecision } from "../../../graph/passes/precision.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import { makeConfig, meshOf } from "../../../train/config/config.ts";
import { infoOf } from "../../../graph/target/cuda/gpus.ts";
import { deviceSpeeds, meshPlan, stepOptions, whatFitsDevice } from "../../../train/command/plans.ts";

const config = makeConfig({
  model: { flavor: "debugmodel", n_layers: 1 },
  training: { local_batch_size: 4, seq_len: 128 },
  parallelism: { data_parallel_shard_degree: 2 },
});

Deno.test("a plan of a configuration is compared with the device that is asked about", () => {
  const mesh = meshOf(config), plan = meshPlan(config, mesh, { deviceMemory: 8e10, deviceFlops: 1e12 });
  assertEquals([plan.ranks, plan.step.globalBatchSize, plan.device?.fits], [2, 8, true]);
  assert(plan.time !== null && plan.time.most > 0);
  assertEquals(meshPlan(config, mesh).device, null);
});

Deno.test("where a plan on a mesh does not fit, changes are named that do", () => {
  const mesh = meshOf(config), { memory } = meshPlan(config, mesh), bytes = memory.arena - 2 ** 20;
  const lines = whatFitsDevice(config, mesh, meshPlan(config, mesh, { deviceMemory: bytes }));
  assertMatch(lines.join("\n"), /training\.local_batch_size 2 instead of 4 .*needs [\d.]+ MiB$/m);
  assert(!lines.some((line) => line.includes("still too much")));
});

Deno.test("a plan for a GPU counts what is taken beside the arena, also where changes are looked for that fit", () => {
  const mesh = meshOf(config), h100 = infoOf("h100"), asked = { deviceMemory: 8e10 };
  const { device, memory } = meshPlan(config, mesh, asked, h100), taken = device!.taken;
  assertEquals(Object.keys(taken), [
    "CUDA's context and libraries",
    "graphs of kernels",
    "NCCL's buffers for 1 group of ranks",
  ]);
  const limit = Object.values(taken).reduce((a, b) => a + b, memory.arena) - 2 ** 20;
  const plan = meshPlan(config, mesh, { deviceMemory: limit }, h100);
  assertEquals([plan.device!.fits, plan.memory.arena < limit], [false, true]);
  const lines = whatFitsDevice(config, mesh, plan, h100);
  assertMatch(lines.join("\n"), /training\.local_batch_size 2 instead of 4 .*needs [\d.]+ MiB$/m);
  assert(!lines.some((line) => line.includes("still too much")));
});

Deno.test("GPUs before sm_90 are planned for with libtitan's own attention", () => {
  const [a100, h100] = ["a100", "h100"].map((gpu) => stepOptions(config, infoOf(gpu)).target!);
  assertEquals([a100, h100].map(({ ownFusion }) => ownFusion !== undefined), [false, true]);
});

Deno.test("without the speed of its arithmetic a device has no times", () => {
  assertEquals(deviceSpeeds({ deviceMemory: 1 }, { dtype: "f32" }), undefined);
  const flopsOf = (dtype: "f32" | "f64", param: "f32" | "bf16", tf32 = false) =>
    deviceSpeeds({ gpu: "h100" }, { dtype, precision: { ...fullPrecision, param, tf32 } })?.flops;
  assertEquals([flopsOf("f32", "bf16"), flopsOf("f32", "f32"), flopsOf("f64", "f32")], [989e12, 67e12, 34e12]);
  assertEquals([flopsOf("f32", "bf16", true), flopsOf("f32", "f32", true)], [989e12, 494.5e12]);
  assertEquals(deviceSpeeds({ gpu: "h100", deviceFlops: 4e14 }, { dtype: "f32" })?.flops, 4e14);
  assertEquals(deviceSpeeds({ deviceFlops: 2, links: { tp: 1 }, tokens: 3 }, { dtype: "f32" }), {
    flops: 2,
    bandwidth: undefined,
    links: { tp: 1 },
    tokens: 3,
  });
});
