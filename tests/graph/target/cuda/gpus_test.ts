import { assert, assertEquals } from "@std/assert";
import { cuda } from "../../../../graph/target/cuda.ts";
import { gpuNamed, gpus } from "../../../../graph/target/cuda/gpus.ts";

Deno.test("what the target prices is what an H100 reaches: below its peaks, but not by half", () => {
  const { flops, bandwidth } = gpus.h100, { flopsPerSecond, bytesPerSecond } = cuda.costs;
  for (const rate of [flopsPerSecond.matmul / flops.bf16, bytesPerSecond / bandwidth]) assert(rate > 0.5 && rate < 1);
});

Deno.test("GPUs are told by small letters, and have tensor cores for bf16, so that these are faster than f32 and f64", () => {
  for (const [name, { flops, level }] of Object.entries(gpus)) {
    assertEquals(name, name.toLowerCase());
    assert(flops.bf16 > flops.f32 && flops.f32 > flops.f64, name);
    assert(/^sm_\d\d\d?$/.test(level), name);
  }
});

Deno.test("a GPU is found by the name that CUDA tells, and one that no sheet here is of is not taken for another", () => {
  const peaks = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H20": 148e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA GB200": 2500e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA GH200 480GB": 989e12,
    "NVIDIA L40S": 362e12,
  };
  for (const [name, peak] of Object.entries(peaks)) assertEquals(gpuNamed(name)?.flops.bf16, peak, name);
  assertEquals(gpuNamed("NVIDIA A100-SXM4-40GB")?.memory, 40e9);
  for (
    const name of [
      "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
      "NVIDIA L40",
      "NVIDIA A10",
      "NVIDIA RTX A1000",
      "NVIDIA GeForce RTX 4090",
      "",
    ]
  ) {
    assertEquals(gpuNamed(name), undefined);
  }
});
