import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { f32 } from "../../../graph/builder.ts";
import { type Graph, type Node, numel } from "../../../graph/ir.ts";
import { programOf } from "../../../graph/ops/map.ts";
import { encode } from "../../../graph/passes/encode.ts";
import { memory } from "../../../graph/passes/memory.ts";
import { fullPrecision, type Precision } from "../../../graph/passes/precision.ts";
import { predictedSeconds } from "../../../graph/passes/remat_search.ts";
import { callOf, type Target } from "../../../graph/target/target.ts";
import { cpu } from "../../../graph/target/cpu.ts";
import { trace } from "../../../graph/trace.ts";
import { llama } from "../../../model/llama.ts";
import { compileGraphs, passes } from "../../../train/compile.ts";
import { Mesh } from "../../../parallel/mesh.ts";
import { planMesh } from "../../../train/report/mesh_plan.ts";
import { compileStep, stepGraphs, type StepOptions } from "../../../train/step_plan.ts";
import { meshGraph } from "../../parallel/step_graphs.ts";
import { tinyLlama } from "../../model/tiny.ts";
import { assertRuns, assertSound } from "../passes/arena.ts";
import { decode } from "../passes/decode.ts";
import { assertSameMeaning } from "../random_graphs.ts";
import { dryCuda, WORKSPACE } from "./dry_cuda.ts";

const optimizer = { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, maxNorm: 1 };
const mixed: Precision = { ...fullPrecision, param: "bf16" };

/** The step of the model that `configs/debug.toml` trains, with evaluation. */
const step: Omit<StepOptions, "threads"> = {
  ...{ model: llama("debug"), optimizer, dtype: "f32", batch: 8, seqLen: 256, accumulation: 1 },
  evaluate: { batch: 8, seqLen: 256 },
};
const debug = stepGraphs(step);
const compiled = compileGraphs(debug, { target: dryCuda, precision: mixed, threads: 2 });
const program = decode(compiled.program.bytes, dryCuda);
const nodesOf = (graphs: readonly Graph[], op: string): Node[] =>
  graphs.flatMap((g) => g.nodes.filter((n) => n.op === op));

Deno.test("a step compiles to a program of another target, which it names, in that target's kernels alone", () => {
  const names = ["initialize", "microbatch", "update", "evaluate", "evaluate_result"];
  assertEquals(program.sections.map((s) => s.name), names);
  const used = new Set<string>(program.sections.flatMap((s) => s.instructions.map((i) => i.kernel)));
  assertEquals([...used].filter((name) => name in cpu.kernels), []);
  for (const name of ["cublas_matmul", "cudnn_attention_backward", "cu_norm", "cu_map", "cu_copy"]) {
    assert(used.has(name), name);
  }
  assertThrows(() => decode(compiled.program.bytes), Error, "the device");
});

Deno.test("a step is compiled, and on a mesh planned, for the target that it is asked for, and else for the CPU", () => {
  const options = { ...step, precision: mixed, threads: 2 };
  const names = [compileStep({ ...options, target: dryCuda }), compileStep(options)].map((s) => s.plan.target.name);
  assertEquals(names, ["cuda", "cpu"]);
  const model = llama("debug", { numLayers: 1 }), ranks = { mesh: new Mesh({ dp_shard: 2 }, 2) };
  const planned = (target?: Target) => planMesh({ ...options, model, name: "debug", ranks, target }).memory;
  assertEquals(planned(), planned(cpu));
  assertNotEquals(planned(), planned(dryCuda));
});

Deno.test("the fusions that a target names are made, and no other", () => {
  const ops = new Set(compiled.graphs.flatMap((g) => g.nodes.map((n) => n.op)));
  assertEquals([ops.has("add_rmsnorm"), ops.has("rope"), ops.has("map")], [false, true, true]);
  assert(nodesOf(compiled.graphs, "attention").every((n) => !n.attrs.rope));
  assert(nodesOf(compiled.graphs, "adamw").length > 1);
  // What it cannot add into states is added by a kernel of its own.
  assert(nodesOf(compiled.graphs, "contract").every((n) => !n.attrs.into));
  // One product by wq, wk and wv, whether they are read as one or rounded into one.
  const { graphs } = compileGraphs(debug, { target: dryCuda, threads: 1 });
  assert(nodesOf(graphs, "read").some((n) => (n.attrs.states as string[]).length === 3));
  assertEquals(nodesOf(compiled.graphs, "contract").length, nodesOf(graphs, "contract").length);
  const none: Target = { ...dryCuda, fusions: new Set() };
  const plain = compileGraphs(debug, { target: none, threads: 1 }).graphs;
  assertEquals([nodesOf(plain, "map").length, nodesOf(debug, "adamw").length], [0, nodesOf(plain, "adamw").length]);
});

Deno.test("operands are rounded where the target's kernels want them", () => {
  const operands = (target: Target, op: string) => {
    const { graphs } = compileGraphs(debug, { target, precision: mixed, threads: 1 });
    const types = nodesOf(graphs, op).map((n) =>
      n.inputs.slice(0, 3).filter((v) => v.dtype !== "i32").map((v) => v.dtype)
    );
    return new Set(types.map(String));
  };
  assertEquals(operands(dryCuda, "attention"), new Set(["bf16,bf16,bf16"]));
  assertEquals(operands(dryCuda, "contract"), new Set(["bf16,bf16"]));
  // The CPU's products round the f32 masters of weights themselves.
  assert(operands(cpu, "contract").has("bf16,f32"));
});

Deno.test("heads are cut into the target's chunks, and maps are as long as its kernel takes", () => {
  const rows = (graphs: readonly Graph[]) =>
    nodesOf([graphs[1]], "cross_entropy").map((n) => numel(n.inputs[0].shape.slice(0, -1)));
  assertEquals(rows(compiled.graphs), Array(8).fill(256));
  assertEquals(rows(compileGraphs(debug, { threads: 1 }).graphs), Array(4).fill(512));
  const steps = nodesOf(compiled.graphs, "map").map((n) => programOf(n.attrs).steps.length);
  assertEquals([Math.max(...steps) <= 4, steps.some((n) => n > 1)], [true, true]);
});

Deno.test("memory has the target's alignment, pages and scratch", () => {
  const { plan } = compiled;
  assertEquals(plan.sections.flatMap((s) => s.allocations).filter((b) => b.offset % 256 !== 0), []);
  assertEquals([plan.arenaBytes % dryCuda.page, plan.target.name], [0, "cuda"]);
  const scratch = plan.sections.flatMap((s) => s.allocations).filter((b) => b.use === "scratch");
  assertEquals(new Set(scratch.map((b) => b.bytes)), new Set([WORKSPACE]));
});

Deno.test("every pass for another target keeps what the graphs of a step mean, and the plan runs", () => {
  const shape = { batch: 2, seqLen: 8, dtype: "f64" } as const,
    target: Target = { ...dryCuda, chunks: { rows: 3, chunks: 9 } };
  const tiny = stepGraphs({ model: tinyLlama(), optimizer, accumulation: 1, ...shape, evaluate: shape });
  for (const graph of tiny) {
    const placed = passes({ target, remat: { mode: "full" } }).reduce((before, { run }) => {
      const after = run(before);
      assertSameMeaning(before, after, 1, 1e-10);
      return after;
    }, graph);
    const plan = memory([placed], { target, threads: 1 });
    assertSound(plan);
    assertRuns(plan, 1);
  }
});

Deno.test("a rank's part of a step has kernels of another target", () => {
  for (const axes of [{ dp_shard: 2 }, { cp: 2 }, { tp: 2 }, { dp_shard: 2, tp: 2 }]) {
    for (const name of ["initialize", "microbatch", "update", "evaluate"] as const) {
      const { graph } = meshGraph(name, axes, "materialize", { target: dryCuda, precision: mixed });
      const { bytes } = encode(memory([graph], { target: dryCuda, threads: 1 }));
      const { instructions } = decode(bytes, dryCuda).sections[0];
      assert(instructions.every(({ kernel, stream }) => stream === (dryCuda.kernels[kernel].collective ? 1 : 0)));
    }
  }
});

Deno.test("a value is made again or kept by what work takes on the target", () => {
  const graph = trace((x, w) => x.contract("a b, b c -> a c", w), f32(64, 64), f32(64, 64));
  const seconds = (flops: number, bytes: number) =>
    predictedSeconds(graph, { flopsPerSecond: { ...cpu.costs.flopsPerSecond, matmul: flops }, bytesPerSecond: bytes });
  const [work, moved] = [2 * 64 ** 3, 3 * 4 * 64 ** 2];
  assertEquals([seconds(work, Infinity), seconds(Infinity, moved), seconds(work, moved)], [1, 1, 2]);
});

Deno.test("an op without an entry, and a kernel that is none of the target's, are refused by name", () => {
  const graph = trace((x, r, w) => x.apply("add_rmsnorm", [r, w], { eps: 1 })[0], f32(2, 2), f32(2, 2), f32(2));
  assertThrows(
    () => callOf(dryCuda, graph.nodes[0]),
    TypeError,
    'Cannot run "add_rmsnorm" on target "cuda": it has no kernel there',
  );
  const planned = (target: Target) => memory([graph], { target, threads: 1 });
  assertThrows(() => encode(planned(dryCuda)), TypeError, 'Cannot run "add_rmsnorm" on target "cuda"');
  const lowerings = { ...dryCuda.lowerings, add_rmsnorm: {} };
  assertThrows(
    () => encode(planned({ ...dryCuda, lowerings })),
    TypeError,
    'Cannot run kernel "add_rmsnorm": expected one of target "cuda"',
  );
  assertThrows(
    () => encode(planned({ ...cpu, name: "a_processor_of_tomorrow" })),
    RangeError,
    'Cannot encode the name of target "a_processor_of_tomorrow": 23 bytes, at most 16',
  );
});
