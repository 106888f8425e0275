import { assertEquals, assertStringIncludes } from "@std/assert";
import type { DeviceInfo } from "../../../ffi/device.ts";
import type { Batch, LossSum } from "../../../model/loss.ts";
import { Module, numParameters, parameter } from "../../../model/module.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { publishedPeak } from "../../../graph/target/cuda/gpus.ts";
import { deviceText, modelText, ranksText, slowPaths } from "../../../train/report/header.ts";
import { compileStep } from "../../../train/step_plan.ts";
import { tinyLlama } from "../../model/tiny.ts";

const model = tinyLlama();
const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const sizes = { optimizer, dtype: "f32", batch: 2, seqLen: 16, threads: 2 } as const;
const compiled = compileStep({ model, ...sizes, accumulation: 3 });

Deno.test("a device tells its level, whether that was forced, and who multiplies matrices", () => {
  const device = {
    kind: "cpu" as const,
    threads: 2,
    threadsText: "",
    vectorBits: 512,
    level: "avx512",
    levelIsForced: false,
    processor: "A CPU",
    product: "A BLAS 1.2",
  };
  assertEquals(
    deviceText(device, 99.6, "f32"),
    "A CPU, 2 threads, level avx512 (512-bit vectors), A BLAS 1.2, 100 GFLOP/s in a matrix product (f32)",
  );
  assertStringIncludes(
    deviceText({ ...device, level: "avx2", levelIsForced: true, vectorBits: 256 }, 9, "bf16"),
    "level avx2, forced by TITAN_CPU (256-bit vectors)",
  );
  assertStringIncludes(
    deviceText({ ...device, threads: 1, threadsText: "the CPU quota is 0.5" }, 9, "f32"),
    "A CPU, 1 thread (the CPU quota is 0.5), level",
  );
  assertStringIncludes(
    deviceText({ ...device, noGpu: "none is visible" }, 9, "f32"),
    "(f32); no GPU, as none is visible",
  );
});

Deno.test("a GPU tells its memory, clock and links, and how much of its data sheet's peak a product reaches", () => {
  const gpu: DeviceInfo = {
    kind: "cuda",
    threads: 2,
    threadsText: "80.0 GB at 3352 GB/s, NVLink to 7 more",
    vectorBits: 0,
    level: "sm_90",
    levelIsForced: false,
    processor: "NVIDIA H100 80GB HBM3",
    product: "libtitan's own",
  };
  assertEquals(
    deviceText(gpu, 494_500, "bf16"),
    "NVIDIA H100 80GB HBM3 (sm_90), 80.0 GB at 3352 GB/s, NVLink to 7 more, libtitan's own, " +
      "494500 GFLOP/s in a matrix product (bf16), 50% of the published 989 TFLOP/s",
  );
  const bf16 = { dtype: "f32", precision: { param: "bf16" } } as const;
  assertEquals([publishedPeak(gpu, bf16), publishedPeak(gpu, { dtype: "f32" })], [989e12, 67e12]);
  const unknown = { ...gpu, processor: "A GPU" };
  assertEquals(publishedPeak(unknown, bf16), undefined);
  assertEquals(deviceText(unknown, 9, "bf16").includes("published"), false);
  assertEquals(publishedPeak({ ...gpu, kind: "cpu" }, bf16), undefined);
});

Deno.test("a model is told in parameters, tokens and FLOPs, as far as it knows them", () => {
  const mflop = (model.flopsPerToken(16) / 1e6).toFixed(1);
  assertEquals(numParameters(model), 4944);
  assertEquals(modelText(model, 12345, 16), `4,944 parameters, 12,345 tokens per step, ${mflop} MFLOP per token`);
  class Own extends Module {
    readonly weight = parameter([7], { kind: "constant", value: 0 });
    loss(): never {
      throw new Error("not asked for here");
    }
  }
  assertEquals(modelText(new Own(), 3, 16), "7 parameters, 3 tokens per step");
});

Deno.test("a step that takes a slower path says which, and the usual one has nothing to say", () => {
  assertEquals(slowPaths(compiled), []);
  class Pooled extends Module {
    readonly table = parameter([8, 4], { kind: "normal", std: 1 });
    loss({ tokens, targets }: Batch): LossSum {
      const x_BTD = tokens.apply("embedding", [this.table()])[0];
      // Each row's logits also see the mean over all rows: no chunk has all that it needs.
      const logits_BTV = x_BTD.matmul(this.table().transpose(0, 1));
      const mixed = logits_BTV.add(logits_BTV.mean([0, 1]));
      const [lossSum, count] = mixed.apply("cross_entropy", [targets], { ignore_index: -100 });
      return { lossSum, count };
    }
  }
  const pooled = { model: new Pooled(), optimizer, dtype: "f32", accumulation: 1, threads: 1 } as const;
  const why = "at once, since they come of several values, not of one product in %";
  const lines = slowPaths(compileStep({ ...pooled, batch: 2, seqLen: 300 }));
  assertEquals(lines.length, 1);
  assertStringIncludes(lines[0], "microbatch holds all logits of its loss " + why);
  assertEquals(slowPaths(compileStep({ ...pooled, batch: 2, seqLen: 30 })), []);
  const large = { ...pooled, model, batch: 64, seqLen: 512 };
  assertEquals(slowPaths(compileStep(large)), [], "chunks of more than 512 rows are chunks all the same");
});

Deno.test("ranks are told by their mesh, how they exchange, and where they compute", () => {
  const mesh = new Mesh({ dp_shard: 2, tp: 2 }, 4);
  const info = {
    rank: 0,
    size: 4,
    hostRank: 0,
    hostSize: 2,
    exchange: "messages",
    version: "An MPI 1",
    processors: "",
  };
  const text = "4 = dp_shard 2 x tp 2, 2 of them on this host, by messages (An MPI 1)";
  assertEquals(ranksText(mesh, info), text);
  assertEquals(
    ranksText(mesh, info, "", true),
    "4 = dp_shard 2 x tp 2, 2 of them on this host, by NCCL, in whose order sums are added (they meet by An MPI 1)",
  );
  assertEquals(
    ranksText(mesh, { ...info, processors: "threads bound to processor 1" }, "10GB/s,5us"),
    `${text}, threads bound to processor 1, as slow as over a link of 10GB/s,5us`,
  );
});
