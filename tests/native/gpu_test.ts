/** A model trains on a GPU as it does on a CPU. Where TITAN_DEVICE says `cuda`, the module that TITAN_CUDA names is the GPU, or what emulates one.
 * @module */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { BYTE_TOKENS, BYTES } from "../../data/byte_tokenizer.ts";
import { llama, llamaConfig } from "../../model/llama.ts";
import { float8ProductsOf } from "../../train/float8.ts";
import type { TrainOptions } from "../../train/options.ts";
import { load } from "../../train/checkpoint/load.ts";
import { openDecoder } from "../../train/generate/decoder.ts";
import { Trainer } from "../../train/trainer.ts";

import { assertAsOne, run } from "../train/mesh_cases.ts";
import type { MeshCase } from "../train/mesh_rank.ts";
import { hasGpus } from "./gpus.ts";
import { testRanks } from "./mpirun.ts";
import { KIND } from "./native.ts";

const sizes = { dim: 32, numLayers: 1, numHeads: 2, numKvHeads: 1, multipleOf: 16, vocabSize: BYTE_TOKENS };

/** Loss and gradient norm of each step, and the held-out loss after them, where there is one. */
async function losses(
  device: "cpu" | "cuda",
  dtype: "f32" | "f64",
  more: Partial<TrainOptions> = {},
): Promise<number[]> {
  await using trainer = await Trainer.open({
    ...{ model: llama("debug", sizes), data: { name: "c4_test" }, device, dtype, steps: 2, batch: 1, seqLen: 16 },
    ...{ tokenizer: BYTES, accumulation: 2, lr: 1e-2, precision: { param: "f32" }, threads: 1, notice: () => {} },
    ...more,
  });
  const numbers: number[] = [];
  for await (const { loss, gradNorm } of trainer) numbers.push(loss, gradNorm);
  if (more.validation) numbers.push((await trainer.evaluate()).loss);
  return numbers;
}

/** Numbers of a GPU are as many as those of a CPU, and no further from them than this, of a number above 1 relatively. */
function assertNear(cpu: readonly number[], gpu: readonly number[], tolerance: number): void {
  const off = Math.max(...cpu.map((x, i) => Math.abs(gpu[i] - x) / Math.max(1, Math.abs(x))));
  assert(
    gpu.length === cpu.length && off <= tolerance,
    `off by ${off}: ${cpu.slice(0, 8)} on the CPU, ${gpu.slice(0, 8)} on the GPU`,
  );
}

const ignore = KIND !== "cuda";

for (const [dtype, tolerance] of [["f32", 1e-4], ["f64", 1e-10]] as const) {
  Deno.test(
    { ignore, name: `the whole debug model trains on a GPU as on a CPU, to ${tolerance} in ${dtype}` },
    async () => {
      const validation = { data: { name: "c4_validation" }, batch: 1, seqLen: 16, steps: 1 };
      const whole = { model: llama("debug"), tokenizer: undefined, validation };
      const [cpu, gpu] = [await losses("cpu", dtype, whole), await losses("cuda", dtype, whole)];
      assertEquals([cpu.length, gpu.length], [5, 5]);
      assertNear(cpu, gpu, tolerance);
    },
  );
}

for (
  const [name, tolerance, more] of [
    ["f32", 1e-4, {}],
    ["tf32", 1e-3, { precision: { param: "f32", tf32: true } }],
    ["bf16", 0.01, { precision: { param: "bf16" } }],
    ["float8", 0.05, { precision: { param: "bf16", float8: float8ProductsOf(llama("debug", sizes)) } }],
  ] as const
) {
  Deno.test(
    { ignore, name: `all products of a model in ${name} are cuBLASLt's, and its losses near a CPU's` },
    async () => {
      Deno.env.set("TITAN_CUDA_PRODUCTS", "cublaslt");
      try {
        const [cpu, gpu] = [await losses("cpu", "f32", more), await losses("cuda", "f32", more)];
        assertEquals(gpu.length, 4);
        assertNear(cpu, gpu, tolerance);
      } finally {
        Deno.env.delete("TITAN_CUDA_PRODUCTS");
      }
    },
  );
}

Deno.test({ ignore, name: "products of f32 are rounded to TF32 only where that is asked for" }, async () => {
  const exact = await losses("cuda", "f32"), precision = { param: "f32", tf32: true } as const;
  assertNotEquals(await losses("cuda", "f32", { precision }), exact);
});

Deno.test(
  { ignore, name: "a model whose attention cuDNN runs trains on a GPU as on a CPU, as near as bf16 is to f32" },
  async () => {
    const exact = await losses("cpu", "f32"), bf16 = { precision: { param: "bf16" } } as const;
    const [cpu, gpu] = [await losses("cpu", "f32", bf16), await losses("cuda", "f32", bf16)];
    const apart = (a: number[], b: number[]) => Math.max(...a.map((x, i) => Math.abs(x - b[i])));
    const [off, spread] = [apart(gpu, cpu), apart(cpu, exact)];
    assert(off <= 2 * spread, `off by ${off}, bf16 by ${spread}: ${cpu} on the CPU, ${gpu} on the GPU`);
  },
);

Deno.test(
  { ignore, name: "a model trains twice the same on a GPU, with and without graphs, bit for bit" },
  async () => {
    const once = await losses("cuda", "f32");
    Deno.env.set("TITAN_CUDA_GRAPHS", "off");
    try {
      assertEquals(await losses("cuda", "f32"), once);
    } finally {
      Deno.env.delete("TITAN_CUDA_GRAPHS");
    }
  },
);

for (const [dtype, tolerance] of [["f32", 1e-4], ["f64", 1e-10]] as const) {
  Deno.test({ ignore, name: `a model reads on on a GPU as on a CPU, to ${tolerance} in ${dtype}` }, async () => {
    const decode = async (device: "cpu" | "cuda") => {
      using decoder = await openDecoder(load("tests/goldens/hf/grouped"), {
        maxLength: 16,
        sequences: 2,
        dtype,
        device,
      });
      const logits: number[] = [];
      for (const tokens of [[[1, 7, 3], [5]], [[2], [4, 6]], [[9], []]]) logits.push(...await decoder.extend(tokens));
      return logits;
    };
    const [cpu, gpu] = [await decode("cpu"), await decode("cuda")];
    assertNear(cpu, gpu, tolerance);
  });
}

Deno.test({ ignore, name: "a run on a GPU writes texts between its steps as one on a CPU does" }, async () => {
  const write = async (device: "cpu" | "cuda") => {
    await using trainer = await Trainer.open({
      ...{
        model: llama("debug", sizes),
        data: { name: "c4_test" },
        device,
        dtype: "f32",
        steps: 1,
        batch: 1,
        seqLen: 16,
      },
      ...{
        tokenizer: BYTES,
        precision: { param: "f32" },
        threads: 1,
        generate: { maxLength: 16, sequences: 1 },
        notice: () => {},
      },
    });
    for await (const _ of trainer) break;
    return [...await trainer.decoder.extend([[72, 101, 108]])];
  };
  const [cpu, gpu] = [await write("cpu"), await write("cuda")];
  const off = Math.max(...cpu.map((x, i) => Math.abs(gpu[i] - x)));
  assert(off <= 1e-4, `off by ${off}`);
});

const four = { numLayers: 4 };
const by = (schedule: string): MeshCase["choices"] => ({ pipeline: { schedule } });
/** What TITAN_GPU_MESHES=all adds, which takes minutes: schedules with slots for many microbatches, rings, async TP, experts. */
const more: readonly MeshCase[] = Deno.env.get("TITAN_GPU_MESHES") !== "all" ? [] : [
  { mesh: { pp: 2 }, choices: by("ZBVZeroBubble"), model: four, accumulation: 4 },
  { mesh: { pp: 2 }, choices: by("DualPipeV"), model: four, accumulation: 4 },
  { mesh: { pp: 2, dp_shard: 2 }, choices: by("Interleaved1F1B"), model: four, accumulation: 4 },
  { mesh: { dp_shard: 2, cp: 2 }, choices: { rotateMethod: "alltoall" }, documents: true },
  { mesh: { tp: 2 }, choices: { asyncTensorParallel: true } },
  { mesh: { dp_shard: 2, ep: 2 }, experts: true, accumulation: 2 },
];

/** Runs on several GPUs, of which each rank has one. */
const meshes: readonly MeshCase[] = [
  ...more,
  { mesh: { dp_shard: 2, tp: 2 }, accumulation: 2 },
  { mesh: { dp_replicate: 2, dp_shard: 2 }, model: { tiedEmbeddings: true }, accumulation: 3 },
  { mesh: { cp: 2 } },
  { mesh: { pp: 2 }, accumulation: 4 },
].map((run) => ({ ...run, steps: 3, globalBatch: 4 }));

if (!ignore) {
  const testGpus: typeof testRanks = hasGpus(4) ? testRanks : (name, fn) => Deno.test({ name, ignore: true, fn });
  testGpus("several GPUs train as one CPU does, to 1e-10 in f64, with and without graphs the same bits", async () => {
    const graphs = await run(meshes), some = meshes.filter(({ mesh }) => mesh.tp || mesh.pp);
    assertAsOne(graphs, { gradient: 1e-12, loss: 1e-10 });
    Deno.env.set("TITAN_CUDA_GRAPHS", "off");
    try {
      const launched = await run(some);
      for (const run of some) assertEquals(launched.get(run)!.last, graphs.get(run)!.last);
    } finally {
      Deno.env.delete("TITAN_CUDA_GRAPHS");
    }
  });

  testGpus("the whole debug model trains on four GPUs as on one CPU, to 1e-4 in f32", async () => {
    const whole = {
      mesh: { dp_shard: 2, tp: 2 },
      dtype: "f32",
      model: llamaConfig("debug"),
      steps: 2,
      globalBatch: 4,
    } as const;
    assertAsOne(await run([whole]), { gradient: 1e-5, loss: 1e-4 });
  });
}
