/** The target `cuda`: what is compiled for it, where no GPU is.
 * @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { kernelViews } from "../../../graph/place.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { cuda, targetOf } from "../../../graph/target/cuda.ts";
import { llama } from "../../../model/llama.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { callOf } from "../../../graph/target/target.ts";
import { compileGraphs } from "../../../train/compile.ts";
import { float8ProductsOf } from "../../../train/float8.ts";
import { traceMicrobatch } from "../../../train/step.ts";
import { compileStep } from "../../../train/step_plan.ts";

const sizes = { dim: 32, numLayers: 1, numHeads: 2, vocabSize: 64 };
const graph = (seqLen = 16) =>
  traceMicrobatch(llama("debug", sizes), { batch: 2, seqLen, dtype: "f32", globalTokens: 2 * seqLen });
const compiledFor = (target: typeof cpu) => compileGraphs([graph()], { threads: 1, target });

Deno.test("a program for GPUs says so, and each of its buffers begins where vector loads and whole lines of memory do", () => {
  const { plan, program } = compiledFor(cuda);
  const name = new TextDecoder().decode(program.bytes.subarray(112, 128)).replaceAll("\0", "");
  assertEquals(name, "cuda");
  const offsets = plan.sections.flatMap(({ allocations }) => allocations.map(({ offset }) => offset));
  assert(offsets.length > 20);
  assertEquals(offsets.filter((offset) => offset % 256 !== 0), []);
  assert(compiledFor(cpu).plan.sections.some((s) => s.allocations.some(({ offset }) => offset % 256 !== 0)));
});

Deno.test("GPUs run what CPUs run, by kernels of the same names, and turn heads by one of its own", () => {
  const kernelsOf = (target: typeof cpu) => compiledFor(target).program.sections[0].instructions.map((i) => i.kernel);
  assertEquals(kernelsOf(cuda).filter((kernel) => kernel !== "rope"), kernelsOf(cpu));
  assertEquals(kernelsOf(cuda).length, kernelsOf(cpu).length + 4);
  assertThrows(() => compileGraphs([graph()], { threads: 1, target: { ...cuda, lowerings: {} } }), TypeError, '"cuda"');
});

Deno.test("products of bf16 have operands that are rounded already, where a CPU rounds them while it multiplies", () => {
  const precision = { param: "bf16", reduce: "f32", stored: "f32" } as const;
  const operandsFor = (target: typeof cpu) => {
    const { plan } = compileGraphs([graph()], { threads: 1, target, precision });
    const products = plan.sections.flatMap((s) => s.graph.nodes.filter((n) => n.op === "contract"));
    return products.flatMap((n) => n.inputs.map((v) => v.dtype));
  };
  assertEquals(new Set(operandsFor(cuda)), new Set(["bf16"]));
  assertEquals(new Set(operandsFor(cpu)), new Set(["bf16", "f32"]));
});

Deno.test("weights that ranks share out travel in bf16, straight to where products read them", () => {
  const ranks = { mesh: new Mesh({ dp_shard: 2 }, 2), rank: 0 };
  const { graphs } = compileStep({
    ...{
      model: llama("debug", sizes),
      dtype: "f32",
      batch: 1,
      seqLen: 16,
      accumulation: 1,
      threads: 1,
      target: cuda,
      ranks,
    },
    precision: { param: "bf16", reduce: "f32", stored: "f32" },
    optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 },
  });
  const { nodes } = graphs.find(({ name }) => name === "microbatch")!;
  const gathered = nodes.filter(({ op }) => op === "all_gather").flatMap(({ outputs }) => outputs);
  const matrices = gathered.filter(({ shape }) => shape.length === 2);
  // Seven of the layer, in forward and again in backward, and the output layer's; the embedding's table is read in f32.
  assertEquals(["f32", "bf16"].map((dtype) => matrices.filter((v) => v.dtype === dtype).length), [1, 15]);
  assertEquals(nodes.filter(({ op }) => op === "copy" || op === "cast"), []);
});

Deno.test("products of float8 have operands that are contiguous along what is summed over, by copies that a CPU does without", () => {
  const float8 = float8ProductsOf(llama("debug", sizes));
  const strided = (target: typeof cpu) => {
    const precision = { param: "bf16", reduce: "f32", stored: "f32", float8 } as const;
    const { plan } = compileGraphs([graph()], { threads: 1, target, precision });
    const taken = plan.sections.flatMap(({ graph, places }) =>
      graph.nodes.filter((n) => n.op === "contract" && n.inputs.every((v) => v.dtype.startsWith("f8")))
        .map((n) => kernelViews(n, [...n.inputs, ...n.outputs].map((v) => places.of.get(v)!.view), target))
    );
    assert(taken.length > 10);
    return taken.filter((v) => typeof v === "string" || v[0].strides[2] !== 1 || v[1].strides[1] !== 1).length;
  };
  assertEquals(strided(cuda), 0);
  assert(strided(cpu) > 0);
});

Deno.test("norms' gradients have scratch for as many blocks as fill a GPU, and for no more than there are rows", () => {
  const scratchOf = (target: typeof cpu, seqLen: number) => {
    const { plan } = compileGraphs([graph(seqLen)], { threads: 1, target });
    const [section] = plan.sections, node = section.graph.nodes.find((n) => n.op === "rmsnorm_backward")!;
    return section.scratchOf(node)!.bytes / (4 * sizes.dim);
  };
  assertEquals([16, 256, 512].map((seqLen) => scratchOf(cuda, seqLen)), [32, 512, 512]);
  assertEquals(scratchOf(cpu, 512), 64);
});

Deno.test("each kind of device has the target of its name, as programs have it", () => {
  for (const kind of ["cpu", "cuda"] as const) assertEquals(targetOf({ kind }).name, kind);
});

Deno.test("a GPU before sm_90 runs attention by its own kernels, whose memory does not grow with the square of the tokens", () => {
  const knowsOrder = (level: string) => targetOf({ kind: "cuda", level }).ownFusion !== undefined;
  assertEquals(["sm_80", "sm_89", "sm_90", "sm_100", "sm_120"].map(knowsOrder), [false, false, true, true, true]);
  assertEquals(targetOf({ kind: "cpu", level: "avx512" }), cpu);
});

Deno.test("a GPU rounds what products of f32 take to TF32 where that is allowed, and nothing else", () => {
  const rounds = (options: { tf32?: boolean; kind?: "cpu" | "cuda"; bf16?: boolean }) => {
    const precision = { param: options.bf16 ? "bf16" : "f32", reduce: "f32", stored: "f32" } as const;
    const target = targetOf({ kind: options.kind ?? "cuda" }, options);
    const { plan } = compileGraphs([graph()], { threads: 1, target, precision });
    const products = plan.sections.flatMap((s) => s.graph.nodes.filter((n) => n.op === "contract"));
    return new Set(products.map((n) => callOf(target, n).attrs.bf16));
  };
  assertEquals([rounds({}), rounds({ tf32: true }), rounds({ tf32: true, bf16: true })].map((s) => [...s]), [[0], [2], [
    1,
  ]]);
  assertEquals([...rounds({ tf32: true, kind: "cpu" })], [0]);
  const wide = traceMicrobatch(llama("debug", sizes), { batch: 2, seqLen: 16, dtype: "f64", globalTokens: 32 });
  const target = targetOf({ kind: "cuda" }, { tf32: true });
  const products = compileGraphs([wide], { threads: 1, target }).plan.sections.flatMap((s) => s.graph.nodes);
  const calls = products.filter((n) => n.op === "contract").map((n) => callOf(target, n).attrs.bf16);
  assertEquals(new Set(calls), new Set([0]));
});
